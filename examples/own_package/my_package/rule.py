"""Which images have most contrast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.loading import in_order
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.ranking import Ranking
from ssl_lightning.subsets.rule import SubsetRule


@dataclass(frozen=True, kw_only=True)
class Contrast(SubsetRule):
    """Ranks the images of each class by the standard deviation of their pixels.

    Args:
        keep: which end is best.
    """

    keep: Literal["highest", "lowest"] = "highest"

    name: ClassVar[str] = "contrast"
    expensive: ClassVar[bool] = True  # ranked once, and kept in the cache

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        labels = dataset.all_labels("subset=contrast").numpy()
        contrast = torch.cat([some.double().flatten(1).std(1) for some in in_order(dataset.train().images)])
        score = contrast.numpy() * (1 if self.keep == "highest" else -1)
        return Ranking(np.argsort(-score, kind="stable"), labels, score, self.provenance(dataset, ()))
