"""Datasets: indexable stores of uint8 images with integer labels, with a fingerprint of their content."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

from ssl_lightning.config.markers import Place
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import place_of
from ssl_lightning.ranges import Count, Deviation, Part, Share

VALIDATION_SEED = 0


SplitName = Literal["train", "val", "test"]


Arrays = tuple[UInt8[np.ndarray, "n c h w"], Integer[np.ndarray, " n"]]


Images = Tensor | StreamedImages
"""uint8 [n, c, h, w], in memory or behind a page cache; or decoded when they are asked for."""


class Split(NamedTuple):
    """All images of a split, and their labels, int64; −1 where an image of train has none."""

    images: Images
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Fingerprint:
    """What a split contains, in which order. Positions mean the same images only under equal fingerprints.

    `digest` is the start of the SHA-256 over all labels, then all images.
    """

    name: str
    split: str
    length: int
    digest: str

    def __str__(self) -> str:
        return f"{self.name}/{self.split}[{self.length}]:{self.digest}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Fingerprint":
        digest = values["digest"] if "digest" in values else values["hash"]  # its name in the former version
        return cls(str(values["name"]), str(values["split"]), int(values["length"]), str(digest))


def joined(one: Split, other: Split) -> Split:
    """The images of both."""
    labels = torch.cat([one.labels, other.labels])
    if isinstance(one.images, StreamedImages) and isinstance(other.images, StreamedImages):
        return Split(one.images.joined(other.images), labels)
    return Split(torch.cat([one.images[:], other.images[:]]), labels)


def selected(split: Split, positions: Int[Tensor, " m"]) -> Split:
    """Some of the images, in this order."""
    images, labels = split
    if isinstance(images, StreamedImages):
        return Split(images.select(positions), labels[positions])
    return Split(images[positions], labels[positions])


def label_digest(labels: Int[np.ndarray, " n"]) -> Any:
    """SHA-256 over labels, to be continued with images."""
    return hashlib.sha256(np.ascontiguousarray(labels, "<i8").tobytes())


@dataclass(kw_only=True)
class ImageDataset(ABC):
    """A labelled image dataset with a train and a test split, read once.

    Args:
        name: name in run folders, fingerprints and messages.
        image_size: height and width of the images.
        channels: 1 for grey, 3 for colour.
        num_classes: number of classes; None takes it from the data when they are opened.
        mean: per channel, of images scaled to [0, 1].
        std: likewise.
        stem: what a backbone's stem should be for these images; a config resolves `auto` by their size.
        download: fetch missing files, where the dataset has a public source.
        validation_fraction: share of each class that `validation` holds out of train.

    Opening data that do not agree with these values raises UserError.
    """

    name: str
    image_size: Count
    channels: Count
    num_classes: Count | None
    mean: Sequence[Share]
    std: Sequence[Deviation]
    stem: str = "auto"
    download: Annotated[bool, Place] = False
    validation_fraction: Part = 0.1

    any_size: ClassVar[bool] = False
    """Whether images are decoded to any `image_size`, and to 1 or 3 `channels`, as one likes."""

    _splits: dict[str, Split] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fingerprints: dict[str, Fingerprint] = field(default_factory=dict, init=False, repr=False, compare=False)

    _validation: Tensor | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.mean, self.std = tuple(map(float, self.mean)), tuple(map(float, self.std))
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.channels:
                raise UserError(
                    f"dataset.{key} has {len(getattr(self, key))} values for {self.channels} channels: "
                    f"give {self.channels}, one a channel."
                )
        if self.any_size and self.channels not in (1, 3):
            raise UserError(f"dataset.channels is {self.channels}: images have 1 (grey) or 3 (colour) channels here.")

    @abstractmethod
    def prepare(self) -> None:
        """See that the data are there; fetch and decode what must be. One process calls this first."""

    @abstractmethod
    def read(self, split: SplitName) -> Arrays:
        """Images and labels of a split, after `prepare`."""

    @abstractmethod
    def count_classes(self) -> int:
        """How many classes the data distinguish."""

    def content_digest(self, split: SplitName) -> str:
        """What identifies a split in the identity of a run or an evaluation, beyond the dataset's name: nothing where
        data of this name are published, and the same everywhere."""
        return ""

    def notice(self) -> str | None:
        """What a user should know of how the images are read."""
        return None

    def check_images(self, split: SplitName) -> None:  # noqa: B027  those in memory were decoded
        """Raises UserError where one of a split cannot be decoded when it is needed."""

    @property
    def unlabelled(self) -> str | None:
        """Why classifiers of representations cannot be trained and tested, where that is known before `prepare`: what
        comes after the dataset's name in a sentence."""
        return None

    def labels_beforehand(self) -> Int[np.ndarray, " n"] | None:
        """Labels of train, −1 where there is none, where they are known without fetching or decoding anything.

        Raises:
            NotThere: its files are missing.
        """
        return None

    @property
    def has_labels(self) -> bool:
        """Whether classifiers of representations can be trained and tested, after `prepare`."""
        return self.has_test and bool((self.train().labels >= 0).any())

    @property
    def has_test(self) -> bool:
        """Whether there is a test split, after `prepare`."""
        return True

    @property
    def has_val(self) -> bool:
        """Whether there is a split that chooses settings of probes, beside train and test."""
        return False

    def train(self) -> Split:
        """What subsets are taken of."""
        return self._open("train")

    def labelled(self) -> Split:
        """The images of train that have a label, and those of val: what classifiers of representations learn from."""
        split = self.train()
        known = torch.nonzero(split.labels >= 0).flatten()
        split = split if len(known) == len(split.labels) else selected(split, known)
        return joined(split, self._open("val")) if self.has_val else split

    def all_labels(
        self, purpose: str, advice: str = "Choose something that needs fewer labels, or another dataset."
    ) -> Int[Tensor, " n"]:
        """The labels of train, where each image has one; else an error that says what they were needed for."""
        labels = self.train().labels
        if missing := int((labels < 0).sum()):
            raise UserError(
                f"{purpose} needs the labels of all images, but {missing:,} of the {len(labels):,} training images of "
                f"{self.name} have none. {advice}"
            )
        return labels

    def test(self) -> Split:
        return self._open("test")

    def fingerprint(self, split: SplitName = "train") -> Fingerprint:
        if split not in self._fingerprints:
            labels = self._open(split).labels
            self._fingerprints[split] = Fingerprint(self.name, split, len(labels), self._content_digest(split))
        return self._fingerprints[split]

    def validation_part(self) -> Bool[Tensor, " m"]:
        """Which of the labelled images choose settings: those of val, or where there is no such split, of
        `validation`."""
        known = self.train().labels >= 0
        if self.has_val:
            return torch.arange(int(known.sum()) + len(self._open("val").labels)) >= known.sum()
        return self.validation()[known]

    def validation(self) -> Bool[Tensor, " n"]:
        """The positions of train that are held out for tuning: always the same, the same share of each class.

        At least one image of each class that has two, and never a whole class; only images that have a label.
        """
        if self._validation is not None:
            return self._validation
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(VALIDATION_SEED)))
        labels = self.train().labels.numpy()
        held_out = np.zeros(len(labels), bool)
        for label in np.unique(labels[labels >= 0]):
            positions = generator.permutation(np.flatnonzero(labels == label))
            size = max(1, round(self.validation_fraction * len(positions)))
            held_out[positions[: min(size, len(positions) - 1)]] = True
        self._validation = torch.from_numpy(held_out)
        return self._validation

    def _content_digest(self, split: SplitName) -> str:
        images, labels = self._open(split)
        assert isinstance(images, Tensor)
        digest = label_digest(labels.numpy())
        digest.update(np.ascontiguousarray(images.numpy()).reshape(-1))
        return digest.hexdigest()[:16]

    def _open(self, split: SplitName) -> Split:
        if split not in self._splits:
            self.prepare()
            images, labels = self._read(split)
            self._check(split, images.shape[1:3], labels)
            labels = labels.astype(np.int64)
            self._splits[split] = Split(torch.from_numpy(images), torch.from_numpy(labels))
        return self._splits[split]

    def _read(self, split: SplitName) -> Arrays:
        """`read`, which may be a user's own and return anything."""
        images, labels = found = self.read(split)
        wanted = (images, 4, np.uint8), (labels, 1, np.integer)
        right = all(isinstance(a, np.ndarray) and a.ndim == n and np.issubdtype(a.dtype, kind) for a, n, kind in wanted)
        if right and len(images) == len(labels):
            return found
        given = " and ".join(f"{getattr(a, 'dtype', type(a).__name__)} {list(np.shape(a))}" for a in (images, labels))
        raise UserError(
            f"{place_of(type(self).read)} returned {given} for {split}. Return two NumPy arrays, images as uint8 "
            "[n, c, h, w] and labels as integers [n]."
        )

    def _check(self, split: str, shape: tuple[int, int], labels: Integer[np.ndarray, " n"]) -> None:
        """Whether channels and side of the images, and their labels, are what the settings say."""
        num_classes = self.count_classes()
        if self.num_classes is None:
            self.num_classes = num_classes
        found = {"num_classes": num_classes, "channels": shape[0], "image_size": shape[1]}
        for key, value in found.items():
            if getattr(self, key) != value:
                raise UserError(
                    f"dataset.{key} is {getattr(self, key)}, but the images of {self.name} have {value}: "
                    f"set dataset.{key}={value}."
                )
        if len(labels) == 0:
            raise UserError(f"{self.name} has no image in its {split} split. Replace its files.")
        if labels.min() < (-1 if split == "train" else 0) or labels.max() >= num_classes:
            raise UserError(
                f"{self.name}: labels of {split} run from {labels.min()} to {labels.max()}, which is no "
                f"dataset.num_classes={num_classes}. Replace its files."
            )
