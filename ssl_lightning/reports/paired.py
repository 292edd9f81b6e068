"""Differences between two configurations that were run with the same seeds."""

import math
import statistics
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
FEW = 3
"""Seeds below which nothing counts as separated."""
ENOUGH = 5
"""Seeds from which on signs and ranks alone can say something: with five, Wilcoxon's p is 0.0625 at best."""

DIGITS = 12
"""After the point, to which differences are rounded: those of as many images are equal, whatever the last bits are."""

MOST = 13
"""Seeds whose signs are enumerated: 8192 ways."""


class Difference(NamedTuple):
    """Of one quantity.

    Args:
        seeds: that both have, n.
        mean: of the differences.
        low, high: ends of Student's 95 % interval of the mean (n − 1 degrees of freedom); NaN for one seed.
        p: of Wilcoxon's signed-rank test, two-sided; None for fewer than five seeds.
    """

    seeds: int
    mean: float
    low: float
    high: float
    p: float | None

    @property
    def separated(self) -> bool:
        """Whether the interval leaves out 0, and is that of at least three seeds: two may agree by chance."""
        return self.seeds >= FEW and (self.low > 0 or self.high < 0)


def difference(values: Mapping[int, float], reference: Mapping[int, float]) -> Difference | None:
    """values − reference, paired by seed; None where they have no seed in common.

    The interval is that of one comparison: of many, one in twenty leaves out 0 by chance.

    Args:
        values, reference: by seed.
    """
    differences = [round(values[seed] - reference[seed], DIGITS) for seed in sorted(values) if seed in reference]
    if not differences:
        return None
    n, mean = len(differences), statistics.fmean(differences)
    if n == 1:
        return Difference(1, mean, math.nan, math.nan, None)
    from scipy.stats import t

    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * statistics.stdev(differences) / math.sqrt(n)
    return Difference(n, mean, mean - half, mean + half, _wilcoxon(differences))


def _wilcoxon(differences: list[float]) -> float | None:
    """Exact, also where there are ties, which SciPy resamples a thousand times slower, up to `MOST` differences."""
    if len(differences) < ENOUGH:
        return None
    values = np.array([value for value in differences if value])
    if not values.size:
        return 1.0
    from scipy.stats import rankdata, wilcoxon

    if len(differences) > MOST:
        return float(wilcoxon(differences).pvalue)
    ranks = rankdata(abs(values))
    signs = np.arange(2**values.size)[:, None] >> np.arange(values.size) & 1
    sums, own = signs @ ranks, ranks[values > 0].sum()
    return float(min(1.0, 2 * min((sums <= own).mean(), (sums >= own).mean())))


def standard_error(accuracy: float, images: int) -> float:
    """Binomial, of an accuracy in [0, 1] that was measured on so many images: √(a(1 − a)/n)."""
    return math.sqrt(accuracy * (1 - accuracy) / images)
