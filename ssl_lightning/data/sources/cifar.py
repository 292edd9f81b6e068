"""CIFAR-10 and CIFAR-100."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from ssl_lightning.data.dataset import Arrays, SplitName
from ssl_lightning.data.sources.archives import ArchivedDataset
from ssl_lightning.data.sources.pickles import PICKLED_ARRAYS, read_pickle
from ssl_lightning.errors import UserError
from ssl_lightning.ranges import Count, Deviation, Share


@dataclass(kw_only=True)
class _CIFAR(ArchivedDataset):
    """CIFAR's Python version."""

    image_size: Count = 32
    channels: Count = 3

    label_key: ClassVar[str]

    def labels_beforehand(self) -> Int[np.ndarray, " n"] | None:
        return None if self._missing() else self.train().labels.numpy()

    def read(self, split: SplitName) -> Arrays:
        batches = [read_cifar_batch(self._folder / name, self.label_key) for name in self.files[split]]
        return np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])


@dataclass(kw_only=True)
class CIFAR10(_CIFAR):
    """CIFAR-10, 3×32×32: `root/cifar-10-batches-py/`."""

    name: str = "cifar10"
    num_classes: Count | None = 10
    mean: Sequence[Share] = (0.4914, 0.4822, 0.4465)
    std: Sequence[Deviation] = (0.2470, 0.2435, 0.2616)
    stem: str = "cifar"

    source: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    files: ClassVar = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    label_key: ClassVar[str] = "labels"

    def count_classes(self) -> int:
        return 10


@dataclass(kw_only=True)
class CIFAR100(_CIFAR):
    """CIFAR-100 with its fine labels, 3×32×32: `root/cifar-100-python/`."""

    name: str = "cifar100"
    num_classes: Count | None = 100
    mean: Sequence[Share] = (0.5071, 0.4865, 0.4409)
    std: Sequence[Deviation] = (0.2673, 0.2564, 0.2762)
    stem: str = "cifar"

    source: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    archive: ClassVar[str] = "cifar-100-python.tar.gz"
    files: ClassVar = {"train": ["train"], "test": ["test"]}
    label_key: ClassVar[str] = "fine_labels"

    def count_classes(self) -> int:
        return 100


def read_cifar_batch(path: Path, label_key: str) -> tuple[UInt8[np.ndarray, "n 3 32 32"], np.ndarray]:
    """Read one file of the CIFAR archives' Python version: images and the labels under `label_key`."""
    content = read_pickle(path, PICKLED_ARRAYS)
    try:
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        images = entries["data"].array
        labels = np.array(entries[label_key], np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"{len(labels)} labels and images of {images.dtype}, shape {images.shape}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no CIFAR file with 'data' and '{label_key}' ({error!r}). Fetch it again."
        ) from error
    return images.reshape(-1, 3, 32, 32), labels
