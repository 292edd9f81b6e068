"""A random order within groups of embeddings: what groups, quota and redundancy do by themselves."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.quota import Offer
from ssl_lightning.subsets.ranking import generator


@dataclass(frozen=True, kw_only=True)
class RandomInGroups(GroupedRule):
    """A seeded draw. It has no scores."""

    name: ClassVar[str] = "random_in_groups"

    def offers(self) -> frozenset[Offer]:
        return super().offers() - {"scores"}

    def by_precedence(self, members: Int64[np.ndarray, " m"], n: int) -> Int64[np.ndarray, " m"]:
        return members[np.argsort(generator(self.seed, "order").permutation(n)[members])]

    def order_of(self, group: Group) -> GreedyOrder:
        n = len(group.members)
        return GreedyOrder(np.arange(n), np.full(n, np.nan))
