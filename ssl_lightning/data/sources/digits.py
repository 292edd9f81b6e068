"""scikit-learn's digits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from ssl_lightning.data.dataset import Arrays, ImageDataset, SplitName
from ssl_lightning.ranges import Count, Deviation, Share

DIGITS_SPLIT_SEED = 0


@dataclass(kw_only=True)
class Digits(ImageDataset):
    """scikit-learn's 1,797 handwritten digits, 1×8×8, with a fixed stratified 70/30 split. Needs no files."""

    name: str = "digits"
    image_size: Count = 8
    channels: Count = 1
    num_classes: Count | None = 10
    mean: Sequence[Share] = (0.305,)
    std: Sequence[Deviation] = (0.376,)
    stem: str = "cifar"

    def prepare(self) -> None:
        pass

    def read(self, split: SplitName) -> Arrays:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        values, labels = load_digits(return_X_y=True)
        parts = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=DIGITS_SPLIT_SEED, stratify=labels)
        positions = np.sort(parts[0 if split == "train" else 1])
        images = np.rint(values[positions] * (255 / 16)).astype(np.uint8)  # values are 0 to 16
        return images.reshape(-1, 1, 8, 8), labels[positions]

    def labels_beforehand(self) -> Int[np.ndarray, " n"] | None:
        return self.train().labels.numpy()

    def count_classes(self) -> int:
        return 10
