"""Photometric operators on batches of images in [0, 1], with one parameter per image.

Each function equals the operator of the same name in `torchvision.transforms.v2.functional`, applied image by
image, up to rounding. They return new tensors, never synchronise with the host, and avoid boolean tensors,
which the CPU does not process in vectors. The factors broadcast as `[N, 1, 1, 1]`.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

# ITU-R 601-2 luma, with the digits that torchvision uses.
LUMA = (0.2989, 0.587, 0.114)


def _per_image(factor: Float[Tensor, "n"]) -> Float[Tensor, "n 1 1 1"]:
    return factor.view(-1, 1, 1, 1)


def _luma(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    red, green, blue = x.split(1, dim=1)
    return red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])


def adjust_brightness(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """factor·x, clamped to [0, 1]; factor ≥ 0, where 1 is the identity (`adjust_brightness`)."""
    return x.mul(_per_image(factor)).clamp_(0, 1)


def adjust_contrast(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """factor·x + (1 − factor)·m, clamped to [0, 1], m the mean of the grey image (`adjust_contrast`)."""
    means = x.mean((2, 3))
    # The mean of the grey image is the grey value of the mean colour: no grey image is needed.
    mean = means[:, 0] if x.shape[1] == 1 else _luma(means[:, :, None, None]).flatten()
    return x.mul(_per_image(factor)).add_(_per_image(mean * (1 - factor))).clamp_(0, 1)


def adjust_saturation(x: Float[Tensor, "n c h w"], factor: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """factor·x + (1 − factor)·grey(x), clamped to [0, 1] (`adjust_saturation`).

    Images of one channel are returned unchanged.
    """
    if x.shape[1] == 1:
        return x
    return torch.lerp(_luma(x), x, _per_image(factor)).clamp_(0, 1)


def adjust_hue(x: Float[Tensor, "n c h w"], shift: Float[Tensor, "n"]) -> Float[Tensor, "n c h w"]:
    """Turns the hue of HSV by `shift` ∈ [−0.5, 0.5] of a full circle (`adjust_hue`).

    A turn of the hue keeps maximum M and minimum m of (r, g, b), thus the chroma C = M − m. In sixths of the
    circle, the distance of the hue from red is 1 + (g + b − r − m)/C, on the side of green if g ≥ b; and a
    channel whose own hue lies d sixths from the new one takes the value m + C·clamp(2 − d, 0, 1). This needs
    neither the six cases of the usual conversions nor saturation and value.

    Images of one channel are returned unchanged.
    """
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    smallest = torch.minimum(red, green)
    chroma = torch.maximum(red, green)
    chroma = torch.maximum(chroma, blue, out=chroma)
    smallest = torch.minimum(smallest, blue, out=smallest)
    chroma.sub_(smallest)
    hue = (green + blue).sub_(red).sub_(smallest)
    # A grey pixel has no hue: 0/tiny = 0, and its chroma of 0 makes every hue right.
    hue.div_(chroma.clamp(min=torch.finfo(x.dtype).tiny)).add_(1).div_(6)
    hue.copysign_(green - blue).add_(_per_image(shift))
    centres = torch.arange(3, dtype=x.dtype, device=x.device).div_(3).view(1, 3, 1, 1)  # of r, g and b
    distance = hue - centres
    distance.sub_(distance.round()).abs_()
    return distance.mul_(-6).add_(2).clamp_(0, 1).mul_(chroma).add_(smallest)


def grey(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Luma in all channels (`rgb_to_grayscale` with as many channels as before)."""
    return x if x.shape[1] == 1 else _luma(x).repeat(1, 3, 1, 1)


def blur(x: Float[Tensor, "n c h w"], sigma: Float[Tensor, "n"], kernel: int) -> Float[Tensor, "n c h w"]:
    """Gaussian blur with reflected borders (`gaussian_blur`).

    Args:
        x: images, each side longer than kernel // 2 (what reflection requires).
        sigma: width as torchvision understands it: it samples the Gaussian at `kernel` points that span
            ±(kernel − 1)/(2√2) and weights them by exp(−(t/σ)²), so σ is the standard deviation in pixels.
        kernel: odd number of taps.
    """
    n, c, h, w = x.shape
    radius = kernel // 2
    taps = torch.linspace(-radius, radius, kernel, dtype=x.dtype, device=x.device) / math.sqrt(2)
    weights = torch.softmax(-(taps / sigma[:, None]).square(), dim=1).repeat_interleave(c, dim=0)
    # One group per image and channel: every image has its own kernel.
    rows = F.pad(x, (radius,) * 4, mode="reflect").view(1, n * c, h + 2 * radius, w + 2 * radius)
    columns = F.conv2d(rows, weights[:, None, :, None], groups=n * c)
    return F.conv2d(columns, weights[:, None, None, :], groups=n * c).view(n, c, h, w)


def solarise(x: Float[Tensor, "n c h w"], threshold: float) -> Float[Tensor, "n c h w"]:
    """1 − x where x ≥ threshold, x elsewhere (`solarize`)."""
    bright = x.clone().ge_(threshold)
    return torch.lerp(x, 1 - x, bright)  # exact for weights 0 and 1
