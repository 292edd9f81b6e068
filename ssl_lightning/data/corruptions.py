"""Common corruptions of whole batches at five severities, on any device, after Hendrycks & Dietterich 2019 (arXiv
1903.12261).

Strengths are those of their CIFAR-10-C, for 32×32 images. In larger images, lengths grow with the shorter side: a
blur's width, and by how much a cell of `pixelate` exceeds a pixel. In smaller ones they do not shrink: much less than a
pixel would change nothing. Random numbers come from a CPU generator, image after image: neither the device nor the size
of batches changes what is drawn.
"""

from collections.abc import Callable, Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_lightning.data.jpeg import jpeg

Kind = Literal[
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "gaussian_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES = (1, 2, 3, 4, 5)
STRENGTHS: Mapping[Kind, tuple[float, float, float, float, float]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
}
"""Of severities 1 to 5, from the authors' `make_cifar_c.py`. The operators below say what they are of."""


def corrupt(
    images: UInt8[Tensor, "n c h w"] | Float[Tensor, "n c h w"], kind: Kind, severity: int, generator: torch.Generator
) -> Float[Tensor, "n c h w"]:
    """Corrupted images in [0, 1], on their device, not rounded to 8 bits (but for `jpeg_compression`).

    Args:
        images: uint8, or floats in [0, 1], of any size and number of channels; left as they are.
        severity: 1 to 5.
        generator: on the CPU; the noises alone draw from it.

    Raises:
        ValueError: there is no such severity.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity is {severity}; pass one from 1 to 5.")
    x = images if images.is_floating_point() else images.float() / 255
    return _OPERATORS[kind](x, STRENGTHS[kind][severity - 1], generator)


def gaussian_noise(x: Float[Tensor, "n c h w"], std: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """Plus normal noise of this deviation."""
    noise = torch.stack([torch.randn(image.shape, generator=generator) for image in x])
    return (x + std * noise.to(x.device)).clamp_(0, 1)


def shot_noise(x: Float[Tensor, "n c h w"], photons: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """As many photons as a Poisson distribution gives, where white has `photons` on average."""
    counts = torch.poisson(x.cpu().contiguous() * photons, generator)
    return (counts.to(x.device) / photons).clamp_(0, 1)


def impulse_noise(x: Float[Tensor, "n c h w"], share: float, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
    """This share of all values is replaced, half of it by 0 and half by 1."""
    chance = torch.stack([torch.rand(image.shape, generator=generator) for image in x]).to(x.device)
    return x.masked_fill(chance < share / 2, 0).masked_fill_(chance >= 1 - share / 2, 1)


def gaussian_blur(x: Float[Tensor, "n c h w"], sigma: float) -> Float[Tensor, "n c h w"]:
    """Blur of a standard deviation of `sigma` pixels of 32; beyond the border lies its nearest pixel."""
    rows, columns = (_blurring(side, sigma * _scale(x), x) for side in x.shape[2:])
    return (rows @ x @ columns.T).clamp_(0, 1)


def brightness(x: Float[Tensor, "n c h w"], by: float) -> Float[Tensor, "n c h w"]:
    """The largest of a pixel's channels becomes larger by `by`, or 1, and the others with it in proportion: V of HSV.
    Black becomes grey."""
    largest = x.amax(1, keepdim=True)
    brighter = (largest + by).clamp_(max=1)
    return torch.where(largest > 0, x / largest.clamp(min=torch.finfo(x.dtype).tiny) * brighter, brighter)


def contrast(x: Float[Tensor, "n c h w"], factor: float) -> Float[Tensor, "n c h w"]:
    """The differences from each channel's mean in the image, times `factor`."""
    return torch.lerp(x.mean((2, 3), keepdim=True), x, factor).clamp_(0, 1)


def pixelate(x: Float[Tensor, "n c h w"], share: float) -> Float[Tensor, "n c h w"]:
    """Resized and back, by Pillow's BOX filter, to `share` of the side of an image of 32 pixels: to cells of 1/share
    pixels, and of 1 + (1/share − 1)·side/32 in larger images."""
    cell = 1 + (1 / share - 1) * _scale(x)
    rows, columns = (_in_cells(side, cell, x) for side in x.shape[2:])
    return (rows @ x @ columns.T).clamp_(0, 1)


_OPERATORS: Mapping[Kind, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "gaussian_blur": lambda x, sigma, _: gaussian_blur(x, sigma),
    "brightness": lambda x, by, _: brightness(x, by),
    "contrast": lambda x, factor, _: contrast(x, factor),
    "pixelate": lambda x, share, _: pixelate(x, share),
    "jpeg_compression": lambda x, quality, _: jpeg(x, int(quality)),
}


def _scale(x: Float[Tensor, "n c h w"]) -> float:
    """By which lengths are longer than in an image of 32 pixels."""
    return max(1.0, min(x.shape[2:]) / 32)


def _blurring(side: int, sigma: float, like: Float[Tensor, "..."]) -> Float[Tensor, "s s"]:
    """What blurs a line of this many pixels: a Gaussian up to four deviations."""
    radius = int(4 * sigma + 0.5)
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.softmax(-(offsets / sigma).square() / 2, 0)
    sources = (torch.arange(side)[:, None] + offsets).clamp(0, side - 1)
    return torch.zeros(side, side).scatter_add_(1, sources, weights.expand(side, -1)).to(like)


def _in_cells(side: int, cell: float, like: Float[Tensor, "..."]) -> Float[Tensor, "s s"]:
    """What resizes a line of this many pixels to whole cells, at least one, and back."""
    cells = max(1, int(side / cell + 1e-9))
    return (_box(side, cells) @ _box(cells, side)).to(like)


def _box(target: int, source: int) -> Float[Tensor, "t s"]:
    """What resizes a line of pixels: the mean of those whose centres lie in a pixel of the target, or of the nearest
    where it has none."""
    scale = source / target
    centres = (torch.arange(target, dtype=torch.float64) + 0.5) * scale
    away = (torch.arange(source) + 0.5 - centres[:, None]) / max(scale, 1.0)
    within = ((away > -0.5) & (away <= 0.5)).float()
    return within / within.sum(1, keepdim=True)
