"""What JPEG loses, on whole batches and any device: neither Huffman codes nor files."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Steps of quantisation at quality 50, from low to high frequencies: ITU-T T.81, table K.1."""
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
"""Likewise, table K.2."""
# JFIF 1.02, for values from 0 to 255; 128 is added to both differences of colour.
TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
TO_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def jpeg(x: Float[Tensor, "n c h w"], quality: int) -> Float[Tensor, "n c h w"]:
    """The images as they come back from a JPEG file of Pillow's, in steps of 1/255.

    Three channels are RGB, whose differences of colour are kept at half the side (4:2:0) and interpolated linearly;
    each of any other number of channels is a grey image. libjpeg reckons in whole numbers: on average its values are
    within 0.75 of 255 of these, where JPEG changes ten times as much, and black, white and greys are the same.

    Args:
        x: values in [0, 1], rounded to 8 bits.
        quality: 1 to 100, as libjpeg scales its tables.
    """
    x = x.mul(255).round_()
    height, width = x.shape[2:]
    luminance, chrominance = (steps(table, quality, x.device) for table in (LUMINANCE, CHROMINANCE))
    if x.shape[1] != 3:
        return coded(x, luminance).div_(255)
    offset = torch.tensor([0.0, 128.0, 128.0], device=x.device).view(3, 1, 1)
    ycc = (_mixed(x, TO_YCC) + offset).round_()
    colour = coded(_halved(ycc[:, 1:]), chrominance)[..., : (height + 1) // 2, : (width + 1) // 2]
    colour = _rounded(interpolate(colour, scale_factor=2, mode="bilinear")[..., :height, :width])
    ycc = torch.cat([coded(ycc[:, :1], luminance), colour], 1) - offset
    return _mixed(ycc, TO_RGB).round_().clamp_(0, 255).div_(255)


def steps(table: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Float[Tensor, "8 8"]:
    """Of this quality, whole numbers from 1 to 255."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return ((torch.tensor(table, device=device) * scale + 50) // 100).clamp(1, 255).float()


def coded(planes: Float[Tensor, "n c h w"], table: Float[Tensor, "8 8"]) -> Float[Tensor, "n c h w"]:
    """Whole numbers from 0 to 255 after the quantisation of the cosine transform of each 8×8 block; borders are
    repeated to whole blocks."""
    height, width = planes.shape[2:]
    filled = pad(planes, (0, -width % 8, 0, -height % 8), mode="replicate") - 128
    blocks = filled.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4)
    cosines = _cosines(planes.device)
    coefficients = (cosines @ blocks @ cosines.T) / table
    whole = _rounded(coefficients.abs()).copysign_(coefficients)
    values = (cosines.T @ (whole * table) @ cosines).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    return _rounded(values[..., :height, :width] + 128).clamp_(0, 255)


def _halved(planes: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c _h _w"]:
    """Means of 2×2, rounded down and up in turn, as libjpeg does; its blocks go on beyond the right edge at full
    side, and below the last row at half."""
    height, width = planes.shape[2:]
    means = avg_pool2d(pad(planes, (0, -width % 16, 0, height % 2), mode="replicate"), 2)
    return means.add_(torch.tensor([0.25, 0.5], device=planes.device).repeat(means.shape[3] // 2)).floor_()


def _cosines(device: torch.device) -> Float[Tensor, "8 8"]:
    """The orthonormal transform (DCT-II): a row is a frequency."""
    at = torch.arange(8, device=device, dtype=torch.float32)
    waves = torch.cos(math.pi / 8 * at[:, None] * (at + 0.5)) / 2
    waves[0] /= math.sqrt(2)
    return waves


def _rounded(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Halves go up, as libjpeg's, also those that floats have missed by a little: flat areas have many."""
    return x.add(0.5 + 1e-4).floor_()


def _mixed(x: Float[Tensor, "n 3 h w"], matrix: tuple[tuple[float, ...], ...]) -> Float[Tensor, "n 3 h w"]:
    return torch.einsum("kc,nchw->nkhw", torch.tensor(matrix, device=x.device), x)
