"""Datasets: indexable stores of uint8 images with integer labels, with a fingerprint of their content."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

from ssl_lightning.config.markers import Place, Unset
from ssl_lightning.data.checking import check_arrays, check_labelled, check_labels, check_settings
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.nuisance import Nuisance, Plan, private, streamed
from ssl_lightning.data.pseudo_labels import PseudoLabels
from ssl_lightning.data.validation import held_out_part
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import place_of
from ssl_lightning.ranges import Count, Deviation, Part, Share

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
        validation_fraction: share of each class that is held out of train for tuning.
        nuisance: what is done to the images of train; evaluations see them as they were.
        pseudo_labels: what pretraining takes for the labels of train; evaluations see its own.

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
    nuisance: Annotated[Nuisance | None, Unset] = None
    pseudo_labels: Annotated[PseudoLabels | None, Unset] = None

    any_size: ClassVar[bool] = False
    """Whether images are decoded to any `image_size`, and to 1 or 3 `channels`, as one likes."""

    _splits: dict[str, Split] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fingerprints: dict[str, Fingerprint] = field(default_factory=dict, init=False, repr=False, compare=False)

    _held_out: Tensor | None = field(default=None, init=False, repr=False, compare=False)
    _planted: tuple[Split, Plan] | None = field(default=None, init=False, repr=False, compare=False)

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
        return self.has_test and bool((self.clean().labels >= 0).any())

    @property
    def has_test(self) -> bool:
        """Whether there is a test split, after `prepare`."""
        return True

    @property
    def has_val(self) -> bool:
        """Whether there is a split that chooses settings of probes, beside train and test."""
        return False

    def train(self) -> Split:
        """What subsets are taken of, and pretraining sees."""
        split = self.clean() if self.nuisance is None else self._with_nuisance()[0]
        if self.pseudo_labels is None:
            return split
        return Split(split.images, torch.from_numpy(self.pseudo_labels.levels(len(split.labels))[:, 0]))

    def relabelled(self, labels: PseudoLabels) -> "ImageDataset":
        """The same images, in memory once, with other labels of train."""
        other = copy.copy(self)
        other.pseudo_labels = labels
        return other

    def clean(self) -> Split:
        """The images of train without any nuisance."""
        return self._open("train")

    def origins(self) -> Int[Tensor, " n"]:
        """For each position of train, the position in `clean` of the image that is there, or that it is made of; −1: of
        none."""
        if self.nuisance is None:
            return torch.arange(len(self.clean().labels))
        return torch.from_numpy(self._with_nuisance()[1].origin)

    def nuisance_notice(self) -> str | None:
        """What has been done to the images of train, in one line."""
        if self.nuisance is None:
            return None
        told = self.nuisance.told(self._with_nuisance()[1], len(self.clean().labels))
        return f"{self.name}: nuisance={self.nuisance.name}: {told}; evaluations see the clean ones."

    def labelled(self) -> Split:
        """The clean images of train that have a label, and those of val: what classifiers of representations learn
        from."""
        split = self.clean()
        known = torch.nonzero(split.labels >= 0).flatten()
        split = split if len(known) == len(split.labels) else selected(split, known)
        return joined(split, self._open("val")) if self.has_val else split

    def all_labels(
        self, purpose: str, advice: str = "Choose something that needs fewer labels, or another dataset."
    ) -> Int[Tensor, " n"]:
        """The labels of train, where each image has one; else an error that says what they were needed for."""
        labels = self.train().labels
        check_labelled(labels.numpy(), purpose, self.name, advice)
        return labels

    def test(self) -> Split:
        return self._open("test")

    def fingerprint(self, split: SplitName = "train") -> Fingerprint:
        """Of train with its nuisance, if any: see `Plan.digest`."""
        if split not in self._fingerprints:
            named, labels, digest = str(split), self._open(split).labels, self._content_digest(split)
            if split == "train" and self.nuisance is not None:
                (images, labels), plan = self._with_nuisance()
                named, digest = f"{split}-{self.nuisance.name}", plan.digest(digest, images)
            self._fingerprints[split] = Fingerprint(self.name, named, len(labels), digest)
        return self._fingerprints[split]

    def validation_part(self) -> Bool[Tensor, " m"]:
        """Which of the labelled images choose settings: those of val, or where there is no such split, of
        `held_out`."""
        known = self.clean().labels >= 0
        if self.has_val:
            return torch.arange(int(known.sum()) + len(self._open("val").labels)) >= known.sum()
        return self.held_out()[known]

    def validation(self) -> Bool[Tensor, " n"]:
        """The positions of train whose images, or those that they are made of, are held out for tuning."""
        origin = self.origins()
        return self.held_out()[origin.clamp(min=0)] & (origin >= 0)

    def held_out(self) -> Bool[Tensor, " n"]:
        """The positions of `clean` that are held out for tuning: see `held_out_part`."""
        if self._held_out is None:
            self._held_out = torch.from_numpy(held_out_part(self.clean().labels.numpy(), self.validation_fraction))
        return self._held_out

    def _with_nuisance(self) -> tuple[Split, Plan]:
        """Train, and what has become of it."""
        if self._planted is not None:
            return self._planted
        assert self.nuisance is not None
        clean, name = self.clean(), self.nuisance.name
        if self.nuisance.needs_labels:
            advice = "Choose another nuisance, such as dataset.nuisance=duplicates, or another dataset."
            check_labelled(clean.labels.numpy(), f"dataset.nuisance={name}", self.name, advice)
        plan = self.nuisance.plan(clean.labels.numpy())
        if not len(plan.made):
            self._planted = selected(clean, torch.from_numpy(plan.origin)), plan
        elif isinstance(clean.images, StreamedImages):
            raise streamed(name, self.name)
        else:
            images = private(self._read("train")[0])
            self.nuisance.paint(images, plan)
            self._planted = Split(torch.from_numpy(images), torch.from_numpy(plan.labels)), plan
        return self._planted

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
        return check_arrays(self.read(split), split, place_of(type(self).read))

    def _check(self, split: str, shape: tuple[int, int], labels: Integer[np.ndarray, " n"]) -> None:
        """Whether channels and side of the images, and their labels, are what the settings say."""
        num_classes = self.count_classes()
        if self.num_classes is None:
            self.num_classes = num_classes
        found = {"num_classes": num_classes, "channels": shape[0], "image_size": shape[1]}
        check_settings(self.name, {key: getattr(self, key) for key in found}, found)
        check_labels(self.name, split, labels, num_classes)
