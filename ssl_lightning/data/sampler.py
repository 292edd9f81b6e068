"""Which positions each batch holds, and the seeds of all that is drawn."""

import hashlib

import torch
from jaxtyping import Int
from torch import Tensor


def seed_of(purpose: str, *numbers: int) -> int:
    """One well-mixed 63-bit seed from what it is for and several numbers, such as (seed, batch, rank)."""
    text = " ".join((purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class BatchSampler:
    """Which positions each batch holds: a pure function of (seed, batch number, rank).

    The order is new every epoch; an epoch's last incomplete optimizer step is dropped. As nothing is remembered
    between batches, a training that resumes at batch b goes on with exactly the samples that it would have seen.

    Args:
        positions: what to train on.
        batch_size: images of an optimizer step of all ranks together, divisible by `world_size · batches_a_step`.
        seed: of the order.
        rank, world_size: each rank gets its contiguous share of a step.
        batches_a_step: batches that make an optimizer step; each is a contiguous part of the rank's share.
    """

    def __init__(
        self,
        positions: Int[Tensor, " m"],
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        batches_a_step: int = 1,
    ) -> None:
        self.positions = positions
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.batches_a_step = batches_a_step
        self._epoch: int | None = None

    def __len__(self) -> int:
        """Batches of an epoch."""
        return len(self.positions) // self.batch_size * self.batches_a_step

    def batch(self, number: int) -> Int[Tensor, " share"]:
        """Positions of this rank in the batch of this number, from 0; where the positions are."""
        epoch, within = divmod(number, len(self))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            self._order = self.positions[torch.randperm(len(self.positions), generator=generator)]
            self._epoch = epoch
        step, part = divmod(within, self.batches_a_step)
        share = self.batch_size // self.world_size
        size = share // self.batches_a_step
        start = step * self.batch_size + self.rank * share + part * size
        return self._order[start : start + size]
