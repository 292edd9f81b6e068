"""Farthest first: members of a group that leave no other far away."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.candidates import Candidates, cosines_of
from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import GreedyRule


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
class KCenter(GreedyRule):
    """Farthest first in each group."""

    name: ClassVar[str] = "k_center"

    def greedy(self, features: Float[Tensor, "m d"], memory: float) -> GreedyOrder:
        return k_center(features, memory)
