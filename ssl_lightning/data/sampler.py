"""Which positions each batch holds, and the seeds of all that is drawn."""

import hashlib
from typing import Literal

import torch
from jaxtyping import Int
from torch import Tensor


def seed_of(purpose: Literal["order", "views", "crops", "step"], *numbers: int) -> int:
    """One well-mixed 63-bit seed from what it is for and several numbers, such as (seed, step, rank)."""
    text = " ".join((purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class BatchSampler:
    """Which positions each step sees: a pure function of (seed, optimizer step, rank).

    The order is new every epoch; an epoch's last incomplete batch is dropped. As nothing is remembered between
    batches, a training that resumes at step s goes on with exactly the samples that it would have seen.

    Args:
        positions: what to train on.
        batch_size: images a step of all ranks together, divisible by `world_size`.
        seed: of the order.
        rank, world_size: each rank gets its contiguous share of a batch.
    """

    def __init__(
        self, positions: Int[Tensor, " m"], batch_size: int, seed: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self._epoch: int | None = None

    def __len__(self) -> int:
        """Steps of an epoch."""
        return len(self.positions) // self.batch_size

    def share(self, step: int) -> Int[Tensor, " share"]:
        """Of this rank in the batch of the 0-based optimizer step; where the positions are."""
        epoch, position = divmod(step, len(self))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            self._order = self.positions[torch.randperm(len(self.positions), generator=generator)]
            self._epoch = epoch
        share = self.batch_size // self.world_size
        start = position * self.batch_size + self.rank * share
        return self._order[start : start + share]
