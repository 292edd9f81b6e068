"""Whole batches from a resident store: one index-select, no worker processes, no per-sample Python."""

import hashlib
from collections.abc import Callable, Iterator
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.datasets import Split


def seed_of(purpose: Literal["order", "views", "step"], *numbers: int) -> int:
    """One well-mixed 63-bit seed from what it is for and several numbers, such as (seed, step, rank)."""
    text = " ".join((purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def normalise(
    images: UInt8[Tensor, "n c h w"], mean: Float[Tensor, " c"], std: Float[Tensor, " c"]
) -> Float[Tensor, "n c h w"]:
    """uint8 images as float32 with the dataset's statistics (of values in [0, 1]) taken out."""
    scale, shift = 1 / (255 * std), mean / std
    return torch.addcmul(-shift[:, None, None], images.to(std.dtype), scale[:, None, None])


class ResidentLoader:
    """Batches of the masked positions, as a pure function of (seed, optimizer step, rank).

    The order is new every epoch; an epoch's last incomplete batch is dropped. As nothing is remembered between
    batches, a training that resumes at step s goes on with exactly the samples that it would have seen.

    Args:
        split: all images; `Batch.index` refers to it. Batches come from the device on which it lies.
        positions: which of them to train on.
        batch_size: images a step of all ranks together, divisible by `world_size`.
        seed: of the order.
        step: the number of optimizer steps made so far.
        rank, world_size: each rank gets its contiguous share of a batch.
    """

    def __init__(
        self,
        split: Split,
        positions: Int[Tensor, " m"],
        batch_size: int,
        seed: int,
        step: Callable[[], int],
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split = split
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.step = step
        self.rank = rank
        self.world_size = world_size
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self.positions) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(len(self)):
            yield self.batch(self.step())

    def batch(self, step: int) -> Batch:
        """This rank's share of the batch of the 0-based optimizer step."""
        epoch, position = divmod(step, len(self))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            order = self.positions[torch.randperm(len(self.positions), generator=generator)]
            self._epoch, self._order = epoch, order.to(self.split.images.device)
        share = self.batch_size // self.world_size
        start = position * self.batch_size + self.rank * share
        index = self._order[start : start + share]
        return Batch(self.split.images[index], self.split.labels[index], index)

    def state_dict(self) -> dict[str, int]:
        """Tells Lightning that this loader can resume. There is nothing to store: see the class."""
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing was stored."""
