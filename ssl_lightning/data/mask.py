"""Which images of a dataset pretraining sees."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.dataset import Fingerprint


@dataclass(frozen=True, eq=False)
class Mask:
    """The positions of a dataset's train split that pretraining sees.

    Args:
        positions: ascending, of a dataset of `length`.
        rule: name of what has chosen them.
        fraction: share of the split that was asked for, in (0, 1].
        length: of the split.
        fingerprint: of the split, where it is known.
    """

    positions: Int64[np.ndarray, " m"]
    rule: str
    fraction: float
    length: int
    fingerprint: Fingerprint | None = None

    @classmethod
    def full(cls, length: int) -> "Mask":
        """All positions."""
        return cls(np.arange(length), "full", 1.0, length)

    @property
    def size(self) -> int:
        return len(self.positions)

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.positions.astype("<i8").tobytes()).hexdigest()[:16]
