"""Images of a dataset of Hugging Face's library `datasets`: a folder, or one of the hub."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Gt, Le
from jaxtyping import Int64, UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.decoding import central_square
from ssl_lightning.data.sources.splits import PARTS
from ssl_lightning.data.sources.stored import Given, Positions, Source, StoredDataset
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import explained
from ssl_lightning.files import read_text, write_text
from ssl_lightning.progress import track

FORMAT = 1  # raised when other pixels are made of the same images
LABELS = ("label", "labels", "fine_label")
"""Names of columns that are taken for labels."""


@dataclass(kw_only=True)
class HuggingFace(StoredDataset):
    """The images and labels of a dataset that `datasets` reads: a folder that `save_to_disk` has written, one with
    files of its own or with images, or the name of one in the hub's cache; with `download`, of any on the hub.

    Images become central squares, as those of an `ImageFolder` do. The first column of images is taken, and that of
    `LABELS` which is there.

    Args:
        path: of the folder, or the name.
        configuration: of a dataset that has several.
        image_column, label_column: None: as above.
        square: side of the central square as a share of the shorter side, in (0, 1].
    """

    path: Annotated[str, Place]
    configuration: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    square: Annotated[float, Gt(0), Le(1)] = 1.0

    any_size: ClassVar[bool] = True

    def source(self) -> Source:
        splits: dict[str, Any] = {}
        unread = []
        for name, table in self._tables().items():
            part = PARTS.get(name)
            if part is None or part in splits:
                unread.append(name)
            else:
                splits[part] = table
        if "train" not in splits:
            raise UserError(f"{self.path} has no split train, but {', '.join([*unread, *splits])}.")
        image = self._image_column(splits["train"])
        labels = self._labels(splits)
        given = {part: Given(labels[part], partial(self._squares, table, image)) for part, table in splits.items()}
        seen = f"{self.image_size} {self.channels} {self.square}"
        contents = " ".join(f"{part} {self._content(table, image, labels[part])}" for part, table in splits.items())
        lines = [f"not read: {', '.join(unread)}."] if unread else []
        return Source(self.path, f"huggingface {FORMAT} {seen} {contents}", given, tuple(lines))

    def _tables(self) -> Mapping[str, Any]:
        """By the names of the splits."""
        if not self.download:
            os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when the library is imported
        try:
            import datasets
        except ImportError as error:
            raise UserError(
                f"dataset=huggingface needs the package datasets ({error}). Install it: "
                "pip install 'ssl-lightning[huggingface]'"
            ) from None
        folder = Path(self.path)
        try:
            if (folder / "state.json").exists() or (folder / "dataset_dict.json").exists():
                found = datasets.load_from_disk(str(folder))
            else:
                cache = str(Path(self.cache).absolute() / "huggingface") if folder.is_dir() else None
                found = datasets.load_dataset(self.path, self.configuration, cache_dir=cache)
        except Exception as error:  # of many kinds
            advice = "" if self.download else " What is not here is fetched with dataset.download=true."
            reason = explained(error).partition("\n")[0]
            raise UserError(
                f"dataset.path={self.path} cannot be read ({reason}). Give a folder, or the name of a dataset on the "
                f"hub.{advice}"
            ) from error
        return found if isinstance(found, dict) else {"train": found}

    def _image_column(self, table: Any) -> str:
        import datasets

        images = [name for name, kind in table.features.items() if isinstance(kind, datasets.Image)]
        if self.image_column is None and images:
            return images[0]
        if self.image_column is not None and self.image_column in images:
            return self.image_column
        which = f"{', '.join(images)} hold images. Set dataset.image_column" if images else "none holds images"
        raise UserError(f"{self.path} has the columns {', '.join(table.features)}, of which {which}.")

    def _labels(self, splits: Mapping[str, Any]) -> dict[str, Int64[np.ndarray, " n"]]:
        """Classes of names are sorted; what is no class of a named one, or missing, has no label."""
        columns = splits["train"].features
        name = self.label_column or next((name for name in LABELS if name in columns), None)
        if name is not None and name not in columns:
            raise UserError(f"dataset.label_column is {name}, but {self.path} has the columns {', '.join(columns)}.")
        values = {
            part: list(table[name]) if name in table.features else [None] * len(table) for part, table in splits.items()
        }
        kinds = {type(value) for some in values.values() for value in some} - {type(None)}
        if kinds - {int} and kinds - {str}:
            raise UserError(
                f"the labels of {self.path}, {name}, are neither whole numbers nor names. Set dataset.label_column to "
                f"one of {', '.join(columns)}."
            )
        names = sorted({value for some in values.values() for value in some if isinstance(value, str)})
        numbers = {name: i for i, name in enumerate(names)}
        return {
            part: np.array([-1 if one is None else numbers.get(one, one) for one in some], np.int64).clip(-1)
            for part, some in values.items()
        }

    def _squares(self, table: Any, column: str, positions: Positions) -> Iterator[UInt8[np.ndarray, "c s s"]]:
        for position, content in zip(positions, _contents(table, column, positions), strict=True):
            name = f"{position} of {self.path}"
            yield central_square(content, name, self.image_size, self.channels, self.square)

    def _content(self, table: Any, column: str, labels: Int64[np.ndarray, " n"]) -> str:
        """A digest of the labels and all images, which is remembered while the files of the table stay the same."""
        states = [(file["filename"], os.stat(file["filename"])) for file in table.cache_files]
        key = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states]) + f"{column} {len(table)}"
        file = Path(self.cache).absolute() / "indexes" / f"{hashlib.sha256(key.encode()).hexdigest()[:16]}.content"
        if not (states and file.exists()):
            digest = hashlib.sha256()
            for content in track(_contents(table, column, range(len(table))), f"{self.name}: reading", len(table)):
                digest.update(hashlib.sha256(content).digest())
            write_text(file, digest.hexdigest()[:16])
        return f"{read_text(file)} {hashlib.sha256(labels.tobytes()).hexdigest()[:16]}"


def _contents(table: Any, column: str, positions: Sequence[int] | Positions) -> Iterator[bytes]:
    """Of image files, as they are kept."""
    import datasets

    raw = table.with_format(None).select_columns(column).cast_column(column, datasets.Image(decode=False))
    for position in positions:
        image = raw[int(position)][column]
        if image is None:
            raise UserError(f"image {position} is missing. Remove it from the dataset.")
        try:
            yield image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {image['path']}: {error.strerror}. Remove or mend it.") from error
