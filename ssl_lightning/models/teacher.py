"""A copy of networks that follows them slowly."""

import copy
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Teacher(nn.Module):
    """Exponential moving average of the weights of networks that are applied one after another.

    It takes no gradient. Its batch statistics are those of its own inputs.

    Args:
        networks: to start from; the first is a backbone.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = copy.deepcopy(nn.Sequential(*networks)).requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n e"]:
        return self.networks(images)

    @torch.no_grad()
    def follow(self, networks: Sequence[nn.Module], momentum: float) -> None:
        """θ ← m θ + (1 − m) θ_student, for all weights."""
        own: list[Tensor] = list(self.networks.parameters())
        theirs: list[Tensor] = [p for network in networks for p in network.parameters()]
        torch._foreach_lerp_(own, theirs, 1 - momentum)


def growing(momentum: float, progress: float) -> float:
    """1 − (1 − m)(1 + cos πt)/2: from m at the beginning, t = 0, to 1 at the end (BYOL, arXiv 2006.07733, §3.2)."""
    return 1 - (1 - momentum) * (1 + math.cos(math.pi * progress)) / 2
