"""A quota that leaves out both ends of the score (ELFS, arXiv 2406.04273)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Ge, Lt
from jaxtyping import Float64

from ssl_lightning.subsets.quota import Offer, Quota, Ranked, lots


@dataclass(frozen=True, kw_only=True)
class DoubleEnd(Quota):
    """By the score alone, whatever the groups, but without the very best: of a ranking that keeps the hardest, those
    that are so hard that they may be mistakes (arXiv 2406.04273, double-end pruning).

    Args:
        cut: β, the share of the images of highest score that come after all others, the lower ones first.
    """

    cut: Annotated[float, Ge(0), Lt(1)] = 0.1

    name: ClassVar[str] = "double_end"
    needs: ClassVar[Offer | None] = "scores"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        m = len(ranked.score)
        best_first = np.lexsort((lots(ranked, "double_end"), -ranked.score))
        last, rest = np.split(best_first, [int(self.cut * m)])
        keys = np.empty(m)
        keys[rest] = np.arange(len(rest))
        keys[last] = m + np.arange(len(last))[::-1]
        return keys
