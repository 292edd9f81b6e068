"""Quotas: in what turn groups give their images. Rankings that are cut anywhere follow from one formula.

The image of rank j (from 0) in a group of weight w_k has the key (j + ½)/w_k, and images are taken by increasing key:
so subsets are nested and exact in size, each group gives in proportion to its weight, and what a group lacks is given
by the others.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from ssl_lightning.subsets.ranking import generator, members_of, ranks_in

Offer = Literal["scores", "features", "tree"]


class Ranked(NamedTuple):
    """Images that are ordered within groups, best first.

    Args:
        images: their positions in train.
        levels: the group of each, then those that contain it; one, but of groups that form a tree.
        score: of each; larger is better, NaN where there is none.
        rank: of each, from 0, in its group.
        features: of all images of train.
        seed: of what is drawn.
    """

    images: Int64[np.ndarray, " m"]
    levels: Int64[np.ndarray, "m l"]
    score: Float64[np.ndarray, " m"]
    rank: Int64[np.ndarray, " m"]
    features: Float32[np.ndarray, "n d"] | None
    seed: int

    def members(self) -> list[Int64[np.ndarray, " k"]]:
        """Of each group in turn, where in `images` its members are."""
        return members_of(self.levels[:, 0])


class Quota(ABC):
    """How much each group gives. A dataclass, so that a ranking can say how it was made.

    A quota gives a `name` and `keys`.
    """

    name: ClassVar[str]
    needs: ClassVar[Offer | None] = None
    """What not every rule has: scores that can be compared, features, or groups that form a tree."""

    @abstractmethod
    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        """When each image is taken: by increasing key, equals in a seeded order. Unless the quota `needs` scores, the
        key depends on an image's group and rank alone."""


def lots(ranked: Ranked, stream: str) -> Int64[np.ndarray, " m"]:
    """Places of the images in a seeded draw, which their order does not change."""
    m = len(ranked.images)
    return generator(ranked.seed, stream).permutation(m)[np.argsort(np.argsort(ranked.images))]


@dataclass(frozen=True, kw_only=True)
class Proportional(Quota):
    """In proportion to their sizes: w_k = n_k."""

    name: ClassVar[str] = "proportional"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        _, group, sizes = np.unique(ranked.levels[:, 0], return_inverse=True, return_counts=True)
        return (ranked.rank + 0.5) / sizes[group]


@dataclass(frozen=True, kw_only=True)
class Balanced(Quota):
    """All alike, until a group is used up: w_k = 1."""

    name: ClassVar[str] = "balanced"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        return ranked.rank + 0.5


@dataclass(frozen=True, kw_only=True)
class Hierarchical(Quota):
    """Equal shares from the top of a tree of groups down: the groups at the top give alike, and so do, in each group,
    those that it contains, until one is used up (arXiv 2405.15613, hierarchical sampling)."""

    name: ClassVar[str] = "hierarchical"
    needs: ClassVar[Offer | None] = "tree"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        rank, levels = ranked.rank, ranked.levels
        for child, parent in zip(levels.T[:-1], levels.T[1:], strict=True):  # children deal in turn, in a fixed order
            children, index = np.unique(child, return_inverse=True)
            turn = generator(ranked.seed, "children").permutation(len(children))[index]
            dealt = np.lexsort((turn, rank))
            rank = np.empty_like(rank)
            rank[dealt], _ = ranks_in(parent[dealt])
        return rank + 0.5


def keys_of(
    quota: Quota,
    order: Int64[np.ndarray, " n"],
    levels: Int64[np.ndarray, "n l"],
    score: Float64[np.ndarray, " n"],
    redundant: Bool[np.ndarray, " n"],
    features: Float32[np.ndarray, "n d"] | None,
    seed: int,
) -> Float64[np.ndarray, " n"]:
    """The keys of all positions as whole numbers from 0: in the order of those of the quota, equals alike. What is
    redundant is taken after all else, by the same quota.

    Args:
        order: all positions, best first within each group.
        levels, score, redundant: of each position.
    """
    keys, before = np.empty(len(order)), 0
    for part in (order[~redundant[order]], order[redundant[order]]):
        if len(part):
            rank, _ = ranks_in(levels[part, 0])
            found = quota.keys(Ranked(part, levels[part], score[part], rank, features, seed))
            distinct, place = np.unique(found, return_inverse=True)
            keys[part] = before + place
            before += len(distinct)
    return keys
