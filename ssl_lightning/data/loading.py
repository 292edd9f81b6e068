"""Batches as a pure function of their number: from a resident store, or from files that workers decode."""

import itertools
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from ssl_lightning.data.alternation import Alternation
from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.dataset import Images, Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.draw import to_device
from ssl_lightning.data.sampler import BatchSampler, Round, seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError


def normalise(
    images: UInt8[Tensor, "n c h w"], mean: Float[Tensor, " c"], std: Float[Tensor, " c"]
) -> Float[Tensor, "n c h w"]:
    """uint8 images as float32 with the dataset's statistics (of values in [0, 1]) taken out."""
    scale, shift = 1 / (255 * std), mean / std
    return torch.addcmul(-shift[:, None, None], images.to(std.dtype), scale[:, None, None])


class Loader(ABC):
    """Batches of a sampler. `number` tells which one is next: how many batches training has seen.

    `waited` is how many seconds whoever iterates has waited for batches, on the host's clock: for workers, or for a
    resident batch to be put together, or asked of the device, which is not waited for.
    """

    def __init__(self, sampler: BatchSampler, number: Callable[[], int]) -> None:
        self.sampler = sampler
        self.number = number
        self.waited = 0.0

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[Stored | Batch]:
        for _ in range(len(self)):
            asked = time.monotonic()
            batch = self.batch(self.number())
            self.waited += time.monotonic() - asked
            yield batch

    @abstractmethod
    def batch(self, number: int) -> Stored | Batch:
        """This rank's part of the batch of this number, from 0."""

    def stop(self) -> None:  # noqa: B027  by intention
        """Ends whatever works ahead; the next batch starts it again."""

    def state_dict(self) -> dict[str, int]:
        """Tells Lightning that this loader can resume. There is nothing to store: see `BatchSampler`."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:  # noqa: B027  by intention
        """Nothing was stored."""


class ResidentLoader(Loader):
    """Whole batches from a resident store: one index-select, on the device where the images are.

    Args:
        split: all images; `Stored.index` refers to it.
        pin_memory: batches of images on the host are put into page-locked memory, for copies to a GPU that nothing
            waits for.
    """

    def __init__(
        self, split: Split, sampler: BatchSampler, number: Callable[[], int], pin_memory: bool = False
    ) -> None:
        super().__init__(sampler, number)
        assert isinstance(split.images, Tensor)
        self.images, self.labels = split.images, split.labels
        self.pin_memory = pin_memory and not split.images.is_cuda

    def batch(self, number: int) -> Stored:
        index = to_device(self.sampler.batch(number), self.images.device)
        if not self.pin_memory:
            return Stored(self.images[index], self.labels[index], index)
        images = torch.empty(len(index), *self.images.shape[1:], dtype=self.images.dtype, pin_memory=True)
        torch.index_select(self.images, 0, index, out=images)
        return Stored(images, self.labels[index].pin_memory(), index.pin_memory())


class StreamedLoader(Loader):
    """Batches of crops, decoded by worker processes a few batches ahead.

    Args:
        split: of streamed images.
        augment: what crops to cut, by a generator of (seed, batch number, rank).
        alternation: which of them to mirror in views with `flip_alternates`.
        pin_memory: for copies to a GPU that nothing waits for.
        size: side of the views of a batch, by its number; by default that of the images.
    """

    def __init__(
        self,
        split: Split,
        sampler: BatchSampler,
        number: Callable[[], int],
        augment: Augment,
        pin_memory: bool = False,
        alternation: Alternation | None = None,
        size: Callable[[int], int] | None = None,
    ) -> None:
        super().__init__(sampler, number)
        self.crops = _Crops(split, sampler, augment, alternation)
        self.pin_memory = pin_memory
        self.size = size or (lambda _: self.crops.images.size)
        self._next: tuple[Round | None, int] | None = None
        self._batches: Iterator[Stored] | None = None

    def batch(self, number: int) -> Stored:
        round = self.sampler.round
        if self._batches is None or (round, number) != self._next:  # the first, or one after a jump, or of a new round
            numbers = itertools.takewhile(self.sampler.holds, itertools.count(number))
            keys = ((number, self.size(number)) for number in numbers)
            self._batches = _by_workers(self.crops, self.crops.workers, keys, self.pin_memory)
        self._next = round, number + 1
        images, label, index = next(self._batches)
        return Stored(tuple(images), label, index)  # DataLoader makes lists of tuples

    def stop(self) -> None:
        """Ends the workers; the next batch starts others."""
        self._next = self._batches = None


class _Crops:
    """`self[number, size]` is the batch of this number, its views of this size."""

    def __init__(self, split: Split, sampler: BatchSampler, augment: Augment, alternation: Alternation | None) -> None:
        assert isinstance(split.images, StreamedImages)
        self.images, self.labels, self.sampler, self.augment = split.images, split.labels, sampler, augment
        self.alternation = alternation
        self.workers = split.images.workers

    def __getitem__(self, key: tuple[int, int]) -> Stored:
        number, size = key
        index = self.sampler.batch(number)
        generator = torch.Generator().manual_seed(seed_of("crops", self.sampler.seed, number, self.sampler.rank))
        mirrored = self.alternation(number) if self.alternation else None
        return Stored(self.images.crops(index, self.augment, generator, mirrored, size), self.labels[index], index)


def in_order(images: Images, part: range | None = None, batch_size: int = 512) -> Iterator[UInt8[Tensor, "n c h w"]]:
    """Batches of the images, or of a part of them without gaps; streamed ones by workers, a few batches ahead."""
    part = range(len(images)) if part is None else part
    slices = [slice(start, min(start + batch_size, part.stop)) for start in range(part.start, part.stop, batch_size)]
    return by_positions(images, slices)


def by_positions(images: Images, batches: Iterable[slice | Int[Tensor, " _m"]]) -> Iterator[UInt8[Tensor, "_n c h w"]]:
    """Batches of the images at these positions; streamed ones by workers, a few batches ahead."""
    if isinstance(images, Tensor):
        return (images[some] for some in batches)
    return _by_workers(images, images.workers, batches)


class _Answering(Dataset[Any]):
    """`self[key]` is `source[key]`, or the UserError that it raises: workers would wrap that in their tracebacks.

    What a worker answers is put into shared memory here: the thread that would do it later loses an answer for which
    there is no room, and is waited for without end.
    """

    def __init__(self, source: Any) -> None:
        self.source = source

    def __getitem__(self, key: Any) -> Any:
        try:
            answer = self.source[key]
        except UserError as error:
            return error
        if get_worker_info() is not None:
            _share(answer)
        return answer


def _share(answer: Any) -> None:
    """All tensors, which are those that come over without a copy."""
    if isinstance(answer, Tensor):
        answer.share_memory_()
    elif isinstance(answer, tuple | list):
        for part in answer:
            _share(part)


def _by_workers(source: Any, workers: int, keys: Iterable[Any], pin_memory: bool = False) -> Iterator[Any]:
    """`source[key]` for all keys, by forked processes, which end with the iterator."""
    loader = DataLoader(
        _Answering(source),
        batch_size=None,
        sampler=keys,
        num_workers=workers,
        pin_memory=pin_memory,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )
    for answer in loader:
        if isinstance(answer, UserError):
            raise answer
        yield answer
