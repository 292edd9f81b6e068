"""What an evaluation looks at."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset, Split

FEW = 256
"""Images of a split that a rehearsal looks at."""


class Splits(NamedTuple):
    """
    Args:
        train: whose features classifiers learn from; where no labels are needed, all images of train. Always clean.
        test: None where no labels are needed.
        validation: which images of train choose settings.
    """

    train: Split
    test: Split | None
    validation: Bool[Tensor, " n"]


def splits_of(labelled: bool, dataset: ImageDataset) -> Splits:
    """All that an evaluation reads of a dataset, which needs labels or not."""
    if not labelled:
        return Splits(dataset.clean(), None, dataset.validation_part())
    return Splits(dataset.labelled(), dataset.test(), dataset.validation_part())


def few_of(splits: Splits) -> Splits:
    """At most `FEW` images of each split, of as many classes as there are."""
    train = _few(splits.train)
    test = None if splits.test is None else _few(splits.test)
    return Splits(train, test, torch.arange(len(train.labels)) % 4 == 3)


def _few(split: Split) -> Split:
    labels = split.labels.numpy()
    by_class = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels[by_class], labels[by_class])
    turn = np.arange(len(labels)) - starts  # of each image within its class
    chosen = by_class[np.lexsort((labels[by_class], turn))][:FEW]
    images = split.images[torch.from_numpy(chosen)]
    assert isinstance(images, Tensor)
    return Split(images, split.labels[torch.from_numpy(chosen)])
