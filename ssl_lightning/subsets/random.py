"""Rules that know nothing of the images: all of them, and two random orders."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.composed import QuotaRule
from ssl_lightning.subsets.ranking import Ranking, generator


@dataclass(frozen=True, kw_only=True)
class Random(QuotaRule):
    """A uniformly drawn order; a larger fraction of the same seed contains a smaller one."""

    name: ClassVar[str] = "random"

    def order(self, dataset: ImageDataset) -> Int64[np.ndarray, " n"]:
        return generator(self.seed, "order").permutation(dataset.fingerprint().length)

    def latent_class(self, dataset: ImageDataset) -> Int64[np.ndarray, " n"]:
        return np.zeros(dataset.fingerprint().length, np.int64)

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        order = self.order(dataset)
        levels = self.latent_class(dataset)[:, None]
        return self.arranged(order, levels, np.full(len(order), np.nan), self.provenance(dataset, ()))


@dataclass(frozen=True, kw_only=True)
class RandomBalanced(Random):
    """A random order within each label, so that every fraction keeps the proportions of the labels."""

    name: ClassVar[str] = "random_balanced"

    def check_dataset(self, dataset: ImageDataset) -> None:
        dataset.all_labels("subset=random_balanced")

    def latent_class(self, dataset: ImageDataset) -> Int64[np.ndarray, " n"]:
        return dataset.all_labels("subset=random_balanced").numpy()


@dataclass(frozen=True, kw_only=True)
class Full(Random):
    """Every position. There is nothing to draw, and nothing to cut."""

    quota: None = field(default=None, init=False)

    name: ClassVar[str] = "full"

    def check_fraction(self, fraction: float | None) -> None:
        if fraction not in (None, 1):
            raise UserError(f"subset=full takes no subset.fraction={fraction}: choose subset=random to draw a part.")

    def order(self, dataset: ImageDataset) -> Int64[np.ndarray, " n"]:
        return np.arange(dataset.fingerprint().length)
