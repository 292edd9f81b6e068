"""D2 pruning (arXiv 2310.07931): difficulty and diversity by messages in a graph of neighbours."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.latent import unit_vectors
from ssl_lightning.subsets.nearest import nearest
from ssl_lightning.subsets.ranking import Ranking, turning_points


class Graph(NamedTuple):
    """Undirected: the edges of node i are those from `first[i]` to `first[i + 1]`, each of which stands twice."""

    first: Int64[np.ndarray, " n+1"]
    neighbours: Int64[np.ndarray, " e"]
    distances: Float64[np.ndarray, " e"]


def graph_of(features: Float[Tensor, "n d"], k: int, memory: float | None = None) -> Graph:
    """Joins each member of a group to its k nearest others, with the distances √(2 − 2·cosine) of unit vectors."""
    n = len(features)
    cosines, index = (found.cpu().numpy() for found in nearest(features, k, memory))
    ends = np.stack([np.repeat(np.arange(n), index.shape[1]), index.ravel()])
    distances = np.sqrt(np.maximum(2 - 2 * cosines.ravel().astype(np.float64), 0))
    # Of both directions, as some are neighbours of one another: once.
    edges, place = np.unique(np.concatenate([ends[0] * n + ends[1], ends[1] * n + ends[0]]), return_index=True)
    first = np.searchsorted(edges, np.arange(n + 1) * n)
    return Graph(first, edges % n, np.concatenate([distances, distances])[place])


def d2(
    features: Float[Tensor, "n d"],
    start: Float64[np.ndarray, " n"],
    k: int = 10,
    forward: float = 1.0,
    reverse: float = 1.0,
    memory: float | None = None,
) -> GreedyOrder:
    """Messages forward: s_i ← s_i + Σ_j exp(−γ_f d_ij) s_j over the neighbours j of i, all at once. Then the member
    with the largest score is taken, and its neighbours j lose exp(−γ_r d_ij) times its score; and so on, ties to the
    first.

    The score of a place is what its member had when it was taken. It never increases while it is positive; once it is
    negative, neighbours gain, but none becomes positive again.

    Args:
        start: scores of the members, at least 0, such as their difficulty.
        k: neighbours of a member; the graph is undirected.
        forward, reverse: γ_f and γ_r, at least 0: the larger, the less a neighbour counts.
        memory: as for `nearest`.
    """
    graph, n = graph_of(features, k, memory), len(features)
    weights = np.exp(-forward * graph.distances) * start[graph.neighbours]
    owners = np.repeat(np.arange(n), np.diff(graph.first))
    left = start + np.bincount(owners, weights, n)
    losses = np.exp(-reverse * graph.distances)
    members, scores = np.empty(n, np.int64), np.empty(n)
    for place in range(n):
        pick = left.argmax()
        members[place], scores[place] = pick, left[pick]
        edges = slice(graph.first[pick], graph.first[pick + 1])
        left[graph.neighbours[edges]] -= losses[edges] * left[pick]
        left[pick] = -np.inf
    return GreedyOrder(members, scores)


@dataclass(frozen=True, kw_only=True)
class D2(GroupedRule):
    """D2 in each group.

    Args:
        start: what messages begin with: `prototypes`, the distance to the mean of the group's unit vectors, which is
            its difficulty without labels (arXiv 2206.14486); or `equal`, which leaves density and diversity.
        neighbours: of an image in the graph.
        forward: γ_f; the larger, the less neighbours add.
        reverse: γ_r; the larger, the less neighbours lose.
    """

    start: Literal["prototypes", "equal"] = "prototypes"
    neighbours: Annotated[int, Gt(0)] = 10
    forward: Annotated[float, Ge(0)] = 1.0
    reverse: Annotated[float, Ge(0)] = 1.0

    name: ClassVar[str] = "d2"

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        if (fraction or ranking.max_fraction) < (last := float(np.median(turning_points(ranking)))) + 0.05:
            return None
        return (
            f"subset.fraction={fraction or 1:g} reaches beyond {last:.2f}, where D2's scores turn negative: from there "
            "on neighbours gain from what is taken. A larger subset.reverse moves the turn."
        )

    def order_of(self, group: Group) -> GreedyOrder:
        start = np.ones(len(group.members))
        if self.start == "prototypes":
            unit = unit_vectors(group.features)
            start = np.linalg.norm(unit - unit.mean(0), axis=1).astype(np.float64)
        return d2(self.vectors(group.features), start, self.neighbours, self.forward, self.reverse)
