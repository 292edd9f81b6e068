"""Which positions each batch holds, and the seeds of all that is drawn."""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


def seed_of(purpose: str, *numbers: int) -> int:
    """One well-mixed 63-bit seed from what it is for and several numbers, such as (seed, batch, rank)."""
    text = " ".join((purpose, *map(str, numbers)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, eq=False)
class Round:
    """An epoch that sees some of the images.

    Args:
        epoch: its number, from 0.
        first: number of its first batch.
        weights: of all images of the dataset; on the host. What an image's loss counts; 0 leaves it out.
    """

    epoch: int
    first: int
    weights: Float[Tensor, " n"]


class BatchSampler:
    """Which positions each batch holds: a pure function of (seed, batch number, rank), and of the round where there is
    one.

    The order is new every epoch; an epoch's last incomplete optimizer step is dropped. As nothing is remembered
    between batches, a training that resumes at batch b goes on with exactly the samples that it would have seen.

    A round leaves images out of an epoch, and the others in their order; an epoch of all images is what it is without.

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
        self.round: Round | None = None
        self._images = len(positions)  # of an epoch
        self._epoch: int | None = None

    def begin(self, round: Round) -> None:
        """From its first batch on, batches are those of this round, of which one must have ended where the next begins.

        Raises:
            ValueError: it leaves too few images for an optimizer step.
        """
        self._images = int((round.weights[self.positions] > 0).sum())
        if self._images < self.batch_size:
            raise ValueError(f"{self._images} images are no batch of {self.batch_size}")
        self.round, self._epoch = round, None

    def __len__(self) -> int:
        """Batches of an epoch; of the present one, where epochs differ."""
        return self._images // self.batch_size * self.batches_a_step

    def holds(self, number: int) -> bool:
        """Whether it is known yet what this batch holds."""
        return self.round is None or 0 <= number - self.round.first < len(self)

    def place(self, number: int) -> tuple[int, int]:
        """Number of the epoch of this batch, and that of the batch in it, both from 0."""
        if self.round is None:
            return divmod(number, len(self))
        assert self.holds(number), (number, self.round.first, len(self))
        return self.round.epoch, number - self.round.first

    def batch(self, number: int) -> Int[Tensor, " share"]:
        """Positions of this rank in the batch of this number, from 0; where the positions are."""
        epoch, within = self.place(number)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(seed_of("order", self.seed, epoch))
            order = self.positions[torch.randperm(len(self.positions), generator=generator)]
            self._order = order if self.round is None else order[self.round.weights[order] > 0]
            self._epoch = epoch
        step, part = divmod(within, self.batches_a_step)
        share = self.batch_size // self.world_size
        size = share // self.batches_a_step
        start = step * self.batch_size + self.rank * share + part * size
        return self._order[start : start + size]
