"""Which files below a folder are its images: each real file once, and nothing that systems or runs have left there."""

import os
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ssl_lightning.errors import UserError
from ssl_lightning.files import inside

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff", ".gif")
SYSTEM = {"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found", "thumbs.db"}
"""Names that systems give to folders and files of their own, in lower case."""
TESTS = ("test", "val", "valid", "validation")
"""Folders that a test split is looked for in, in this order."""
SPLITS = ("train", *TESTS)
Links = deque[tuple[tuple[str, ...], "os.DirEntry[str]"]]
"""Parts of the path above each, and the link."""


class Found(NamedTuple):
    """An image: parts of its path below the walked folder, and its state."""

    parts: tuple[str, ...]
    size: int
    modified: int
    changed: int


@dataclass
class Walk:
    """What lies below `root/part`, links followed.

    Args:
        root, part: absolute, and relative to it.

    Attributes:
        images: in no order.
        skipped: why something was passed over, and how often.
        empty: folders in `root/part` without an image.
    """

    root: Path
    part: str
    images: list[Found] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        top = self.root / self.part
        if not top.is_dir():
            return
        self._others = [os.path.realpath(self.root / name) for name in SPLITS if name != self.part]
        self._folders = {_identity(os.stat(top))}
        linked: Links = deque()
        files: set[tuple[int, int]] = set()
        self._walk(top, (), linked, files)
        while linked:  # what is no link comes first: a picture counts where it is, and not where a link to it is
            parts, entry = linked.popleft()
            self._follow(parts, entry, linked, files)
        filled = {image.parts[0] for image in self.images if len(image.parts) > 1}
        self.empty = sorted(name for name in self._classes(top) if name not in filled)

    def _walk(
        self,
        folder: Path,
        parts: tuple[str, ...],
        linked: Links,
        files: set[tuple[int, int]],
    ) -> None:
        """One folder and those in it, links left for later."""
        waiting = [(folder, parts)]
        while waiting:
            here, above = waiting.pop()
            try:
                with os.scandir(here) as found:
                    entries = sorted(found, key=lambda entry: entry.name)
            except OSError as error:
                raise UserError(f"cannot read {here}: {error.strerror}. Remove or mend it.") from error
            if _of_a_run({entry.name for entry in entries}):
                self.skipped["what a run has left"] += 1
                continue
            for entry in entries:
                if reason := _hidden(entry.name):
                    self.skipped[reason] += 1
                elif entry.is_symlink():
                    linked.append((above, entry))
                elif entry.is_dir():
                    self._folders.add(_identity(entry.stat()))
                    waiting.append((Path(entry.path), (*above, entry.name)))
                else:
                    self._take(above, entry, files)

    def _follow(
        self,
        parts: tuple[str, ...],
        entry: "os.DirEntry[str]",
        linked: Links,
        files: set[tuple[int, int]],
    ) -> None:
        """A link, to a folder or to a file."""
        target = os.path.realpath(entry.path)
        here = os.path.realpath(os.path.dirname(entry.path))
        try:
            identity = _identity(os.stat(target))
        except OSError as error:
            if entry.name.lower().endswith(IMAGE_SUFFIXES):
                raise UserError(f"cannot read {entry.path}: {error.strerror}. Remove or mend it.") from error
            self.skipped["links to nothing"] += 1
            return
        if any(inside(target, other) for other in self._others):
            self.skipped["links into another split"] += 1
        elif not os.path.isdir(target):
            self._take(parts, entry, files)
        elif inside(here, target) or identity in self._folders:
            self.skipped["links to a folder that is read already"] += 1
        else:
            self._folders.add(identity)
            self._walk(Path(entry.path), (*parts, entry.name), linked, files)

    def _take(self, parts: tuple[str, ...], entry: "os.DirEntry[str]", files: set[tuple[int, int]]) -> None:
        if not entry.name.lower().endswith(IMAGE_SUFFIXES):
            self.skipped[f"files that are no images ({os.path.splitext(entry.name)[1].lower() or 'no suffix'})"] += 1
            return
        try:
            state = entry.stat()
        except OSError as error:
            raise UserError(f"cannot read {entry.path}: {error.strerror}. Remove or mend it.") from error
        if not os.path.isfile(entry.path):  # a pipe, a device, a socket: reading one may never end
            self.skipped["what is no regular file"] += 1
            return
        if entry.is_symlink() and _identity(state) in files:
            self.skipped["links to a file that is read already"] += 1
            return
        files.add(_identity(state))
        self.images.append(Found((*parts, entry.name), state.st_size, state.st_mtime_ns, state.st_ctime_ns))

    def _classes(self, top: Path) -> Iterator[str]:
        with os.scandir(top) as found:
            for entry in found:
                if entry.is_dir() and not _hidden(entry.name):
                    yield entry.name


def _identity(state: os.stat_result) -> tuple[int, int]:
    return state.st_dev, state.st_ino


def _hidden(name: str) -> str | None:
    if name.startswith("."):
        return "hidden"
    return "of the system" if name.lower() in SYSTEM else None


def _of_a_run(names: set[str]) -> bool:
    """Whether a folder is a run's, a report's or that of rankings, whose figures are no images of a dataset."""
    rankings = any(name.endswith(".npz") for name in names) and any(name.endswith(".images.png") for name in names)
    return {"config.yaml", "metrics.csv"} <= names or {"report.html", "report.md"} <= names or rankings
