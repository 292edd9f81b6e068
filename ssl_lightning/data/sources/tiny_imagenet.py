"""TinyImageNet, as its archive is unpacked."""

import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from ssl_lightning.config.markers import Place, Speed
from ssl_lightning.data.places import data_folder
from ssl_lightning.data.sources.archives import fetch
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.sources.layouts import Layout
from ssl_lightning.data.sources.listing import ImageFiles, image_files
from ssl_lightning.errors import NotThere, UserError
from ssl_lightning.files import locked
from ssl_lightning.progress import track
from ssl_lightning.ranges import Count, Deviation, Share

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"


MD5 = "90528d7ca1a48142e341f4ef8d21d0de"


@dataclass(kw_only=True)
class TinyImageNet(ImageFolder):
    """TinyImageNet, 3×64×64: `root/tiny-imagenet-200/`, or its archive.

    The labels of `val`, the test split here, stand in val_annotations.txt; a `val` that was sorted into a folder a
    class is read too.
    """

    root: Annotated[str, Place] = field(default_factory=data_folder)
    name: str = "tiny_imagenet"
    image_size: Count = 64
    num_classes: Count | None = 200
    mean: Sequence[Share] = (0.4802, 0.4481, 0.3975)
    std: Sequence[Deviation] = (0.2770, 0.2691, 0.2821)
    storage: Annotated[Literal["auto", "resident", "streamed"], Speed] = "resident"

    @property
    def _folder(self) -> Path:
        return Path(self.root).absolute() / "tiny-imagenet-200"

    def _fetch(self) -> None:
        """Has the folder unpacked."""
        if (self._folder / "train").is_dir():
            return
        archive = self._folder.with_suffix(".zip")
        if not archive.exists() and not self.download:
            raise NotThere(
                f"{self.name}: there is no {self._folder}, and no {archive.name} beside it. "
                f"Add dataset.download=true to the command, or put {archive.name} into {archive.parent}."
            )
        with locked(archive):
            if (self._folder / "train").is_dir():  # another process was faster
                return
            if not archive.exists():
                fetch(URL, archive, MD5)
            prefix = f".{self._folder.name}-"
            for abandoned in archive.parent.glob(f"{prefix}*"):
                shutil.rmtree(abandoned)
            with tempfile.TemporaryDirectory(dir=archive.parent, prefix=prefix) as temporary:
                _unzip(archive, Path(temporary))
                os.rename(Path(temporary) / self._folder.name, self._folder)

    @cached_property
    def _layout(self) -> Layout:
        if self.labels is not None or self.split is not None:
            raise UserError(f"{self.name} has labels and a test split of its own: leave out dataset.labels and .split.")
        self._fetch()
        train, val = (image_files(self._folder, part, Path(self.cache).absolute()) for part in ("train", "val"))
        if val.classes == ["images"]:
            val = _annotated(val, train.classes)
        if not len(train) or val.classes != train.classes:
            raise UserError(f"{self._folder} does not hold the same classes in train and val. Unpack it again.")
        return Layout({"train": train, "test": val}, self._folder.name)


def _unzip(archive: Path, folder: Path) -> None:
    """`extractall` with a progress bar; the library keeps every member below the folder."""
    try:
        with zipfile.ZipFile(archive) as file:
            for member in track(file.infolist(), f"unpacking {archive.name}"):
                file.extract(member, folder)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is damaged or truncated ({error}). Delete it and fetch it again.") from error
    except OSError as error:
        raise UserError(f"cannot unpack {archive}: {error.strerror or error}. Free some space.") from error


def _annotated(files: ImageFiles, classes: list[str]) -> ImageFiles:
    """The images of val/images with the labels of val/val_annotations.txt, in the order of their names."""
    annotations = Path(files.root) / files.part / "val_annotations.txt"
    try:
        rows = [line.split("\t") for line in annotations.read_text(encoding="utf-8").splitlines()]
        wnids = {row[0]: row[1] for row in rows}
        numbers = {name: i for i, name in enumerate(classes)}
        labels = [numbers[wnids[os.path.basename(files.path(i))]] for i in range(len(files))]
    except (OSError, KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{annotations} does not tell a class of train for each image of val ({error!r}). Unpack it again."
        ) from error
    return replace(files, classes=classes, labels=np.array(labels, np.int64))
