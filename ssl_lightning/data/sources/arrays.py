"""Images in a file of NumPy's."""

import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int64, UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.sources.listing import contents_of
from ssl_lightning.data.sources.splits import PARTS
from ssl_lightning.data.sources.stored import Given, Positions, Source, StoredDataset
from ssl_lightning.errors import UserError

FORMAT = 1  # raised when other pixels are made of the same arrays
MOST_CHANNELS = 16
KINDS = {"images": "images", "image": "images", "x": "images", "labels": "labels", "label": "labels", "y": "labels"}
"""Words in the names of arrays, joined by _ to those of a split: images, y, x_train, test_labels."""
SAMPLE = 10_000  # images whose statistics are measured
CHUNK = 1024


@dataclass(kw_only=True)
class ArrayFile(StoredDataset):
    """Images [n, h, w, c], or [n, h, w] of one channel, of uint8 or uint16, and labels [n], −1 for none, in an .npz; or
    images alone in an .npy.

    In an .npz the arrays are called `images` or `x`, `labels` or `y`; those of further splits `x_test`, `val_labels`
    and the like. Values of uint16 are scaled, so that the largest of train becomes 255.

    Args:
        path: of the file.
        labels: .npy of labels for an .npy of images.
    """

    path: Annotated[str, Place]
    labels: Annotated[str | None, Place] = None

    def source(self) -> Source:
        path = Path(self.path).absolute()
        arrays = arrays_in(path, None if self.labels is None else Path(self.labels).absolute())
        images = {part: _images(f"{path}, {part}", array) for (part, kind), array in arrays.items() if kind == "images"}
        self._check_shapes(path, images)
        labels = {part: _labels(f"{path}, {part}", len(images[part]), arrays.get((part, "labels"))) for part in images}
        white = _white(images["train"])
        lines = []
        if white != 255:
            lines.append(f"values of 16 bits, 0 to {white:,} in train, are scaled to 0 to 255.")
        files = [path, *([Path(self.labels).absolute()] if self.labels else [])]
        digest = f"arrays {FORMAT} {' '.join(_content(file, Path(self.cache).absolute()) for file in files)}"
        splits = {part: Given(labels[part], partial(_pixels, images[part], white)) for part in images}
        return Source(path.name, digest, splits, tuple(lines))

    def _check_shapes(self, path: Path, images: Mapping[str, np.ndarray]) -> None:
        """Whether the settings say what the images are; else gives those that do, with the statistics of train."""
        train = images["train"]
        for part, array in images.items():
            if array.shape[1:] != train.shape[1:] or array.dtype.itemsize != train.dtype.itemsize:
                raise UserError(
                    f"{path}: {part} is {array.dtype}{list(array.shape)}, but train {train.dtype}{list(train.shape)}. "
                    "Give both images of one kind."
                )
        size, channels = train.shape[2:]
        if (size, channels) == (self.image_size, self.channels):
            return
        some = train[np.linspace(0, len(train) - 1, min(len(train), SAMPLE)).astype(int)] / _white(train)
        mean, std = _written(some.mean((0, 1, 2))), _written(some.std((0, 1, 2)).clip(1e-3, 1))
        raise UserError(
            f"{path} holds images of {size}×{size} pixels and {channels} channels, but dataset.image_size is "
            f"{self.image_size} and dataset.channels {self.channels}. Say so: dataset.image_size={size} "
            f"dataset.channels={channels} 'dataset.mean={mean}' 'dataset.std={std}'"
            + (" augment=geometric" if channels not in (1, 3) else "")
        )


def arrays_in(path: Path, labels: Path | None) -> dict[tuple[str, str], np.ndarray]:
    """The arrays of a file by split and kind, `images` or `labels`. Nothing that is pickled is read.

    Raises:
        UserError: says what there is instead.
    """
    loaded = _load(path)
    if isinstance(loaded, np.ndarray):
        return {("train", "images"): loaded} | ({} if labels is None else {("train", "labels"): _load(labels)})
    if labels is not None:
        raise UserError(f"dataset.labels is for an .npy of images, but {path} may hold labels itself. Leave it out.")
    with loaded:
        names: dict[tuple[str, str], str] = {}
        for name in loaded.files:
            if (role := _role(name)) in names:
                raise UserError(f"{path}: {names[role]} and {name} are both {role[1]} of {role[0]}. Remove one.")
            if role is not None:
                names[role] = name
        if ("train", "images") not in names:
            raise UserError(
                f"{path} holds {', '.join(loaded.files) or 'nothing'}. Call its arrays images and labels, or x and y; "
                "of several splits, x_train, y_train, x_test, y_test."
            )
        return {role: _reading(path, partial(loaded.__getitem__, name)) for role, name in names.items()}


