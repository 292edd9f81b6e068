"""STL-10: few labels, many images without."""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import Arrays, SplitName
from ssl_lightning.data.places import cache_folder
from ssl_lightning.data.sources.archives import ArchivedDataset
from ssl_lightning.data.sources.store import Store
from ssl_lightning.errors import UserError
from ssl_lightning.progress import track
from ssl_lightning.ranges import Count, Deviation, Share

STORE_FORMAT = 1
SHAPE = (3, 96, 96)


@dataclass(kw_only=True)
class STL10(ArchivedDataset):
    """STL-10 (Coates et al., AISTATS 2011), 3×96×96: `root/stl10_binary/`.

    Train is the 5,000 labelled images, then the 100,000 without label. The files hold columns before rows; images the
    right way up are kept below `cache`.
    """

    name: str = "stl10"
    image_size: Count = 96
    channels: Count = 3
    num_classes: Count | None = 10
    mean: Sequence[Share] = (0.4467, 0.4398, 0.4066)
    std: Sequence[Deviation] = (0.2603, 0.2566, 0.2713)
    stem: str = "stl"
    cache: Annotated[str, Place] = field(default_factory=cache_folder)

    source: ClassVar[str] = "STL10"
    folder: ClassVar[str] = "stl10_binary"
    archive: ClassVar[str] = "stl10_binary.tar.gz"
    files: ClassVar = {"train": ["train_X.bin", "train_y.bin", "unlabeled_X.bin"], "test": ["test_X.bin", "test_y.bin"]}
    parts: ClassVar = {"train": ["train", "unlabeled"], "test": ["test"]}

    def prepare(self) -> None:
        super().prepare()
        for split in self.parts:
            self._store.ensure(split, self._build)

    @cached_property
    def _store(self) -> Store:
        states = [(self._folder / name).stat() for names in self.files.values() for name in names]
        key = repr((STORE_FORMAT, [(state.st_size, state.st_mtime_ns) for state in states]))
        return Store(Path(self.cache).absolute() / "datasets" / hashlib.sha256(key.encode()).hexdigest()[:16])

    def _build(self, split: str) -> None:
        parts, labels = [], []
        for part in self.parts[split]:
            images = self._images(part)
            file = self._folder / f"{part}_y.bin"
            found = (
                np.fromfile(file, np.uint8).astype(np.int64) - 1 if part != "unlabeled" else np.full(len(images), -1)
            )
            if len(found) != len(images):
                raise UserError(
                    f"{file} holds {len(found)} labels, but {part}_X.bin beside it {len(images)} images. "
                    f"Delete {self._folder} and fetch it again."
                )
            parts.append(images)
            labels.append(found)
        upright = (image.transpose(0, 2, 1) for images in parts for image in images)
        tracked = track(upright, f"{self.name}: reading {split}", sum(map(len, parts)))
        self._store.write(split, np.concatenate(labels), tracked, SHAPE)

    def _images(self, part: str) -> UInt8[np.ndarray, "n c w h"]:
        file = self._folder / f"{part}_X.bin"
        if not (size := file.stat().st_size) or size % math.prod(SHAPE):
            raise UserError(
                f"{file} is truncated or damaged: its {size} bytes are no whole number of images of "
                f"{math.prod(SHAPE)}. Delete it and fetch it again."
            )
        return np.memmap(file, np.uint8, "r").reshape(-1, *SHAPE)

    def read(self, split: SplitName) -> Arrays:
        return self._store.read(split)

    def _content_digest(self, split: SplitName) -> str:
        return self._store.digest(split)

    def count_classes(self) -> int:
        return 10
