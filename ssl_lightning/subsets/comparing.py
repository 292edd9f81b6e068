"""How far rankings of the same images agree, and what they keep."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64

from ssl_lightning.progress import track
from ssl_lightning.subsets.knn_density import density
from ssl_lightning.subsets.ranking import Ranking, members_of, ranks_in, size_of

NEIGHBOURS = 10
"""Of an image, by which it is typical: as many as `subset=density` looks at."""


class Balance(NamedTuple):
    """Of the labels of some images.

    Args:
        effective: exp of the entropy of their labels, from 1 to the number of labels.
        least, most: of any label's images, the share that is among them.
    """

    effective: float
    least: float
    most: float


def shares(ranking: Ranking) -> Float64[np.ndarray, " n"]:
    """Of each position, the share (place + ½)/n of the ranking at which it is taken, in (0, 1); NaN of what lies behind
    `max_fraction`, whose order says nothing."""
    n = len(ranking)
    found = np.full(n, np.nan)
    taken = ranking.order[: size_of(ranking.max_fraction, n)]
    found[taken] = (np.arange(len(taken)) + 0.5) / n
    return found


def spearman_within(
    one: Float64[np.ndarray, " n"], other: Float64[np.ndarray, " n"], groups: Int64[np.ndarray, " n"]
) -> float:
    """Spearman's ρ of two rankings within groups: of images that both rank, the mean over groups of m images, weighted
    by m − 1/m. In [−1, 1]; NaN where no group has two images.

    Args:
        one, other: as of `shares`.
    """
    both = np.isfinite(one) & np.isfinite(other)
    first, second = (_centred(values[both], groups[both]) for values in (one, other))
    norm = float(first @ first)  # that of the second as well: no two places of a ranking are equal
    return math.nan if norm == 0 else float(np.clip(first @ second / norm, -1, 1))


def _centred(values: Float64[np.ndarray, " m"], groups: Int64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """Of each value, its rank in its group, less the mean rank, by the size of the group."""
    order = np.argsort(values, kind="stable")
    rank, size = ranks_in(groups[order])
    found = np.empty(len(values))
    found[order] = (rank - (size - 1) / 2) / size
    return found


def kept(ranking: Ranking, fraction: float) -> Bool[np.ndarray, " n"] | None:
    """Which positions the first round(fraction · n) are; None where the ranking does not reach so far."""
    n = len(ranking)
    size = size_of(fraction, n)
    if size > size_of(ranking.max_fraction, n):
        return None
    found = np.zeros(n, np.bool_)
    found[ranking.order[:size]] = True
    return found


def overlap(one: Bool[np.ndarray, " n"] | None, other: Bool[np.ndarray, " n"] | None) -> float:
    """|A ∩ B| / |A| of two sets of equally many positions, in [0, 1]; NaN where one is not known or is empty. Of sets
    that know nothing of each other, |A|/n is to be expected."""
    if one is None or other is None or not one.any():
        return math.nan
    return float((one & other).sum() / one.sum())


def balance(kept: Bool[np.ndarray, " n"] | None, labels: Int64[np.ndarray, " n"]) -> Balance | None:
    """Of those that are kept and have a label (0 or more); None where there are none."""
    if kept is None or not (kept & (labels >= 0)).any():
        return None
    known = labels >= 0
    _, group = np.unique(labels[known], return_inverse=True)
    counts, all_of = np.bincount(group, weights=kept[known]), np.bincount(group)
    part = counts[counts > 0] / counts.sum()
    return Balance(
        float(np.exp(-(part * np.log(part)).sum())), float((counts / all_of).min()), float((counts / all_of).max())
    )


def typicality(
    features: Float32[np.ndarray, "n d"], groups: Int64[np.ndarray, " n"], device: torch.device
) -> Float64[np.ndarray, " n"]:
    """Of each image, the share of its group that is less typical, equals and itself counted half: in (0, 1), with the
    mean ½ in each group. Typical is by the mean cosine with the nearest neighbours in the group (`density`).

    Args:
        device: where cosines are computed.
    """
    found = np.empty(len(features))
    for members in track(members_of(groups), "typicality"):
        values = density(torch.from_numpy(features[members]).to(device), NEIGHBOURS)
        ordered = np.sort(values)
        below, upto = (np.searchsorted(ordered, values, side) for side in ("left", "right"))
        found[members] = (below + upto) / (2 * len(members))
    return found


def disputed(places: Sequence[Float64[np.ndarray, " n"]]) -> Int64[np.ndarray, " m"]:
    """The positions that all of these rank, from the largest variance of their `shares` to the smallest."""
    together = np.stack(places)
    variance = together.var(0)  # NaN where one does not rank it
    order = np.argsort(-variance, kind="stable")
    return order[: int(np.isfinite(variance).sum())]
