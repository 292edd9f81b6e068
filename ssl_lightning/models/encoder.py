"""A frozen encoder with its normalisation."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn


class Encoder(nn.Module):
    """From stored images to representations; frozen, in eval mode.

    Args:
        network: normalised images [N, C, H, W] to representations [N, D].
        mean, std: the normalisation, of pixel values in [0, 1], per channel.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Representations of uint8 images, or of float images in [0, 1]."""
        values = images if images.is_floating_point() else images.to(self.mean.dtype) / 255
        return self.network((values - self.mean) / self.std)
