"""Which images lie below a folder: looked up once, and remembered where they are many."""

import hashlib
import json
import os
import time
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from ssl_lightning.data.sources.walk import Walk
from ssl_lightning.files import writing

REMEMBERED_FROM = 100_000  # images: fewer are looked up in a second
SETTLED = 2_000_000_000  # nanoseconds since a folder was changed: one that is being filled is not remembered


@dataclass(frozen=True, eq=False)
class ImageFiles:
    """The images at any depth below `root/part/<class>/`, sorted by class and path; where there is no such image, those
    in `root/part` itself, sorted by name, which have no label.

    Arrays instead of an object for each file: forked workers share them without copying.

    Args:
        root, part: absolute, and relative to it.
        classes: names of the folders, sorted; none of images without labels.
        labels: the number of each image's class; −1 for none.
        names: paths relative to the root, joined.
        ends: where each path ends in `names`.
        sizes, modified: bytes, and time in nanoseconds.
        folders: every folder that was read, relative to the root, and when it was last changed, in nanoseconds.
        skipped: why something was passed over, and how often.
    """

    root: str
    part: str
    classes: list[str]
    labels: Int64[np.ndarray, " n"]
    names: UInt8[np.ndarray, " b"]
    ends: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]
    modified: Int64[np.ndarray, " n"]
    folders: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ends)

    def path(self, position: int) -> str:
        """Of one image, absolute."""
        start = self.ends[position - 1] if position else 0
        return os.path.join(self.root, os.fsdecode(self.names[start : self.ends[position]].tobytes()))

    def digest(self, times: bool = False) -> str:
        """Of all relative paths, labels and sizes, and of the times where asked."""
        digest = hashlib.sha256(f"{self.part} {len(self)}\n".encode())
        for array in (self.ends, self.names, self.labels, self.sizes, *([self.modified] if times else [])):
            digest.update(array.tobytes())
        return digest.hexdigest()[:16]

    def save(self, path: Path) -> None:
        header = json.dumps({"classes": self.classes, "folders": self.folders, "skipped": self.skipped})
        arrays = {key: getattr(self, key) for key in ("labels", "names", "ends", "sizes", "modified")}
        with writing(path) as file:
            np.savez(file, allow_pickle=False, header=np.array(header), **arrays)


def image_files(root: Path, part: str, cache: Path) -> ImageFiles:
    """Looks up the images of `root/part`, or remembers them while no folder there has changed.

    Args:
        cache: folder for what is remembered. An image that is overwritten in place, by one of the same name, is
            only noticed where the images are looked up again: where they are fewer than `REMEMBERED_FROM`.
    """
    key = hashlib.sha256(os.fsencode(root / part)).hexdigest()[:16]
    file = cache / "indexes" / f"{key}.npz"
    found = _remembered(root, part, file)
    if found is None:
        started = time.time_ns()
        found = _scan(root, part)
        settled = max(found.folders.values(), default=0) < started - SETTLED
        if len(found) >= REMEMBERED_FROM and settled:
            found.save(file)
    return found


def _remembered(root: Path, part: str, file: Path) -> ImageFiles | None:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            header = json.loads(str(arrays["header"]))
            if any(os.stat(root / folder).st_mtime_ns != time for folder, time in header["folders"].items()):
                return None
            columns = {key: arrays[key] for key in ("labels", "names", "ends", "sizes", "modified")}
        folders, skipped = header["folders"], header["skipped"]
        return ImageFiles(str(root), part, header["classes"], **columns, folders=folders, skipped=skipped)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):  # missing, damaged, or a folder is gone
        return None


def _scan(root: Path, part: str) -> ImageFiles:
    walk = Walk(root, part)
    labelled = any(len(image.parts) > 1 for image in walk.images)
    found = sorted(
        (image.parts[0] if len(image.parts) > 1 else "", f"{part}/{'/'.join(image.parts)}", image)
        for image in walk.images
        if len(image.parts) > 1 or not labelled  # what lies beside classes is of none
    )
    if beside := len(walk.images) - len(found):
        walk.skipped["images beside the folders of classes"] += beside
    if walk.empty and labelled:
        shown = ", ".join(walk.empty[:3]) + (", ..." if len(walk.empty) > 3 else "")
        walk.skipped[f"folders without an image ({shown})"] += len(walk.empty)
    classes = sorted({label for label, *_ in found} - {""})
    numbers = {"": -1} | {label: i for i, label in enumerate(classes)}
    encoded = [os.fsencode(name) for _, name, _ in found]
    return ImageFiles(
        str(root),
        part,
        classes,
        np.array([numbers[label] for label, *_ in found], np.int64),
        np.frombuffer(b"".join(encoded), np.uint8),
        np.cumsum([len(name) for name in encoded], dtype=np.int64),
        np.array([image.size for *_, image in found], np.int64),
        np.array([image.modified for *_, image in found], np.int64),
        walk.folders,
        dict(walk.skipped),
    )
