"""Data as they come: what is wrong with the training images of a crawl, planted on purpose in a clean dataset.

Evaluations never see it. All is drawn from a seed, in whole numbers: the same bits in every process, on every machine.
"""

import hashlib
import math
import mmap
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Int64, UInt8

from ssl_lightning.config.markers import Seed
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.errors import UserError
from ssl_lightning.ranges import Part, SeedNumber, Share

AT_ONCE = 2**21
"""Values of images that are made at once: 16 MiB in whole numbers."""

Pixels = UInt8[np.ndarray, "n c h w"]


class Plan(NamedTuple):
    """What becomes of the training images.

    Args:
        origin: for each position, the position in the clean split of the image that is there, or that it is made of;
            −1: of none. Where nothing is made, ascending; else each that is not made stays in its place.
        labels: of each position.
        made: the positions whose pixels are made, ascending.
    """

    origin: Int64[np.ndarray, " m"]
    labels: Int64[np.ndarray, " m"]
    made: Int64[np.ndarray, " k"]

    def digest(self, clean: str, images: Any) -> str:
        """Sixteen hex digits of all that is done to images of the digest `clean`.

        Args:
            images: what has come of them, [m, c, h, w], to be indexed by arrays; not read where nothing is made.
        """
        digest = hashlib.sha256(clean.encode())
        for values in (self.origin, self.labels, self.made):
            digest.update(np.ascontiguousarray(values, "<i8").tobytes())
        for some in _parts(images, len(self.made)):
            digest.update(np.ascontiguousarray(images[self.made[some]]).tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Nuisance(ABC):
    """A dataclass, so that rankings can say what they were made of. It gives a `name`, `plan` and `told`, and `paint`
    where it makes images.

    Args:
        seed: of all that is drawn; another one: other images.
    """

    seed: Annotated[SeedNumber, Seed] = 0

    name: ClassVar[str]
    needs_labels: ClassVar[bool] = False
    """Of every image."""

    @abstractmethod
    def plan(self, labels: Int64[np.ndarray, " n"]) -> Plan:
        """Of a clean split with these labels, −1 for none."""

    @abstractmethod
    def told(self, plan: Plan, before: int) -> str:
        """What has been done, in one line, to so many images."""

    def paint(self, images: Pixels, plan: Plan) -> None:  # noqa: B027  most make none
        """Makes the images `plan.made`, in their places."""

    def generator(self, purpose: str) -> np.random.Generator:
        """A stream of its own for each purpose."""
        return np.random.Generator(np.random.PCG64(seed_of(f"{self.name} {purpose}", self.seed)))


@dataclass(frozen=True, kw_only=True)
class LongTail(Nuisance):
    """Images are taken away, until classes are as often as in the long-tailed CIFAR of Cui et al. (arXiv 1901.05555).

    The class of rank r, from 0, of C keeps ⌊n · ratio^(−r/(C−1))⌋ images, at least one, at most what it has; n is the
    size of the largest class. Ranks are a seeded permutation of the classes, and the images that stay are a seeded
    draw: those of a larger ratio are among those of a smaller one.

    Args:
        ratio: of the most frequent to the rarest class, 1 or more.
    """

    ratio: Annotated[float, Ge(1), Lt(1e9)] = 100.0

    name: ClassVar[str] = "long_tail"
    needs_labels: ClassVar[bool] = True

    def counts(self, sizes: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """How many images of each class stay, of so many."""
        classes = len(sizes)
        rank = self.generator("ranks").permutation(classes)
        wanted = sizes.max() * self.ratio ** (-rank / max(classes - 1, 1))
        whole = np.floor(wanted * (1 + 1e-9)).astype(np.int64)  # 500 · 100^(−1) is 5, whatever floats make of it
        return np.minimum(sizes, np.maximum(whole, 1))

    def plan(self, labels: Int64[np.ndarray, " n"]) -> Plan:
        _, group, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        drawn = np.lexsort((self.generator("images").permutation(len(labels)), group))  # class by class
        place = np.arange(len(labels)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        origin = np.sort(drawn[place < np.repeat(self.counts(sizes), sizes)])
        return Plan(origin, labels[origin], np.empty(0, np.int64))

    def told(self, plan: Plan, before: int) -> str:
        _, sizes = np.unique(plan.labels, return_counts=True)
        return f"{before:,} → {len(plan.labels):,} training images, {sizes.max():,} to {sizes.min():,} a class"


@dataclass(frozen=True, kw_only=True)
class _Replacing(Nuisance):
    """A share of the images is replaced, so that their number stays: round(share · n), at least one, and not all. With
    a larger share, more are replaced besides the same ones.

    Args:
        share: of the images, in (0, 1).
    """

    share: Part = 0.2

    def split(self, n: int) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " m"]]:
        """Of n positions, which are replaced, and which stay; in a drawn order."""
        order = self.generator("positions").permutation(n)
        number = min(max(1, round(self.share * n)), n - 1)
        return order[:number], order[number:]


@dataclass(frozen=True, kw_only=True)
class Duplicates(_Replacing):
    """A share of the images is replaced by near duplicates of the others: other crops of an image that stays, which is
    drawn for each, resized to the whole. They have its label.

    Args:
        crop: smallest height and width of the crops, as a share of the image's, in (0, 1]; 1: copies are exact.
        flip: probability that a copy is mirrored.
    """

    crop: Annotated[float, Gt(0), Le(1)] = 0.75
    flip: Share = 0.0

    name: ClassVar[str] = "duplicates"

    def plan(self, labels: Int64[np.ndarray, " n"]) -> Plan:
        copies, others = self.split(len(labels))
        origin = np.arange(len(labels))
        origin[copies] = others[self.generator("originals").integers(0, len(others), len(copies))]
        return Plan(origin, labels[origin], np.sort(copies))

    def paint(self, images: Pixels, plan: Plan) -> None:
        drawn, number = self.generator("crops"), len(plan.made)
        windows = [_spans(drawn, side, self.crop, number) for side in images.shape[2:]]
        mirrored = drawn.random(number) < self.flip
        for some in _parts(images, number):
            copied = images[plan.origin[plan.made[some]]]
            for axis, (start, length) in enumerate(windows, 2):
                copied = stretched(copied, start[some], length[some], axis)
            copied[mirrored[some]] = copied[mirrored[some]][..., ::-1]
            images[plan.made[some]] = copied

    def told(self, plan: Plan, before: int) -> str:
        originals = len(np.unique(plan.origin[plan.made]))
        return f"{len(plan.made):,} of {before:,} training images are replaced by other crops of {originals:,} others"


@dataclass(frozen=True, kw_only=True)
class Noise(_Replacing):
    """A share of the images is replaced by uniform noise, under the labels of those that were there: a crawl, too,
    files what is no image of a cat under "cat", and rules that read labels see as many of each as before."""

    name: ClassVar[str] = "noise"

    def plan(self, labels: Int64[np.ndarray, " n"]) -> Plan:
        replaced, _ = self.split(len(labels))
        origin = np.arange(len(labels))
        origin[replaced] = -1
        return Plan(origin, labels.copy(), np.sort(replaced))

    def paint(self, images: Pixels, plan: Plan) -> None:
        drawn = self.generator("pixels")
        for some in _parts(images, len(plan.made)):
            made = plan.made[some]
            images[made] = drawn.integers(0, 256, (len(made), *images.shape[1:]), np.uint8)

    def told(self, plan: Plan, before: int) -> str:
        return f"{len(plan.made):,} of {before:,} training images are replaced by noise, under their labels"


def stretched(images: Pixels, start: Int64[np.ndarray, " n"], length: Int64[np.ndarray, " n"], axis: int) -> Pixels:
    """A span of each image along an axis, resized to the whole axis: bilinear, pixels outside of it left out, halves
    rounded up. In whole numbers, of 1/(2·side) of a pixel."""
    side = images.shape[axis]
    unit, first, last = 2 * side, start[:, None], (start + length - 1)[:, None]
    at = unit * first + (2 * np.arange(side) + 1) * length[:, None] - side  # of centres of pixels, from those of images
    low, weight = np.divmod(np.clip(at, unit * first, unit * last), unit)
    along = (slice(None), None, slice(None), None) if axis == 2 else (slice(None), None, None, slice(None))
    of_low, of_high = (
        np.take_along_axis(images, index[along], axis).astype(np.int64) for index in (low, np.minimum(low + 1, last))
    )
    mixed = of_low * (unit - weight[along]) + of_high * weight[along]
    return ((mixed + side) // unit).astype(np.uint8)


def _spans(
    drawn: np.random.Generator, side: int, smallest: float, number: int
) -> tuple[Int64[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Starts and lengths of spans of at least a share of a side."""
    length = drawn.integers(int(np.ceil(smallest * side * (1 - 1e-9))), side + 1, number)
    return drawn.integers(0, side - length + 1), length


def _parts(images: Any, number: int) -> Iterator[slice]:
    """Of so many images, few at a time."""
    step = max(1, AT_ONCE // max(1, math.prod(images.shape[1:])))
    yield from (slice(start, start + step) for start in range(0, number, step))


def streamed(name: str, dataset: str) -> UserError:
    """Of a nuisance that makes images, and a dataset that does not hold them."""
    return UserError(
        f"dataset.nuisance={name} makes images, which is not done for those that are streamed. Keep {dataset} decoded "
        "(dataset.storage=resident), or choose dataset.nuisance=long_tail."
    )


def private(images: Pixels) -> Pixels:
    """The same images, to be written to: of a file that is mapped, only what is changed takes memory."""
    if isinstance(images, np.memmap) and isinstance(images.base, mmap.mmap) and images.filename is not None:
        return np.memmap(images.filename, images.dtype, "c", images.offset, images.shape)
    return images.copy()
