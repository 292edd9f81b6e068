"""Redundancy: which images of a group say what others of it say. They come last in a ranking."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import torch
from annotated_types import Gt, Lt
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 4096
"""Images of a group whose similarities to as many others are held at once: 64 MiB."""


class Redundancy(ABC):
    """A dataclass, so that a ranking can say how it was made. It gives a `name` and `redundant`."""

    name: ClassVar[str]

    @abstractmethod
    def redundant(self, features: Float[Tensor, "m d"]) -> Bool[np.ndarray, " m"]:
        """Which images of a group are redundant, given their mean embeddings, on any device."""


@dataclass(frozen=True, kw_only=True)
class SemDeDup(Redundancy):
    """Of near duplicates, all but the one farthest from the centroid (arXiv 2303.09540).

    The images of a group are sorted by their similarity to its centroid, the mean of their unit vectors, the farthest
    first, equals by position. An image is redundant if its cosine to one before it, redundant or not, is above 1 − ε:
    of a chain a ~ b ~ c in this order, b and c are.

    Args:
        epsilon: ε, in (0, 2); the paper's lie between 0.0009 and 0.1.
    """

    epsilon: Annotated[float, Gt(0), Lt(2)] = 0.05

    name: ClassVar[str] = "semdedup"

    def redundant(self, features: Float[Tensor, "m d"]) -> Bool[np.ndarray, " m"]:
        unit = normalize(features, eps=1e-12)
        order = torch.argsort(unit @ normalize(unit.mean(0), dim=0), stable=True)
        unit = unit[order]
        found = torch.zeros(len(unit), dtype=torch.bool, device=unit.device)
        for start in range(0, len(unit), BLOCK):
            some = unit[start : start + BLOCK]
            for before in range(0, start + 1, BLOCK):
                alike = unit[before : before + BLOCK] @ some.T > 1 - self.epsilon
                found[start : start + BLOCK] |= (alike.triu(1) if before == start else alike).any(0)
        redundant = torch.empty_like(found)
        redundant[order] = found
        return redundant.cpu().numpy()
