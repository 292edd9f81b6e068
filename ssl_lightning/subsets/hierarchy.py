"""Groups that form a tree: k-means of centroids of k-means (arXiv 2405.15613)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from jaxtyping import Float, Float32, Int64

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.latent import Groups, LatentClasses, check_clusters, cluster, unit_vectors
from ssl_lightning.subsets.ranking import ranks_in


@dataclass(frozen=True, kw_only=True)
class HierarchicalKMeans(LatentClasses):
    """Clusters of the mean embeddings, clusters of their centroids, and so on, by directions (arXiv 2405.15613).

    On each level, k-means is done again on the members nearest to each centroid, so that large clusters lose their
    weight, and all are assigned to the new centroids.

    Args:
        clusters: how many on each level, from the finest to the coarsest, each fewer than before.
        resamplings: how often k-means is done again on each level; each takes half of a mean cluster from each.
    """

    clusters: Sequence[Annotated[int, Gt(0)]] = (100, 10)
    resamplings: Annotated[int, Ge(0)] = 10

    def __post_init__(self) -> None:
        if not self.clusters or any(b >= a for a, b in zip(self.clusters[:-1], self.clusters[1:], strict=True)):
            raise UserError(
                f"subset.latent.clusters is {list(self.clusters)}: give the numbers of clusters from the finest level "
                "to the coarsest, each smaller than the one before, such as [100, 10]."
            )

    @property
    def depth(self) -> int:
        return len(self.clusters)

    def number(self, num_classes: int | None) -> int | None:
        return self.clusters[0]

    def check_dataset(self, dataset: ImageDataset) -> None:
        check_clusters(dataset, self.clusters[0])

    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        return self.group(dataset, features, seed).levels[:, 0]

    def group(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Groups:
        levels: list[Int64[np.ndarray, " n"]] = []
        vectors, finest = unit_vectors(features), None
        for number in self.clusters:
            assigned, vectors = self._level(vectors, number, seed)
            levels.append(assigned if not levels else assigned[levels[-1]])
            finest = vectors if finest is None else finest
        return Groups(np.stack(levels, 1), finest)

    def _level(
        self, vectors: Float32[np.ndarray, "m d"], number: int, seed: int
    ) -> tuple[Int64[np.ndarray, " m"], Float32[np.ndarray, "k d"]]:
        """The cluster of each vector, and the centroids."""
        from sklearn.metrics import pairwise_distances_argmin

        unit = unit_vectors(vectors)
        assigned, centroids = cluster(unit, number, seed)
        for _ in range(self.resamplings):
            chosen = nearest(unit, assigned, centroids, max(1, len(unit) // (2 * number)))
            if len(chosen) < number:  # fewer distinct vectors than clusters
                break
            _, centroids = cluster(unit[chosen], number, seed)
            assigned = pairwise_distances_argmin(unit, centroids).astype(np.int64)
        return assigned, centroids


def nearest(
    vectors: Float32[np.ndarray, "m d"],
    assigned: Int64[np.ndarray, " m"],
    centroids: Float32[np.ndarray, "k d"],
    number: int,
) -> Int64[np.ndarray, " s"]:
    """So many members of each cluster, or all of a smaller one: the nearest to its centroid, in the order of places."""
    distance = np.linalg.norm(vectors - centroids[assigned], axis=1)
    order = np.lexsort((distance, assigned))
    rank, _ = ranks_in(assigned[order])
    return np.sort(order[rank < number])
