"""How close an image's neighbours are."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt
from jaxtyping import Float, Float64
from torch import Tensor

from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.nearest import nearest


def density(features: Float[Tensor, "n d"], k: int, memory: float | None = None) -> Float64[np.ndarray, " n"]:
    """Mean cosine with the k nearest other members of a group, in [−1, 1]; 0 for a member that is alone.

    Args: as for `nearest`.
    """
    cosines, _ = nearest(features, k, memory)
    return cosines.double().sum(1).cpu().numpy() / max(1, cosines.shape[1])


@dataclass(frozen=True, kw_only=True)
class Density(GroupedRule):
    """By the mean cosine of mean embeddings with their nearest neighbours in the group.

    Args:
        neighbours: how many.
        keep: `easiest`, the densest first, or `hardest`, outliers first.
    """

    neighbours: Annotated[int, Gt(0)] = 10
    keep: Literal["easiest", "hardest"] = "easiest"

    name: ClassVar[str] = "density"

    def order_of(self, group: Group) -> GreedyOrder:
        return GreedyOrder.of(
            density(self.vectors(group.features), self.neighbours) * (1 if self.keep == "easiest" else -1)
        )
