"""Datasets of torchvision: SVHN, and images of any size that are decoded once."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt, Le
from jaxtyping import UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.decoding import StreamedImages, square_of
from ssl_lightning.data.places import cache_folder, data_folder
from ssl_lightning.data.sources.catalogue import CATALOGUE, Listed, Which, listed
from ssl_lightning.data.sources.listing import ImageFiles, contents_of
from ssl_lightning.data.sources.stored import Given, Positions, Source, StoredDataset
from ssl_lightning.errors import UserError
from ssl_lightning.ranges import Count, Deviation, Share

FORMAT = 1  # raised when other pixels are made of the same images


@dataclass(kw_only=True)
class TorchvisionDataset(StoredDataset):
    """One of the `CATALOGUE`, in the layout of torchvision's class, which fetches it with `download`.

    Splits are the official ones: train, val and test of flowers102, dtd (partition 1) and aircraft (by variant); train
    and test of svhn and pets (whose train is trainval). eurosat and caltech101 have none, so a `split` holds out a
    share of each class. Images become central squares, as those of an `ImageFolder` do.

    Args:
        which: of the catalogue.
        root: the folder that torchvision would be given.
        square: side of the central square as a share of the shorter side, in (0, 1].
    """

    which: Which
    root: Annotated[str, Place] = field(default_factory=data_folder)
    image_size: Count = 64
    channels: Count = 3
    num_classes: Count | None = None
    mean: Sequence[Share] = (0.485, 0.456, 0.406)
    std: Sequence[Deviation] = (0.229, 0.224, 0.225)
    cache: Annotated[str, Place] = field(default_factory=cache_folder)
    square: Annotated[float, Gt(0), Le(1)] = 1.0

    any_size: ClassVar[bool] = True

    @property
    def _folder(self) -> Path:
        return Path(self.root).absolute()

    def source(self) -> Source:
        splits = listed(self.which, self._folder, self.download)
        names, digest = list(CATALOGUE[self.which].files), hashlib.sha256()
        given = {}
        for part, found in splits.items():
            digest.update(found.labels.tobytes())
            if found.paths is None:
                given[part] = Given(found.labels, partial(self._of_items, part))
                continue
            files = self._files(part, found)
            digest.update(files.digest().encode())
            given[part] = Given(found.labels, partial(self._of_files, files))
        if not any(found.paths for found in splits.values()):
            digest.update(self._contents("", names).tobytes())
        seen = f"{self.image_size} {self.channels} {self.square}"
        return Source(
            f"{', '.join(names)} in {self._folder}", f"{self.which} {FORMAT} {seen} {digest.hexdigest()}", given
        )

    def _files(self, part: str, found: Listed) -> ImageFiles:
        assert found.paths is not None
        names = [os.path.relpath(path, self._folder) for path in found.paths]
        encoded = [os.fsencode(name) for name in names]
        return ImageFiles(
            str(self._folder),
            part,
            [],
            found.labels,
            np.frombuffer(b"".join(encoded), np.uint8),
            np.cumsum([len(name) for name in encoded], dtype=np.int64),
            self._contents(part, names),
        )

    def _contents(self, part: str, names: Sequence[str]) -> np.ndarray:
        """The start of the SHA-256 of each file, which is remembered while it stays the same."""
        try:
            found = [os.stat(self._folder / name) for name in names]
        except OSError as error:
            raise UserError(
                f"{error.filename}: {error.strerror}. Delete {self._folder / names[0].split(os.sep)[0]}, and fetch it "
                f"again with dataset={self.which} dataset.download=true."
            ) from error
        states = np.array([(state.st_size, state.st_mtime_ns, state.st_ctime_ns) for state in found], np.int64)
        key = hashlib.sha256(os.fsencode(self._folder / self.which / part)).hexdigest()[:16]
        index = Path(self.cache).absolute() / "indexes" / f"{key}.npz"
        return contents_of(self._folder, [os.fsencode(name) for name in names], states, index)

    def _of_files(self, files: ImageFiles, positions: Positions) -> Iterator[UInt8[np.ndarray, "c s s"]]:
        return StreamedImages(files.select(positions), self.image_size, self.channels, self.square).all()

    def _of_items(self, part: str, positions: Positions) -> Iterator[UInt8[np.ndarray, "c s s"]]:
        """Opened once more, rather than kept in memory for a store that is mostly there."""
        dataset = CATALOGUE[self.which].open(self._folder, part)
        for position in positions:
            yield square_of(dataset[int(position)][0], self.image_size, self.channels, self.square)
