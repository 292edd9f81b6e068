"""Images from anywhere, brought into a store once."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int64, UInt8

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import Arrays, ImageDataset, SplitName
from ssl_lightning.data.sources.splits import found_line, held_out
from ssl_lightning.data.sources.store import Store
from ssl_lightning.errors import UserError
from ssl_lightning.progress import track
from ssl_lightning.ranges import Part, SeedNumber

Positions = Int64[np.ndarray, " m"]


@dataclass(frozen=True)
class Given:
    """One split of a source.

    Args:
        labels: −1 for none.
        images: those at some positions, uint8 [c, h, w].
    """

    labels: Int64[np.ndarray, " n"]
    images: Callable[[Positions], Iterator[UInt8[np.ndarray, "c h w"]]]

    def select(self, positions: Positions) -> "Given":
        return Given(self.labels[positions], lambda some: self.images(positions[some]))


@dataclass(frozen=True)
class Source:
    """What there is to read.

    Args:
        found: it, in words.
        digest: of its content, and of how images are made of it.
        splits: train, and test and val where there are such.
        lines: what else a user should know.
    """

    found: str
    digest: str
    splits: Mapping[str, Given]
    lines: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        return 1 + max((int(given.labels.max(initial=-1)) for given in self.splits.values()), default=-1)

    def settled(self, split: float | None, seed: int) -> "Source":
        """With the splits that are used: a share of train held out, where that is asked for; val as the test split,
        where there is no other; and no images for testing that lack labels.

        Raises:
            UserError: there is nothing to hold out of, or a test split already.
        """
        splits, lines = dict(self.splits), list(self.lines)
        for part in [part for part in splits if part != "train" and (splits[part].labels < 0).any()]:
            lines.append(f"not read: {part}, as images in it have no labels.")
            del splits[part]
        if split is not None:
            if "test" in splits or "val" in splits:
                raise UserError(
                    f"dataset.split={split:g} is to hold out a test split, but {self.found} has one. Leave it out."
                )
            labels = splits["train"].labels
            out = held_out(labels, [b"%d" % i for i in range(len(labels))], split, seed)
            if not out.any():
                raise UserError(f"dataset.split={split:g} holds out nothing: {self.found} has no class of two images.")
            train = splits["train"]
            splits = {"train": train.select(np.flatnonzero(~out)), "test": train.select(np.flatnonzero(out))}
            digest = f"{self.digest} {split} {seed}"
            return replace(self, found=f"{self.found}, split={split:g}", digest=digest, splits=splits)
        if "val" in splits and "test" not in splits:
            splits["test"] = splits.pop("val")
            lines.append("there are no images for test, so those for val are the test split.")
        return replace(self, splits=splits, lines=tuple(lines))


@dataclass(kw_only=True)
class StoredDataset(ImageDataset):
    """Images of a source, decoded once into a folder below `cache`.

    Args:
        cache: for decoded images, and for digests of what files hold.
        split: share of each class that is held out as the test split, where there is no other, in (0, 1).
        split_seed: of what is held out.
    """

    cache: Annotated[str, Place]
    split: Annotated[Part | None, Place] = None  # which images are in which split: see `content_digest`
    split_seed: Annotated[SeedNumber, Place] = 0

    @abstractmethod
    def source(self) -> Source:
        """What there is."""

    @cached_property
    def _source(self) -> Source:
        try:
            return self.source().settled(self.split, self.split_seed)
        except UserError as error:
            raise type(error)(f"{self.name}: {error}") from None

    @cached_property
    def _store(self) -> Store:
        key = hashlib.sha256(self._source.digest.encode()).hexdigest()[:16]
        return Store(Path(self.cache).absolute() / "datasets" / key)

    def prepare(self) -> None:
        for part in self._source.splits:
            self._store.ensure(part, self._build)

    def _build(self, part: str) -> None:
        labels, images = self._source.splits[part].labels, self._source.splits[part].images
        made = track(images(np.arange(len(labels))), f"{self.name}: reading {part}", len(labels))
        shape = self.channels, self.image_size, self.image_size
        self._store.write(part, labels, made, shape)

    def read(self, split: SplitName) -> Arrays:
        return self._store.read(split)

    def _content_digest(self, split: SplitName) -> str:
        return self._store.digest(split)

    def content_digest(self, split: SplitName) -> str:
        """Of what the source holds and how it is split."""
        if split not in self._source.splits:
            return ""
        return hashlib.sha256(f"{split} {self._source.digest}".encode()).hexdigest()[:16]

    def count_classes(self) -> int:
        return self._source.num_classes

    @property
    def has_test(self) -> bool:
        return "test" in self._source.splits

    @property
    def has_val(self) -> bool:
        return self.has_test and "val" in self._source.splits

    @property
    def unlabelled(self) -> str | None:
        if not (self._source.splits["train"].labels >= 0).any():
            return "has no labels"
        return None if self.has_test else "has no test split"

    def notice(self) -> str | None:
        labels = {part: given.labels for part, given in self._source.splits.items()}
        lines = [found_line(self._source.found, labels, self._source.num_classes), *self._source.lines]
        return "\n".join(f"{self.name}: {line}" for line in lines)
