"""Shapes that are drawn when they are read."""

from dataclasses import dataclass

import numpy as np

from ssl_lightning.data.dataset import Arrays, ImageDataset, SplitName
from ssl_lightning.ranges import Count


@dataclass(kw_only=True)
class Shapes(ImageDataset):
    """Grey disks, squares, crosses and rings, of any place, size and contrast, in noise.

    Args:
        train_images, test_images: how many; each shape equally often.
    """

    train_images: Count = 800
    test_images: Count = 400

    def prepare(self) -> None:
        pass  # nothing to fetch

    def read(self, split: SplitName) -> Arrays:
        count = self.train_images if split == "train" else self.test_images
        generator = np.random.default_rng([0, split == "test"])  # the same images whenever they are asked for
        labels = np.arange(count) % 4
        side = self.image_size
        x, y = generator.uniform(0.35, 0.65, (2, count, 1, 1)) * side
        radius = generator.uniform(0.2, 0.4, (count, 1, 1)) * side
        contrast = generator.uniform(40, 200, (count, 1, 1))
        rows, columns = np.mgrid[:side, :side] + 0.5
        dx, dy = np.abs(columns - x), np.abs(rows - y)
        shapes = (
            np.hypot(dx, dy) < radius,
            np.maximum(dx, dy) < radius,
            (np.minimum(dx, dy) < radius / 3) & (np.maximum(dx, dy) < radius),
            np.abs(np.hypot(dx, dy) - radius) < side / 12,
        )
        drawn = np.choose(labels[:, None, None], shapes)
        images = 20 + drawn * contrast + generator.uniform(0, 30, drawn.shape)
        return images.astype(np.uint8)[:, None], labels

    def count_classes(self) -> int:
        return 4
