"""Distance to a cluster's centre: the self-supervised prototypes of arXiv 2206.14486."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from annotated_types import Gt

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.embedding import EmbeddingRule
from ssl_lightning.subsets.latent import check_clusters, cluster
from ssl_lightning.subsets.ranking import Ranking


@dataclass(frozen=True, kw_only=True)
class Prototypes(EmbeddingRule):
    """Ranks by the distance of mean embeddings, scaled to unit length, to the centroid of their k-means cluster.

    Args:
        clusters: how many; None takes the number of the dataset's classes.
        keep: `easiest`, the closest first, or `hardest`.
        balanced: rank within each cluster, so that every fraction keeps their proportions.
    """

    clusters: Annotated[int, Gt(0)] | None = None
    keep: Literal["easiest", "hardest"] = "easiest"
    balanced: bool = True

    name: ClassVar[str] = "prototypes"

    def check_dataset(self, dataset: ImageDataset) -> None:
        check_clusters(dataset, self.clusters)

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        (proxy,) = proxies
        features = self.features(dataset, proxy, processes)
        assigned, distance = cluster(features, self.clusters or int(dataset.num_classes or 0), self.seed)
        score = distance.astype(np.float64) * (1 if self.keep == "hardest" else -1)
        latent = assigned if self.balanced else np.zeros(len(score), np.int64)
        return Ranking(np.argsort(-score, kind="stable"), latent, score, self.provenance(dataset, [proxy.digest]))
