"""Datasets: indexable stores of uint8 images with integer labels, with a fingerprint of their content."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, Integer, UInt8
from torch import Tensor

from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.readers import (
    IDX_IMAGES,
    IDX_LABELS,
    extract,
    fetch,
    locked,
    read_cifar_batch,
    read_idx,
)
from ssl_lightning.errors import UserError

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")  # of the package dataset-fashion-mnist
DIGITS_SPLIT_SEED = 0
VALIDATION_SEED = 0

SplitName = Literal["train", "test"]
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

    `hash` is the start of the SHA-256 over all labels, then all images.
    """

    name: str
    split: str
    length: int
    hash: str

    def __str__(self) -> str:
        return f"{self.name}/{self.split}[{self.length}]:{self.hash}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Fingerprint":
        return cls(str(values["name"]), str(values["split"]), int(values["length"]), str(values["hash"]))


def label_hash(labels: Int[np.ndarray, " n"]) -> Any:
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
        mean, std: statistics per channel of images scaled to [0, 1].
        stem: what a backbone's stem should be for this image size.
        download: fetch missing files, where the dataset has a public source.
        validation_fraction: share of each class that `validation` holds out of train, in (0, 1).

    Opening data that do not agree with these values raises UserError.
    """

    name: str
    image_size: int
    channels: int
    num_classes: int | None
    mean: Sequence[float]
    std: Sequence[float]
    stem: str = "cifar"
    download: bool = False
    validation_fraction: float = 0.1
    _splits: dict[str, Split] = field(default_factory=dict, init=False, repr=False, compare=False)
    _fingerprints: dict[str, Fingerprint] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.mean, self.std = tuple(map(float, self.mean)), tuple(map(float, self.std))
        for key in ("mean", "std"):
            if len(getattr(self, key)) != self.channels:
                raise UserError(
                    f"dataset.{key} has {len(getattr(self, key))} values for {self.channels} channels: "
                    f"give {self.channels}, one a channel."
                )
        if not 0 < self.validation_fraction < 1:
            raise UserError(
                f"dataset.validation_fraction is {self.validation_fraction}: give a number between 0 and 1."
            )

    @abstractmethod
    def prepare(self) -> None:
        """See that the data are there; fetch and decode what must be. One process calls this first."""

    @abstractmethod
    def _read(self, split: SplitName) -> Arrays:
        """Images and labels of a split, after `prepare`."""

    @abstractmethod
    def _count_classes(self) -> int:
        """How many classes the data distinguish."""

    def content_key(self) -> str:
        """What identifies the data in the identity of a run, beyond the dataset's name. Reads no pixels."""
        return ""

    def remark(self) -> str | None:
        """What a user should know of how the images are read."""
        return None

    def train(self) -> Split:
        """What subsets are taken of. Images without a label, if any, come last."""
        return self._open("train")

    def labelled(self) -> Split:
        """The images of train that have a label: what classifiers of representations learn from."""
        images, labels = self.train()
        count = int((labels >= 0).sum())
        return Split(images, labels) if count == len(labels) else Split(images[:count], labels[:count])

    def all_labels(self, purpose: str) -> Int[Tensor, " n"]:
        """The labels of train, where each image has one."""
        labels = self.train().labels
        if missing := int((labels < 0).sum()):
            raise UserError(
                f"{purpose} needs the labels of all images, but {missing:,} of the {len(labels):,} training images of "
                f"{self.name} have none. Choose something that needs fewer labels, or another dataset."
            )
        return labels

    def test(self) -> Split:
        return self._open("test")

    def fingerprint(self, split: SplitName = "train") -> Fingerprint:
        if split not in self._fingerprints:
            labels = self._open(split).labels
            self._fingerprints[split] = Fingerprint(self.name, split, len(labels), self._content_hash(split))
        return self._fingerprints[split]

    def validation_part(self) -> Bool[Tensor, " m"]:
        """`validation` of the labelled images alone."""
        return self.validation()[: len(self.labelled().labels)]

    def validation(self) -> Bool[Tensor, " n"]:
        """The positions of train that are held out for tuning: always the same, the same share of each class.

        At least one image of each class that has two, and never a whole class; only images that have a label.
        """
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(VALIDATION_SEED)))
        labels = self.train().labels.numpy()
        held_out = np.zeros(len(labels), bool)
        for label in np.unique(labels[labels >= 0]):
            positions = generator.permutation(np.flatnonzero(labels == label))
            size = max(1, round(self.validation_fraction * len(positions)))
            held_out[positions[: min(size, len(positions) - 1)]] = True
        return torch.from_numpy(held_out)

    def _content_hash(self, split: SplitName) -> str:
        images, labels = self._open(split)
        assert isinstance(images, Tensor)
        digest = label_hash(labels.numpy())
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

    def _check(self, split: str, shape: tuple[int, int], labels: Integer[np.ndarray, " n"]) -> None:
        """Whether channels and side of the images, and their labels, are what the settings say."""
        num_classes = self._count_classes()
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


