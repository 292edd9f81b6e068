"""Which images lie below a folder, and what they hold."""

import contextlib
import hashlib
import os
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int64, UInt8, UInt64

from ssl_lightning.data.sources.walk import Walk
from ssl_lightning.errors import UserError
from ssl_lightning.files import writing
from ssl_lightning.progress import track

SETTLED = 2_000_000_000
"""Nanoseconds since a file was changed: one that is younger may change once more without another time."""
AT_ONCE = 1024  # files


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The images of a split, in order.

    Arrays instead of an object for each file: forked workers share them without copying.

    Args:
        root, part: absolute, and the folder in it that the images are in; empty for the root itself.
        classes: names, in the order of their numbers; none of images without labels.
        labels: the number of each image's class; −1 for none.
        names: paths relative to the root, joined.
        ends: where each path ends in `names`.
        contents: the start of the SHA-256 of each file.
        skipped: why something was passed over, and how often.
    """

    root: str
    part: str
    classes: list[str]
    labels: Int64[np.ndarray, " n"]
    names: UInt8[np.ndarray, " b"]
    ends: Int64[np.ndarray, " n"]
    contents: UInt64[np.ndarray, " n"]
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, position: int) -> str:
        """Of one image, absolute."""
        return os.path.join(self.root, os.fsdecode(self.name(position)))

    def joined(self, other: "ImageFiles") -> "ImageFiles":
        """The files of both, of one root and the same classes."""
        return replace(
            self,
            part=f"{self.part} and {other.part}",
            labels=np.concatenate([self.labels, other.labels]),
            names=np.concatenate([self.names, other.names]),
            ends=np.concatenate([self.ends, len(self.names) + other.ends]),
            contents=np.concatenate([self.contents, other.contents]),
        )

    def select(self, positions: Int64[np.ndarray, " m"]) -> "ImageFiles":
        """Some of the files, in this order, with nothing passed over."""
        starts = np.concatenate([[0], self.ends[:-1]])[positions]
        names = [self.names[start:end] for start, end in zip(starts, self.ends[positions], strict=True)]
        return replace(
            self,
            labels=self.labels[positions],
            names=np.concatenate([*names, self.names[:0]]),
            ends=np.cumsum(self.ends[positions] - starts, dtype=np.int64),
            contents=self.contents[positions],
            skipped={},
        )

    def name(self, position: int) -> bytes:
        """Of one image, relative to the root."""
        start = self.ends[position - 1] if position else 0
        return self.names[start : self.ends[position]].tobytes()

    def digest(self) -> str:
        """Of all relative paths, labels and contents."""
        digest = hashlib.sha256(f"{self.part} {len(self)}\n".encode())
        for array in (self.ends, self.names, self.labels, self.contents):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]


def image_files(root: Path, part: str, cache: Path, classes: bool = True) -> ImageFiles:
    """Looks up the images at any depth below `root/part/<class>/`, sorted by class and path; where there is no such
    image, those in `root/part` itself, sorted by name, which have no label.

    Args:
        part: empty for the root itself.
        classes: whether folders are classes; else all images at any depth are read, sorted by path, without labels.
        cache: folder in which is remembered what files hold, while their sizes and times stay the same. Where nothing
            can be kept there, all are read again.
    """
    walk = Walk(root, part)
    labelled = classes and any(len(image.parts) > 1 for image in walk.images)
    found = sorted(
        (image.parts[0] if labelled else "", "/".join(filter(None, (part, *image.parts))), image)
        for image in walk.images
        if len(image.parts) > 1 or not labelled  # what lies beside classes is of none
    )
    if beside := len(walk.images) - len(found):
        walk.skipped["images beside the folders of classes"] += beside
    if walk.empty and labelled:
        shown = ", ".join(walk.empty[:3]) + (", ..." if len(walk.empty) > 3 else "")
        walk.skipped[f"folders without an image ({shown})"] += len(walk.empty)
    names = sorted({label for label, *_ in found} - {""})
    numbers = {"": -1} | {label: i for i, label in enumerate(names)}
    encoded = [os.fsencode(name) for _, name, _ in found]
    states = np.array([image[1:] for *_, image in found], np.int64).reshape(-1, 3)
    key = hashlib.sha256(os.fsencode(root / part)).hexdigest()[:16]
    return ImageFiles(
        str(root),
        part,
        names,
        np.array([numbers[label] for label, *_ in found], np.int64),
        np.frombuffer(b"".join(encoded), np.uint8),
        np.cumsum([len(name) for name in encoded], dtype=np.int64),
        contents_of(root, encoded, states, cache / "indexes" / f"{key}.npz"),
        dict(walk.skipped),
    )


def contents_of(
    root: Path, names: Sequence[bytes], states: Int64[np.ndarray, "n 3"], file: Path
) -> UInt64[np.ndarray, " n"]:
    """The start of the SHA-256 of each file, by its name relative to the root.

    Args:
        states: size of each, and when it and its inode were changed: a copy may keep the former time.
        file: what is remembered.
    """
    contents, known = _remembered(file, names, states)
    if known.all():
        return contents
    started = time.time_ns()
    unknown = np.flatnonzero(~known).tolist()
    paths = [os.path.join(os.fsencode(root), names[i]) for i in unknown]
    with ThreadPoolExecutor() as pool:
        read = (
            content for i in range(0, len(paths), AT_ONCE) for content in pool.map(_content, paths[i : i + AT_ONCE])
        )
        contents[unknown] = np.fromiter(track(read, f"reading {root.name}/", len(paths)), np.uint64, len(paths))
    settled = states[:, 2] < started - SETTLED
    kept = [name for name, keep in zip(names, settled, strict=True) if keep]
    with contextlib.suppress(UserError), writing(file) as output:  # else a cache that can only be read
        ends = np.cumsum([len(name) for name in kept], dtype=np.int64)
        joined = np.frombuffer(b"".join(kept), np.uint8)
        np.savez(output, names=joined, ends=ends, states=states[settled], contents=contents[settled])
    return contents


def _content(path: bytes) -> int:
    try:
        with open(path, "rb") as file:
            return int.from_bytes(hashlib.file_digest(file, "sha256").digest()[:8])
    except OSError as error:
        raise UserError(f"cannot read {os.fsdecode(path)}: {error.strerror}. Remove or mend it.") from error


def _remembered(
    file: Path, names: Sequence[bytes], states: Int64[np.ndarray, "n 3"]
) -> tuple[UInt64[np.ndarray, " n"], Bool[np.ndarray, " n"]]:
    """What files hold, and of which of them this is remembered: of none where `file` is missing or damaged."""
    contents, known = np.zeros(len(names), np.uint64), np.zeros(len(names), bool)
    try:
        with np.load(file, allow_pickle=False) as arrays:
            joined, ends = arrays["names"].tobytes(), arrays["ends"].tolist()
            former, made = arrays["states"], arrays["contents"].astype(np.uint64, casting="safe")
        places = {joined[start:end]: i for i, (start, end) in enumerate(zip([0, *ends], ends, strict=False))}
        where = np.array([places.get(name, -1) for name in names], np.int64)
        known = where >= 0
        known[known] = (former[where[known]] == states[known]).all(1)
        contents[known] = made[where[known]]
    except (OSError, ValueError, KeyError, IndexError, EOFError, TypeError, zipfile.BadZipFile):
        known[:] = False
    return contents, known
