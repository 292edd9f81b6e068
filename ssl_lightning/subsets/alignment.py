"""How alike an image looks to an encoder under augmentation."""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float64

from ssl_lightning.errors import UserError
from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule


def alignment(mean: Float[np.ndarray, "n d"], looks: int) -> Float64[np.ndarray, " n"]:
    """Mean ⟨ẑ_v, ẑ_w⟩ over pairs of different looks at an image, in [−1/(A − 1), 1].

    It follows from the mean z̄ of A unit vectors: ‖Σ_v ẑ_v‖² = A + Σ_{v≠w} ⟨ẑ_v, ẑ_w⟩, hence
    (A²‖z̄‖² − A)/(A(A − 1)).

    Args:
        mean: of the unit vectors of each image's looks.
        looks: A, at least 2.
    """
    return (looks * np.square(mean.astype(np.float64)).sum(1) - 1) / (looks - 1)


@dataclass(frozen=True, kw_only=True)
class Alignment(GroupedRule):
    """By the mean cosine of different looks at an image: what the alignment of a trained encoder is the mean of
    (arXiv 2005.10242).

    Args:
        keep: `easiest`, those that look the same first, or `hardest`.
    """

    keep: Literal["easiest", "hardest"] = "easiest"

    name: ClassVar[str] = "alignment"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.looks < 2:
            raise UserError("subset.looks is 1, but subset=alignment compares looks at an image. Choose at least 2.")

    def for_fast_dev_run(self) -> "Alignment":
        return replace(self, cache=None, looks=2)

    def order_of(self, group: Group) -> GreedyOrder:
        return GreedyOrder.of(alignment(group.features, self.looks) * (1 if self.keep == "easiest" else -1))