def _load(path: Path) -> Any:
    return _reading(path, partial(np.load, path, mmap_mode="r", allow_pickle=False))


def _reading(path: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except FileNotFoundError:
        raise UserError(f"there is no {path}. Set dataset.path to a file of arrays.") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}). Save it again, by numpy.savez or numpy.save.") from error


def _role(name: str) -> tuple[str, str] | None:
    """The split and the kind of an array of this name."""
    words = re.split(r"[^a-z]+", name.lower())
    kinds, parts = [KINDS[word] for word in words if word in KINDS], [PARTS[word] for word in words if word in PARTS]
    return ((parts or ["train"])[0], kinds[0]) if len(kinds) == 1 and len(kinds) + len(parts) == len(words) else None


def _images(what: str, array: np.ndarray) -> np.ndarray:
    """As [n, h, w, c]."""
    shape = f"{array.dtype}{list(array.shape)}"
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise UserError(
            f"{what} is {shape}: images are of uint8 or uint16. Convert them, as in (255 * x).round().astype('uint8')."
        )
    array = array[..., None] if array.ndim == 3 else array
    if array.ndim != 4 or not len(array):
        raise UserError(f"{what} is {shape}: give images [n, h, w, c], or [n, h, w] of one channel.")
    if array.shape[3] > MOST_CHANNELS and array.shape[1] == array.shape[2] != array.shape[3]:
        raise UserError(f"{what} is {shape}: images have at most {MOST_CHANNELS} channels. Choose some: x[..., :3].")
    if array.shape[3] > MOST_CHANNELS:
        advice = ": x.transpose(0, 2, 3, 1)" if array.shape[1] <= MOST_CHANNELS else ""
        raise UserError(f"{what} is {shape}: channels, of which there are 1 to {MOST_CHANNELS}, come last{advice}.")
    if array.shape[1] < array.shape[2] == array.shape[3]:
        raise UserError(f"{what} is {shape}: channels come last: x.transpose(0, 2, 3, 1).")
    if array.shape[1] != array.shape[2]:
        raise UserError(f"{what} is {shape}: images are square. Cut or pad them.")
    return array


def _labels(what: str, length: int, array: np.ndarray | None) -> Int64[np.ndarray, " n"]:
    if array is None:
        return np.full(length, -1)
    flat = array.reshape(-1) if array.shape == (length, 1) else array
    if flat.shape != (length,) or flat.dtype.kind not in "iu":
        raise UserError(
            f"{what}: the labels are {array.dtype}{list(array.shape)}. Give {length:,} whole numbers, one an image."
        )
    if (lowest := flat.min()) < -1:
        raise UserError(f"{what}: the labels begin at {lowest}. Number classes from 0; -1 is none.")
    return flat.astype(np.int64)


def _white(images: np.ndarray) -> int:
    """The value that becomes 255."""
    if images.dtype.itemsize == 1:
        return 255
    return max(1, *(int(images[start : start + CHUNK].max()) for start in range(0, len(images), CHUNK)))


def _pixels(images: np.ndarray, white: int, positions: Positions) -> Iterator[UInt8[np.ndarray, "c h w"]]:
    for position in positions:
        image = images[position].transpose(2, 0, 1)
        if image.dtype != np.uint8:
            image = np.rint(np.multiply(image, 255 / white, dtype=np.float64)).clip(0, 255).astype(np.uint8)
        yield image


def _content(path: Path, cache: Path) -> str:
    """Of a file, remembered while its size and times stay the same."""
    state = path.stat()
    states = np.array([[state.st_size, state.st_mtime_ns, state.st_ctime_ns]], np.int64)
    name = os.fsencode(path.name)
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    return f"{contents_of(path.parent, [name], states, cache / 'indexes' / f'{key}.npz')[0]:016x}"


def _written(values: Any) -> str:
    return "[" + ", ".join(f"{value:.3f}" for value in values) + "]"
