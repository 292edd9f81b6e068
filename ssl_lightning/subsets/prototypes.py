"""Distance to a cluster's centre: the self-supervised prototypes of arXiv 2206.14486."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.latent import KMeans, LatentClasses, unit_vectors


@dataclass(frozen=True, kw_only=True)
class Prototypes(GroupedRule):
    """Ranks by the distance of mean embeddings, scaled to unit length, to the centroid of their group.

    Args:
        clusters: where `latent` is None, groups are so many clusters by k-means; None takes the number of the
            dataset's classes.
        keep: `easiest`, the closest first, `hardest`, or `middle`, nearest to the median distance of the group first
            (moderate coresets, Xia et al., ICLR 2023).
        balanced: rank within each group; otherwise, distances to the centroids of different groups are compared.
    """

    clusters: Annotated[int, Gt(0)] | None = None
    keep: Literal["easiest", "hardest", "middle"] = "easiest"
    balanced: bool = True

    name: ClassVar[str] = "prototypes"

    @property
    def groups(self) -> LatentClasses:
        return self.latent or KMeans(clusters=self.clusters)

    @property
    def pooled(self) -> bool:
        return not self.balanced

    def order_of(self, group: Group) -> GreedyOrder:
        unit = unit_vectors(group.features)
        centroid = unit.mean(0) if group.centroid is None else group.centroid
        distance = np.linalg.norm(unit - centroid, axis=1).astype(np.float64)
        score = distance if self.keep == "hardest" else -distance
        if self.keep == "middle":
            score = 0 - np.abs(distance - np.median(distance))
        members = np.argsort(-score, kind="stable")
        return GreedyOrder(members, score[members])
