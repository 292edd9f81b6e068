"""What a rule leaves of a dataset."""

from collections.abc import Sequence

import numpy as np

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.mask import Mask
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.ranking import Budget
from ssl_lightning.subsets.rule import Subset, SubsetRule


def mask_of(
    rule: SubsetRule,
    dataset: ImageDataset,
    fraction: float | None = 1.0,
    budget: Budget = "exact",
    proxies: Sequence[LoadedRun] = (),
) -> Mask:
    """As a run would cut it."""
    subset = Subset(rule, fraction, budget)
    return subset.cut(rule.ranking(dataset, [proxy.digest for proxy in proxies], lambda: proxies))


def deviation(mask: Mask, latent_class: np.ndarray) -> float:
    """The largest |count − fraction · size| of a latent class."""
    classes, sizes = np.unique(latent_class, return_counts=True)
    counts = np.array([(latent_class[mask.positions] == label).sum() for label in classes])
    return float(np.abs(counts - mask.fraction * sizes).max())
