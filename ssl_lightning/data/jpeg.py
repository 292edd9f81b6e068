"""What JPEG does to images, on any device: colours at half the resolution, rounded cosine transforms of 8×8 blocks."""

import functools
import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

BLOCK = 8
# Quantisation tables of the standard (ITU-T T.81, annex K), for quality 50.
_LUMINANCE = (
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99),
    *(47, 66, 99, 99, 99, 99, 99, 99, *[99] * 32),
)
_YCBCR = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))  # JFIF 1.02


def jpeg(images: Float[Tensor, "n c h w"], quality: float) -> Float[Tensor, "n c h w"]:
    """Images in [0, 1] as they come back from a baseline JPEG file of this quality, 1 to 100, in steps of 1/255.

    Three channels are taken for RGB, whose colour differences are kept at half the resolution (4:2:0); of any other
    number, each channel is compressed as a grey image.
    """
    values = (images * 255).round()
    if images.shape[1] != 3:
        return _compressed(values, _table(_LUMINANCE, quality, images)).clamp(0, 255).round() / 255
    height, width = images.shape[2:]
    values = pad(values, (0, -width % (2 * BLOCK), 0, height % 2), mode="replicate")  # below, halves are repeated
    matrix = torch.tensor(_YCBCR, dtype=images.dtype, device=images.device)
    planes = torch.einsum("dc,nchw->ndhw", matrix, values)
    luma = _compressed(planes[:, :1].round(), _table(_LUMINANCE, quality, images)).clamp(0, 255).round()
    halved = avg_pool2d(planes[:, 1:], 2).round()
    chroma = _compressed(halved + 128, _table(_CHROMINANCE, quality, images)).clamp(0, 255).round() - 128
    chroma = interpolate(chroma[..., : -(-width // 2)], scale_factor=2, mode="bilinear", align_corners=False)
    whole = torch.cat([part[:, :, :height, :width] for part in (luma, chroma)], 1)
    back = torch.einsum("cd,ndhw->nchw", torch.linalg.inv(matrix), whole)
    return back.clamp(0, 255).round() / 255


def _compressed(values: Float[Tensor, "n c h w"], table: Float[Tensor, "8 8"]) -> Float[Tensor, "n c h w"]:
    """Values from 0 to 255, transformed in blocks, rounded to multiples of the table, and transformed back."""
    height, width = values.shape[2:]
    padded = pad(values, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate") - 128
    cosines = _cosines().to(values)
    blocks = padded.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK))
    transformed = torch.einsum("ui,ncaibj,vj->ncabuv", cosines, blocks, cosines)
    rounded = (transformed / table).round() * table
    restored = torch.einsum("ui,ncabuv,vj->ncaibj", cosines, rounded, cosines)
    return restored.flatten(4, 5).flatten(2, 3)[:, :, :height, :width] + 128


@functools.cache
def _cosines() -> Float[Tensor, "8 8"]:
    """The orthonormal cosine transform, a row a frequency."""
    u, i = torch.meshgrid(torch.arange(BLOCK), torch.arange(BLOCK), indexing="ij")
    rows = torch.cos((2 * i + 1) * u * math.pi / (2 * BLOCK)) * math.sqrt(2 / BLOCK)
    rows[0] /= math.sqrt(2)
    return rows


def _table(base: tuple[int, ...], quality: float, like: Tensor) -> Float[Tensor, "8 8"]:
    """A standard table at a quality, as the common encoder scales it."""
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    values = [min(255, max(1, int((value * scale + 50) // 100))) for value in base]
    return torch.tensor(values, dtype=like.dtype, device=like.device).view(BLOCK, BLOCK)
