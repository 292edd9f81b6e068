"""A quota over strata of the score (coverage-centric coresets, arXiv 2210.15809)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Gt, Lt
from jaxtyping import Float64, Int64

from ssl_lightning.subsets.quota import Offer, Quota, Ranked, lots
from ssl_lightning.subsets.ranking import ranks_in


@dataclass(frozen=True, kw_only=True)
class Strata(Quota):
    """As many of each stratum, whatever their groups: equally wide intervals of the score, from which images are drawn
    (arXiv 2210.15809). The worst come last: of a ranking that keeps the easiest, the hardest.

    Args:
        cut: β, the share of the images of lowest score that come after all others, the better ones first.
        strata: how many intervals the scores of the others are divided into.
    """

    cut: Annotated[float, Ge(0), Lt(1)] = 0.0
    strata: Annotated[int, Gt(0)] = 50

    name: ClassVar[str] = "strata"
    needs: ClassVar[Offer | None] = "scores"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        score, m = ranked.score, len(ranked.score)
        draw = lots(ranked, "strata")
        worst_first = np.lexsort((draw, score))
        last, rest = np.split(worst_first, [int(self.cut * m)])
        keys = np.empty(m)
        keys[last] = m + np.arange(len(last))[::-1]
        drawn = rest[np.argsort(draw[rest])]
        keys[drawn] = ranks_in(self.stratum(score[drawn]))[0] + 0.5
        return keys

    def stratum(self, score: Float64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """The interval of each score, from 0; the upper end belongs to the last."""
        low, width = score.min(), np.ptp(score)
        if width == 0:
            return np.zeros(len(score), np.int64)
        return np.minimum((score - low) / width * self.strata, self.strata - 1).astype(np.int64)
