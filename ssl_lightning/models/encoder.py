"""A frozen encoder with its normalisation."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_lightning.errors import UserError

SPARE = 0.1
"""By which resampled images may leave [0, 1]."""


class Encoder(nn.Module):
    """From stored images to representations; frozen, in eval mode.

    Args:
        network: normalised images [N, C, H, W] to representations [N, D].
        mean: of pixel values in [0, 1], per channel, with which images are normalised.
        std: likewise.
        project: representations to embeddings [N, E]; by default these are the same.
        size: side in pixels to which images are resampled, with antialias; None leaves them as they are.
        image_size: side of the images that the network was trained on, where that is known; by default `size`.
    """

    mean: Tensor
    std: Tensor
    optimizer_steps: int | None = None
    """By which a run has trained it: the same run may go on later. None of an encoder from elsewhere."""

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        project: Callable[[Tensor], Tensor] | None = None,
        size: int | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1))
        self.project = project
        self.size = size
        self.image_size = size if image_size is None else image_size
        self.requires_grad_(False).eval()

    @property
    def backbone(self) -> nn.Module:
        """The network as a plain module: normalised images [N, C, H, W] to representations [N, D]."""
        backbone = getattr(self.network, "backbone", self.network)  # of a method
        assert isinstance(backbone, nn.Module)
        return backbone

    @property
    def num_features(self) -> int:
        """D, the length of a representation: of an image of zeros, as not every network says it."""
        side = self.image_size or 32
        return self(torch.zeros(1, len(self.mean), side, side, device=self.mean.device)).shape[1]

    def forward(self, images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Representations of uint8 images, or of float images in [0, 1]. Grey images may stand for colour.

        Raises:
            UserError: they are floats of another range, with a tenth to spare for resampling; this is not asked in a
                graph that is traced or exported.
        """
        if images.is_floating_point() and not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            _check_range(images)
        return self.network(self.normalised(images))

    def normalised(self, images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"]) -> Float[Tensor, "n k s s"]:
        """What the network is given of such images."""
        values = images if images.is_floating_point() else images.to(self.mean.dtype) / 255
        if self.size is not None and images.shape[-1] != self.size:
            values = interpolate(values, (self.size, self.size), mode="bilinear", antialias=True)
        return (values - self.mean) / self.std

    def features(self, images: UInt8[Tensor, "n c h w"]) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n e"]]:
        """Representations and embeddings of images, on the encoder's device."""
        representations = self(images.to(self.mean.device))
        return representations, representations if self.project is None else self.project(representations)


def _check_range(images: Float[Tensor, "n c h w"]) -> None:
    if images.is_meta or not images.numel():
        return
    low, high = (value.item() for value in images.aminmax())
    if not (low >= -SPARE and high <= 1 + SPARE):  # nor where they are NaN
        raise UserError(
            f"The encoder was given floats from {low:.3g} to {high:.3g}, but takes them in [0, 1], or uint8: it "
            "normalises by itself. Give images as they are stored, or divide by 255."
        )