@dataclass(kw_only=True)
class Digits(ImageDataset):
    """scikit-learn's 1,797 handwritten digits, 1×8×8, with a fixed stratified 70/30 split. Needs no files."""

    def prepare(self) -> None:
        pass

    def _read(self, split: SplitName) -> Arrays:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        values, labels = load_digits(return_X_y=True)
        parts = train_test_split(np.arange(len(labels)), test_size=0.3, random_state=DIGITS_SPLIT_SEED, stratify=labels)
        positions = np.sort(parts[0 if split == "train" else 1])
        images = np.rint(values[positions] * (255 / 16)).astype(np.uint8)  # values are 0 to 16
        return images.reshape(-1, 1, 8, 8), labels[positions]

    def _count_classes(self) -> int:
        return 10


@dataclass(kw_only=True)
class FashionMNIST(ImageDataset):
    """Fashion-MNIST (arXiv 1708.07747), 1×28×28: `root/FashionMNIST/raw/` or Debian's package."""

    root: str

    parts: ClassVar = {"train": "train", "test": "t10k"}

    @property
    def _raw(self) -> Path:
        return Path(self.root).absolute() / "FashionMNIST" / "raw"

    def prepare(self) -> None:
        if self._files() is not None:
            return
        if not self.download:
            raise UserError(
                f"{self.name}: no data in {self._raw} nor in {DEBIAN_FASHION_MNIST}. "
                "Add dataset.download=true to the command, or `apt-get install dataset-fashion-mnist`, "
                "or put the four *-ubyte.gz files into the first folder."
            )
        with locked(self._raw):
            from torchvision.datasets import FashionMNIST as Source  # late: its import takes seconds

            for name, md5 in Source.resources:
                if not (self._raw / name).exists():
                    fetch(Source.mirrors[0] + name, self._raw / name, md5)

    def _files(self) -> dict[str, Path] | None:
        """The four files, all of one folder, or None."""
        for folder in (self._raw, DEBIAN_FASHION_MNIST):
            names = [f"{part}-{kind}-ubyte" for part in self.parts.values() for kind in ("images-idx3", "labels-idx1")]
            found = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.exists()}
            if len(found) == len(names):
                return found
        return None

    def _read(self, split: SplitName) -> Arrays:
        files, part = self._files() or {}, self.parts[split]
        images_path, labels_path = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        images, labels = read_idx(images_path, IDX_IMAGES), read_idx(labels_path, IDX_LABELS)
        if len(images) != len(labels):
            raise UserError(
                f"{images_path} holds {len(images)} images, but {labels_path.name} beside it "
                f"{len(labels)} labels. Fetch both again."
            )
        return images[:, None], labels

    def _count_classes(self) -> int:
        return 10


@dataclass(kw_only=True)
class ArchivedDataset(ImageDataset):
    """Files in a folder below `root`, or in the archive beside that folder, which torchvision's dataset knows."""

    root: str

    source: ClassVar[str]
    folder: ClassVar[str]
    archive: ClassVar[str]
    files: ClassVar[dict[str, list[str]]]

    @property
    def _folder(self) -> Path:
        return Path(self.root).absolute() / self.folder

    def _missing(self) -> list[str]:
        return [name for names in self.files.values() for name in names if not (self._folder / name).exists()]

    def prepare(self) -> None:
        archive = self._folder.parent / self.archive
        if not (missing := self._missing()):
            return
        if not archive.exists() and not self.download:
            raise UserError(
                f"{self.name}: no {missing[0]} in {self._folder}, and no {archive.name} beside that folder. "
                f"Add dataset.download=true to the command, or put {archive.name} into {archive.parent}."
            )
        with locked(archive):
            if not (missing := self._missing()):  # another process was faster
                return
            if not archive.exists():
                import torchvision.datasets  # late: it takes seconds

                source = getattr(torchvision.datasets, self.source)
                fetch(source.url, archive, source.tgz_md5)
            extract(archive, self._folder, missing)


@dataclass(kw_only=True)
class _CIFAR(ArchivedDataset):
    """CIFAR's Python version."""

    label_key: ClassVar[str]

    def _read(self, split: SplitName) -> Arrays:
        batches = [read_cifar_batch(self._folder / name, self.label_key) for name in self.files[split]]
        return np.concatenate([batch[0] for batch in batches]), np.concatenate([batch[1] for batch in batches])


@dataclass(kw_only=True)
class CIFAR10(_CIFAR):
    """CIFAR-10, 3×32×32: `root/cifar-10-batches-py/`."""

    source: ClassVar[str] = "CIFAR10"
    folder: ClassVar[str] = "cifar-10-batches-py"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    files: ClassVar = {"train": [f"data_batch_{i}" for i in range(1, 6)], "test": ["test_batch"]}
    label_key: ClassVar[str] = "labels"

    def _count_classes(self) -> int:
        return 10


@dataclass(kw_only=True)
class CIFAR100(_CIFAR):
    """CIFAR-100 with its fine labels, 3×32×32: `root/cifar-100-python/`."""

    source: ClassVar[str] = "CIFAR100"
    folder: ClassVar[str] = "cifar-100-python"
    archive: ClassVar[str] = "cifar-100-python.tar.gz"
    files: ClassVar = {"train": ["train"], "test": ["test"]}
    label_key: ClassVar[str] = "fine_labels"

    def _count_classes(self) -> int:
        return 100
