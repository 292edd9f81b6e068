"""The contract of a rule that chooses the images of each epoch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Moment:
    """When an epoch begins.

    Args:
        epoch: its number, from 0.
        begins: share of the training that is done then, in [0, 1].
        ends: what it is after this epoch if all images are seen; above 1 where training ends before.
    """

    epoch: int
    begins: float
    ends: float


class SelectionRule(ABC):
    """Chooses, before each epoch, by the last known loss of each image."""

    name: ClassVar[str]
    """What it is called by users."""

    weighs: ClassVar[bool] = False
    """Whether the losses of images that are seen may count differently."""

    @property
    @abstractmethod
    def least(self) -> float:
        """The smallest share of the images that an epoch is expected to see, in [0, 1]."""

    @abstractmethod
    def weights(
        self, losses: Float[Tensor, " m"], seen: Bool[Tensor, " m"], moment: Moment, generator: torch.Generator
    ) -> Float[Tensor, " m"]:
        """What the loss of each image counts in the next epoch; 0 leaves it out. A pure function, on the host.

        Args:
            losses: of the m images of the subset, each of when it was seen last.
            seen: which of them are known. Rules keep the others, with weight 1.
            generator: gives all random numbers.
        """


def in_order(losses: Float[Tensor, " m"], seen: Bool[Tensor, " m"]) -> Int64[Tensor, " k"]:
    """Positions of the known losses, smallest first; of equal ones, the first image first."""
    known = seen.nonzero().flatten()
    return known[losses[known].argsort(stable=True)]
