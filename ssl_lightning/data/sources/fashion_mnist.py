"""Fashion-MNIST."""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from jaxtyping import Int, UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import Arrays, ImageDataset, SplitName
from ssl_lightning.data.places import data_folder
from ssl_lightning.data.sources.archives import fetch
from ssl_lightning.errors import NotThere, UserError
from ssl_lightning.files import locked
from ssl_lightning.ranges import Count, Deviation, Share

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist


@dataclass(kw_only=True)
class FashionMNIST(ImageDataset):
    """Fashion-MNIST (arXiv 1708.07747), 1×28×28: `root/FashionMNIST/raw/` or Debian's package."""

    name: str = "fashion_mnist"
    image_size: Count = 28
    channels: Count = 1
    num_classes: Count | None = 10
    mean: Sequence[Share] = (0.2860,)
    std: Sequence[Deviation] = (0.3530,)
    stem: str = "cifar"
    root: Annotated[str, Place] = field(default_factory=data_folder)

    parts: ClassVar = {"train": "train", "test": "t10k"}

    @property
    def _raw(self) -> Path:
        return Path(self.root).absolute() / "FashionMNIST" / "raw"

    def prepare(self) -> None:
        if self._files() is not None:
            return
        if not self.download:
            raise NotThere(
                f"{self.name}: no data in {self._raw} nor in {DEBIAN_FASHION_MNIST}. "
                "Add dataset.download=true to the command, or `apt-get install dataset-fashion-mnist`, "
                "or put the four *-ubyte.gz files into the first folder."
            )
        with locked(self._raw):
            from torchvision.datasets import FashionMNIST as Source  # late: its import takes seconds

            for name, md5 in Source.resources:
                if not (self._raw / name).exists():
                    fetch(Source.mirrors[0] + name, self._raw / name, md5)

    def labels_beforehand(self) -> Int[np.ndarray, " n"] | None:
        return None if self._files() is None else self.train().labels.numpy()

    def _files(self) -> dict[str, Path] | None:
        """The four files, all of one folder, or None."""
        for folder in (self._raw, DEBIAN_FASHION_MNIST):
            names = [f"{part}-{kind}-ubyte" for part in self.parts.values() for kind in ("images-idx3", "labels-idx1")]
            found = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.exists()}
            if len(found) == len(names):
                return found
        return None

    def read(self, split: SplitName) -> Arrays:
        files, part = self._files() or {}, self.parts[split]
        images_path, labels_path = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        images, labels = read_idx(images_path, IDX_IMAGES), read_idx(labels_path, IDX_LABELS)
        if len(images) != len(labels):
            raise UserError(
                f"{images_path} holds {len(images)} images, but {labels_path.name} beside it "
                f"{len(labels)} labels. Fetch both again."
            )
        return images[:, None], labels

    def count_classes(self) -> int:
        return 10


IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801  # unsigned bytes in three dimensions, in one


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes, gzipped if its name ends so.

    Args:
        magic: the file's first four bytes as a number; the lowest byte is the number of dimensions.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or truncated ({error}). Delete it and fetch it again.") from error
    found = int.from_bytes(content[:4], "big")
    if len(content) < 4 or found != magic:
        raise UserError(f"{path} is no idx file of the kind {magic:#010x} (it begins with {found:#010x}). Replace it.")
    header = 4 + 4 * (magic & 0xFF)
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise UserError(
            f"{path} is truncated or damaged: {len(content)} bytes, where its header announces "
            f"{header + math.prod(shape)}. Delete it and fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
