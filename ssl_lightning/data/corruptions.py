"""Corruptions of whole batches, on any device, at five severities (Hendrycks and Dietterich 2019, arXiv 1903.12261).

Strengths are those of CIFAR-10-C, for images of 32 pixels; lengths grow with the side. Brightness and contrast act on
each channel by itself, so that images of any number of channels can be corrupted. Shot noise is the normal
approximation of Poisson's. Random ones take their numbers from the caller: the same images are corrupted alike for
every encoder, on every device.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d, interpolate, pad

from ssl_lightning.data.jpeg import jpeg

Severity = Literal[1, 2, 3, 4, 5]
Kind = Literal["gaussian_noise", "shot_noise", "impulse_noise", "blur", "brightness", "contrast", "pixelation", "jpeg"]
Images = Float[Tensor, "n c h w"]

STRENGTHS: dict[Kind, tuple[float, float, float, float, float]] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation
    "shot_noise": (500, 250, 100, 75, 50),  # photons of white
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),  # share of black and white values
    "blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation, pixels of a side of 32
    "brightness": (0.05, 0.10, 0.15, 0.20, 0.30),  # added
    "contrast": (0.75, 0.50, 0.40, 0.30, 0.15),  # share of the distance from the mean that is left
    "pixelation": (0.95, 0.90, 0.85, 0.75, 0.65),  # share of the side that is left
    "jpeg": (80, 65, 58, 50, 40),  # quality
}
"""By severity, mildest first."""
NOISY: tuple[Kind, ...] = ("gaussian_noise", "shot_noise", "impulse_noise")
"""Kinds that need random numbers: standard normal, but uniform in [0, 1) for `impulse_noise`."""
SIDE = 32


def corrupt(images: Images, kind: Kind, severity: Severity, numbers: Images | None = None) -> Images:
    """Images in [0, 1], corrupted, in [0, 1].

    Args:
        numbers: random ones of the images' shape, for the kinds in `NOISY`.
    """
    strength = STRENGTHS[kind][severity - 1]
    if kind in NOISY:
        assert numbers is not None
        return _WITH_NUMBERS[kind](images, strength, numbers).clamp(0, 1)
    return _PLAIN[kind](images, strength).clamp(0, 1)


def _gaussian_noise(images: Images, deviation: float, normal: Images) -> Images:
    return images + deviation * normal


def _shot_noise(images: Images, photons: float, normal: Images) -> Images:
    return images + (images / photons).sqrt() * normal


def _impulse_noise(images: Images, share: float, uniform: Images) -> Images:
    """Half of the values white, half black."""
    images = torch.where(uniform < share / 2, torch.zeros_like(images), images)
    return torch.where(uniform >= 1 - share / 2, torch.ones_like(images), images)


def _blur(images: Images, sigma: float) -> Images:
    """Gaussian, cut off at four deviations, with the image mirrored at its edges (`d c b | a b c d | c b a`)."""
    side = images.shape[-1]
    sigma = sigma * side / SIDE
    radius = min(math.ceil(4 * sigma), side - 1, images.shape[-2] - 1)
    at = torch.arange(-radius, radius + 1, dtype=images.dtype, device=images.device)
    weights = (-(at**2) / (2 * sigma**2)).exp()
    weights = weights / weights.sum()
    rows = pad(images.flatten(0, 1)[:, None], [radius] * 4, mode="reflect")
    blurred = conv2d(conv2d(rows, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))
    return blurred[:, 0].unflatten(0, images.shape[:2])


def _brightness(images: Images, added: float) -> Images:
    return images + added


def _contrast(images: Images, share: float) -> Images:
    mean = images.mean((2, 3), keepdim=True)
    return (images - mean) * share + mean


def _pixelation(images: Images, share: float) -> Images:
    """Averages over a coarser grid, shown as squares."""
    height, width = images.shape[2:]
    coarse = adaptive_avg_pool2d(images, (max(1, round(share * height)), max(1, round(share * width))))
    return interpolate(coarse, (height, width), mode="nearest-exact")


_PLAIN: dict[Kind, Callable[[Images, float], Images]] = {
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "pixelation": _pixelation,
    "jpeg": jpeg,
}
_WITH_NUMBERS: dict[Kind, Callable[[Images, float, Images], Images]] = {
    "gaussian_noise": _gaussian_noise,
    "shot_noise": _shot_noise,
    "impulse_noise": _impulse_noise,
}
