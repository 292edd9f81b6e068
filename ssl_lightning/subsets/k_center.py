"""Farthest first: members of a group that leave no other far away."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.config.markers import Speed
from ssl_lightning.subsets.candidates import Candidates, cosines_of
from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule


def k_center(features: Float[Tensor, "n d"], memory: float = 2**31) -> GreedyOrder:
    """Each pick is the member with the largest distance 1 − cosine to the nearest of those before it, ties to the first
    (Gonzalez 1985; as a coreset, arXiv 1708.00489). The first pick is the member whose cosine with the mean of the unit
    vectors is largest, and its score is 2, the largest distance there is.

    Args:
        features: of one group, on any device.
        memory: bytes for similarities; changes nothing but speed.
    """
    unit, n = normalize(features), len(features)
    distances = np.full(n, 2, unit.new_empty(0).cpu().numpy().dtype)
    rows = Candidates(cosines_of(unit), distances, unit, memory)
    members, scores = np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        pick = distances.argmax() if k else (unit @ unit.mean(0)).cpu().numpy().argmax()
        members[k], scores[k] = pick, distances[pick]
        np.minimum(distances, np.maximum(1 - rows[pick], 0), out=distances)
        distances[pick] = -np.inf
    return GreedyOrder(members, scores)


@dataclass(frozen=True, kw_only=True)
class KCenter(GroupedRule):
    """Farthest first in each group.

    Args:
        memory_gib: for similarities of a group; a larger group is ranked without holding all of them.
    """

    memory_gib: Annotated[float, Gt(0), Speed] = 1.0

    name: ClassVar[str] = "k_center"

    def order_of(self, group: Group) -> GreedyOrder:
        return k_center(self.vectors(group.features), self.memory_gib * 2**30)
