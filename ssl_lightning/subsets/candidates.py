"""Rows of a matrix of similarities as a greedy asks for them, where not all of them fit."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

# Rows that are made at a time where not all of them fit: some of them are never used.
CANDIDATES = 256

Make = Callable[[Int64[np.ndarray, " b"], Tensor], np.ndarray]


def fits(n: int, itemsize: int, memory: float) -> bool:
    """Whether all similarities of a class of n are held at once within so many bytes."""
    return n * n * itemsize <= memory


class Candidates:
    """`rows[i]`, made together with the rows of those members that have the largest gains now.

    Args:
        make: gives the rows of some members on the host, [b, n]; it may put them into the buffer [b, n] that it is
            given too.
        gains: of all members, kept up to date by whoever asks.
        features: of the members, [n, d]; rows are of their dtype, and made on their device.
        memory: bytes for rows; where all of them fit, they are made once.
    """

    def __init__(
        self, make: Make, gains: Float[np.ndarray, " n"], features: Float[Tensor, "n d"], memory: float
    ) -> None:
        n, itemsize = len(features), features.itemsize
        self.make = make
        self.gains = gains
        self.size = n if fits(n, itemsize, memory) else max(1, min(CANDIDATES, int(memory / (n * itemsize))))
        self.place = np.full(n, -1)
        self.buffer = features.new_empty(self.size, n)  # new rows replace old ones: never both at once

    def __getitem__(self, member: np.integer) -> Float[np.ndarray, " n"]:
        self.load(member)
        return self.rows[self.place[member]]

    def load(self, member: np.integer) -> Int64[np.ndarray, " b"]:
        """Makes the row of a member if it is missing. Returns whose rows were made."""
        if self.place[member] >= 0:
            return np.empty(0, np.int64)
        index = np.argpartition(-self.gains, self.size - 1)[: self.size]
        index[0] = member if member not in index else index[0]
        self.place[:] = -1
        self.place[index] = np.arange(self.size)
        self.rows = self.make(index, self.buffer)
        return index


def cosines_of(unit: Float[Tensor, "n d"]) -> Make:
    """Makes rows of cosines of unit vectors."""

    def make(index: Int64[np.ndarray, " b"], out: Float[Tensor, "b n"]) -> Float[np.ndarray, "b n"]:
        return torch.mm(unit[torch.from_numpy(index).to(unit.device)], unit.T, out=out).cpu().numpy()

    return make
