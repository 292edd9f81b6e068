"""A folder of images, one folder a class: decoded once, then read like any other dataset."""

import hashlib
import json
import os
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ssl_lightning.data.datasets import Arrays, ImageDataset, SplitName, label_hash
from ssl_lightning.data.readers import ImageFile, decode_images, locked, scan_images, writing
from ssl_lightning.errors import UserError

STORE_FORMAT = 1  # of decoded image folders; raised when decoding changes


class _Listing(NamedTuple):
    classes: list[str]
    files: dict[str, list[ImageFile]]  # by split


@dataclass(kw_only=True)
class ImageFolder(ImageDataset):
    """Images in `root/train/<class>/` and `root/test/<class>/`, decoded once.

    Classes are numbered by sorted name. The test split is the first of `test` and `val` that has the classes
    of train. Each image's central square is resampled to `image_size`; the result is kept below
    `cache`/datasets and read through the page cache, so that a dataset may be larger than memory.
    """

    root: str
    cache: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.channels not in (1, 3):
            raise UserError(f"dataset.channels is {self.channels}: an image folder has 1 (grey) or 3 (colour).")

    def prepare(self) -> None:
        for split in ("train", "test"):
            if not self._summary(split).exists():
                with locked(self._store):
                    if not self._summary(split).exists():  # another process was faster
                        self._build(split)

    def content_key(self) -> str:
        """Hash of all paths below the root and file sizes, wherever the folder lies."""
        return self._listing_hash(lambda file: f"{file.path}\0{file.size}")

    @cached_property
    def _listing(self) -> _Listing:
        root = Path(self.root).absolute()
        train = scan_images(root, "train")
        classes = sorted({file.label for file in train})
        if not train:
            raise UserError(
                f"{self.name}: no images in {root / 'train'}. Set dataset.root to a folder with "
                "train/<class>/*.jpg and test/<class>/*.jpg (png, jpg, jpeg, bmp or webp)."
            )
        candidates = {part: scan_images(root, part) for part in ("test", "val")}
        for files in candidates.values():
            if classes == sorted({file.label for file in files}):
                return _Listing(classes, {"train": train, "test": files})
        part, files = next(((part, files) for part, files in candidates.items() if files), ("test", []))
        differing = sorted(set(classes) ^ {file.label for file in files})
        raise UserError(
            f"{self.name}: the classes of {root / part} are not those of {root / 'train'}: "
            f"{', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''} in only one of them. "
            "Put images of the same classes into both."
        )

    def _listing_hash(self, describe: Any, *parameters: int) -> str:
        digest = hashlib.sha256(repr(parameters).encode())
        for files in self._listing.files.values():
            for file in files:
                digest.update(os.fsencode(describe(file) + "\n"))
        return digest.hexdigest()[:16]

    @cached_property
    def _store(self) -> Path:
        key = self._listing_hash(
            lambda file: f"{file.path}\0{file.size}\0{file.modified}",
            STORE_FORMAT,
            self.image_size,
            self.channels,
        )
        return Path(self.cache).absolute() / "datasets" / key

    def _summary(self, split: str) -> Path:
        """Written last: where it is, the split's images and labels are complete."""
        return self._store / f"{split}.json"

    def _build(self, split: str) -> None:
        classes, files = self._listing.classes, self._listing.files[split]
        numbers = {name: i for i, name in enumerate(classes)}
        labels = np.array([numbers[file.label] for file in files], np.int64)
        digest = label_hash(labels)
        with writing(self._store / f"{split}_labels.npy") as output:
            np.save(output, labels, allow_pickle=False)
        with writing(self._store / f"{split}_images.npy") as output:
            shape = (len(files), self.channels, self.image_size, self.image_size)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(output, header)
            paths = [Path(self.root).absolute() / file.path for file in files]
            description = f"{self.name}: decoding {split}"
            for image in decode_images(paths, self.image_size, self.channels, description):
                output.write(image.tobytes())
                digest.update(image.tobytes())
        summary = {"length": len(files), "hash": digest.hexdigest()[:16], "classes": classes}
        with writing(self._summary(split)) as output:
            output.write(json.dumps(summary, indent=1).encode())

    def _read(self, split: SplitName) -> Arrays:
        try:
            load = partial(np.load, mmap_mode="c", allow_pickle=False)  # copy on write: torch wants writable arrays
            return load(self._store / f"{split}_images.npy"), load(self._store / f"{split}_labels.npy")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"the decoded images in {self._store} are damaged ({error}). Delete that folder."
            ) from error

    def _content_hash(self, split: SplitName) -> str:
        return str(json.loads(self._summary(split).read_text())["hash"])

    def _count_classes(self) -> int:
        return len(self._listing.classes)
