"""Images of 32×32 that all sides are given, and how peers read them: one at a time, in a loader's workers."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from benchmarks.peers.figures import Options
from ssl_lightning.errors import UserError

SIZE, WORKERS = 32, 2
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")

Array = UInt8[np.ndarray, "n c s s"]


def images_of(options: Options, count: int) -> dict[str, Array]:
    """So many images of noise, and of the folder if there is one, by what they are."""
    found = {"noise": np.random.default_rng(0).integers(0, 256, (count, 3, SIZE, SIZE), np.uint8)}
    return found | ({"folder": read(options.folder, count)} if options.folder else {})


def read(folder: Path, count: int) -> Array:
    """The folder's first images, cropped to squares; from the start again where there are fewer."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)[:count]
    if not files:
        raise UserError(f"--folder {folder} holds no images ({', '.join(SUFFIXES)}). Name a folder that does.")
    pixels = [np.asarray(ImageOps.fit(Image.open(file).convert("RGB"), (SIZE, SIZE))) for file in files]
    return np.stack(list(itertools.islice(itertools.cycle(pixels), count))).transpose(0, 3, 1, 2)


class Pictures(Dataset):
    """Images in memory that are opened by Pillow, as torchvision's CIFAR10 does it."""

    def __init__(self, images: Array, transform: Callable[[Image.Image], Any]) -> None:
        self.images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def loader(images: Array, transform: Callable[[Image.Image], Any], batch_size: int) -> DataLoader:
    """Its workers stay from epoch to epoch."""
    return DataLoader(
        Pictures(images, transform), batch_size, shuffle=True, drop_last=True, num_workers=WORKERS,
        persistent_workers=True,
    )  # fmt: skip
