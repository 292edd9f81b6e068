"""A folder of images, one folder a class: decoded once, or again at every step where that would be too much."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import Ge, Gt, Le

from ssl_lightning.config.markers import Place, Speed
from ssl_lightning.data.dataset import Arrays, ImageDataset, Split, SplitName
from ssl_lightning.data.decoding import WHITE, StreamedImages, deepest
from ssl_lightning.data.places import cache_folder
from ssl_lightning.data.sources.layouts import Layout, layout_of
from ssl_lightning.data.sources.listing import ImageFiles
from ssl_lightning.data.sources.store import Store
from ssl_lightning.errors import UserError
from ssl_lightning.files import locked, write_text
from ssl_lightning.progress import track
from ssl_lightning.ranges import Count, Deviation, Part, SeedNumber, Share

LOOKED_AT = 16  # images, for their depth
STORE_FORMAT = 3  # of decoded image folders; raised when decoding changes


@dataclass(kw_only=True)
class ImageFolder(ImageDataset):
    """Images in `root/train/<class>/` and `root/test/<class>/`; in `root/<class>/`, with a `split`; or without labels
    in `root/train/` or in `root` itself.

    Classes are numbered by sorted name. The test split is the first of `TESTS` that has the classes of train; where
    that is `test`, the next one chooses settings of probes. Images without labels have no such splits. Where the
    central squares of the training images, resampled to `image_size`, take at most `resident_gib`, they are decoded
    once, into a folder below `cache`, and views are cut from them. Else images stay in their files, and workers cut
    views from the whole images at every step, with antialias. Pictures are turned upright as their EXIF orientation
    says, and transparent ones lie on white.

    Args:
        root: the folder.
        cache: for decoded images, and for digests of what files hold.
        labels: a list of images with their labels, and perhaps splits (see `listed_files`); None: folders are classes;
            `none`: they are not, and images at any depth have no label.
        split: share of each class that is held out as the test split, where there is no other, in (0, 1).
        split_seed: of what is held out.
        white: the value of pictures of 16 bits that becomes 255, as larger ones do; None: 65,535.
        storage: `resident` or `streamed`; `auto` is `resident` up to `resident_gib`.
        resident_gib: 2³⁰ bytes of decoded training images.
        square: side of the central square as a share of the shorter side, in (0, 1].
        workers: processes that decode streamed images; None: one a core.
    """

    root: Annotated[str, Place]
    labels: Annotated[str | None, Place] = None  # which images are in which split: see `content_digest`
    split: Annotated[Part | None, Place] = None
    split_seed: Annotated[SeedNumber, Place] = 0
    white: Annotated[Count | None, Place] = None  # likewise
    name: str = "image_folder"
    image_size: Count = 32
    channels: Count = 3
    num_classes: Count | None = None
    mean: Sequence[Share] = (0.485, 0.456, 0.406)
    std: Sequence[Deviation] = (0.229, 0.224, 0.225)
    stem: str = "cifar"
    cache: Annotated[str, Place] = field(default_factory=cache_folder)
    storage: Annotated[Literal["auto", "resident", "streamed"], Speed] = "auto"  # see `content_digest`
    resident_gib: Annotated[float, Gt(0), Speed] = 8.0
    square: Annotated[float, Gt(0), Le(1)] = 1.0
    workers: Annotated[Annotated[int, Ge(0)] | None, Speed] = None

    any_size: ClassVar[bool] = True

    @cached_property
    def streamed(self) -> bool:
        """Whether images stay in their files."""
        if self.storage == "auto":
            return self._decoded_gib > self.resident_gib
        return self.storage == "streamed"

    def prepare(self) -> None:
        for split in self._listing:
            if not self.streamed:
                self._store(split).ensure(split, self._build)

    @property
    def unlabelled(self) -> str | None:
        if not (self._listing["train"].labels >= 0).any():
            return "has no labels"
        return None if self.has_test else "has no test split"

    @property
    def has_test(self) -> bool:
        return "test" in self._listing

    @property
    def has_val(self) -> bool:
        return "val" in self._listing

    def content_digest(self, split: SplitName) -> str:
        """Of all paths below the root, labels, and what the files hold, wherever the folder lies, and of whether images
        are streamed."""
        if split not in self._listing:
            return ""
        white = f"-white{self.white}" if self.white else ""
        return self._listing[split].digest() + ("-streamed" if self.streamed else "") + white

    def notice(self) -> str | None:
        lines = [str(self._layout), self._of_storage(), self._of_depth(), *self._layout.lines]
        return "\n".join(f"{self.name}: {line}" for line in lines if line)

    def _of_depth(self) -> str | None:
        """Of pictures of 16 bits, as far as a few images tell."""
        files = self._listing["train"]
        some = [files.path(i) for i in range(0, len(files), max(1, len(files) // LOOKED_AT))]
        values = [value for path in some if (value := deepest(path)) is not None]
        if not values:
            return None
        return (
            f"pictures of 16 bits are scaled, so that {self.white or WHITE:,} becomes 255; the largest value of "
            f"{len(values)} of them is {max(values):,} (dataset.white=... says what becomes 255)."
        )

    def _of_storage(self) -> str | None:
        if self.storage != "auto":
            return None
        decoded = f"{self._decoded_gib:,.1f} GiB" if self._decoded_gib >= 1 else f"{1024 * self._decoded_gib:,.1f} MiB"
        what = f"{len(self._listing['train']):,} images take {decoded} decoded"
        if self.streamed:
            return f"{what}: they are streamed from their files (dataset.storage=resident decodes them once)."
        return f"{what}: they are decoded once (dataset.storage=streamed cuts views from the whole files instead)."

    @property
    def _decoded_gib(self) -> float:
        return len(self._listing["train"]) * self.channels * self.image_size**2 / 2**30

    @cached_property
    def _layout(self) -> Layout:
        root, cache = Path(self.root).absolute(), Path(self.cache).absolute()
        try:
            return layout_of(root, cache, self.labels, self.split, self.split_seed)
        except UserError as error:
            raise type(error)(f"{self.name}: {error}") from None

    @cached_property
    def _listing(self) -> Mapping[str, ImageFiles]:
        """By split."""
        return self._layout.splits

    @property
    def _seen(self) -> tuple[float, ...]:
        further = (self.white,) if self.white else ()
        return STORE_FORMAT, self.image_size, self.channels, self.square, *further

    def _store(self, split: str) -> Store:
        key = repr(self._seen) + self._listing[split].digest()
        return Store(Path(self.cache).absolute() / "datasets" / hashlib.sha256(key.encode()).hexdigest()[:16])

    def _images(self, split: str) -> StreamedImages:
        white = self.white or WHITE
        return StreamedImages(self._listing[split], self.image_size, self.channels, self.square, self.workers, white)

    def _build(self, split: str) -> None:
        images = self._images(split)
        decoded = track(images.all(), f"{self.name}: decoding {split}", len(images))
        self._store(split).write(split, images.files.labels, decoded, images.shape[1:], classes=images.files.classes)

    def check_images(self, split: SplitName) -> None:
        if not self.streamed:
            return
        found = Path(self.cache).absolute() / "indexes" / f"{self._listing[split].digest()}.whole"
        if found.exists():
            return
        with locked(found):
            if not found.exists():  # another process was faster
                images = self._images(split)
                for _ in track(images.all(), f"{self.name}: looking at {split}, once", len(images)):
                    pass
                write_text(found, "")

    def read(self, split: SplitName) -> Arrays:
        return self._store(split).read(split)

    def _open(self, split: SplitName) -> Split:
        if not self.streamed:
            return super()._open(split)
        if split not in self._splits:
            labels = self._listing[split].labels
            self._check(split, (self.channels, self.image_size), labels)
            self._splits[split] = Split(self._images(split), torch.from_numpy(labels.copy()))
        return self._splits[split]

    def _content_digest(self, split: SplitName) -> str:
        if not self.streamed:
            return self._store(split).digest(split)
        seen = repr(self._seen) + self._listing[split].digest()  # what makes pixels of which files
        return hashlib.sha256(seen.encode()).hexdigest()[:16]

    def count_classes(self) -> int:
        return len(self._listing["train"].classes)
