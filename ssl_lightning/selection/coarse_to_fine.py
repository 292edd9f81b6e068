"""Fewer and fewer images, those that the encoder finds hardest: after "Dynamic Data Selection for Efficient SSL via
Coarse-to-Fine Refinement" (Tripathi, Shenoy and Chakraborty, ECCV 2024)."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_lightning.ranges import Part, Share
from ssl_lightning.selection.rule import Moment, SelectionRule, in_order


@dataclass(frozen=True, kw_only=True)
class CoarseToFine(SelectionRule):
    """The share of images that an epoch sees falls linearly, from all to `fraction`; those with the largest losses
    stay.

    From the paper is that the subset shrinks, and is chosen anew by what the encoder does not know yet. The rest is
    this project's own: the paper chooses with a second, smaller encoder, to which the first is aligned; here the losses
    that training computes anyway tell, so that nothing is scored besides. An image that is left out keeps the loss that
    it had, and comes back when those of the others have fallen below.

    Args:
        fraction: share of the images in the end.
        until: share of the training from which on it is reached.
        keep: those with the largest losses, or the smallest.
    """

    name: ClassVar[str] = "coarse_to_fine"

    fraction: Part = 0.5
    until: Share = 0.875
    keep: Literal["hardest", "easiest"] = "hardest"

    @property
    def least(self) -> float:
        return self.fraction

    def share(self, progress: float) -> float:
        """Of the images that an epoch sees, where this share of the training is done when it begins."""
        done = min(1.0, progress / self.until) if self.until else 1.0
        return 1 - (1 - self.fraction) * done

    def weights(
        self, losses: Float[Tensor, " m"], seen: Bool[Tensor, " m"], moment: Moment, generator: torch.Generator
    ) -> Float[Tensor, " m"]:
        order = in_order(losses, seen)
        left_out = min(len(order), len(losses) - round(self.share(moment.begins) * len(losses)))
        weights = torch.ones(len(losses))
        weights[order[:left_out] if self.keep == "hardest" else order[len(order) - left_out :]] = 0.0
        return weights
