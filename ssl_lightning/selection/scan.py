"""SCAN (arXiv 2411.09126): more and more of the easiest and of the hardest images are left out, then all come back."""

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Le
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_lightning.ranges import Count, Number
from ssl_lightning.selection.rule import Moment, SelectionRule, in_order


@dataclass(frozen=True, kw_only=True)
class Scan(SelectionRule):
    """Candidates are the share ρ of images with the smallest losses, which say nothing new, and the share ρ with the
    largest. After `warmup` epochs, training goes in cycles of T + 1 epochs. The j-th of a cycle, from 0, leaves out

        (1 + cos(π (T − j) / T)) / 2

    of the candidates, drawn at random: none at first, all at last.

    Theirs finds candidates within each batch of the first epoch of a cycle, and keeps to them for the cycle; here they
    are those of the whole subset, by the last known losses, in every epoch. Theirs begins when the mean loss falls by
    less than 30 % from one epoch to the next; here after a number of epochs.

    Args:
        ratio: ρ, of each end.
        cycle: T.
        warmup: epochs that see all images before the first cycle.
    """

    name: ClassVar[str] = "scan"

    ratio: Annotated[float, Ge(0), Le(0.5)] = 0.35
    cycle: Count = 3
    warmup: Number = 1

    @property
    def least(self) -> float:
        return 1 - 2 * self.ratio

    def share(self, epoch: int) -> float:
        """Of the candidates that this epoch leaves out, in [0, 1]."""
        if epoch < self.warmup:
            return 0.0
        j = (epoch - self.warmup) % (self.cycle + 1)
        return (1 + math.cos(math.pi * (self.cycle - j) / self.cycle)) / 2

    def weights(
        self, losses: Float[Tensor, " m"], seen: Bool[Tensor, " m"], moment: Moment, generator: torch.Generator
    ) -> Float[Tensor, " m"]:
        order = in_order(losses, seen)
        end = int(self.ratio * len(order))
        candidates = torch.cat([order[:end], order[len(order) - end :]])
        drawn = torch.randperm(len(candidates), generator=generator)[: int(self.share(moment.epoch) * len(candidates))]
        weights = torch.ones(len(losses))
        weights[candidates[drawn]] = 0.0
        return weights
