"""Where crops are cut, and how they are resampled."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

CROP_TRIES = 10


def crop_windows(
    scale: Sequence[float],
    ratio: Sequence[float],
    height: Int[Tensor, "n"],
    width: Int[Tensor, "n"],
    generator: torch.Generator,
) -> Float[Tensor, "4 n"]:
    """Top, left, height and width of a random window in each of n images, whole numbers of pixels.

    The distribution of torchvision's `RandomResizedCrop`: up to ten draws of area and ratio until a window
    lies within the image, else the largest central window whose ratio is legal.

    Args:
        scale: share of the image's area, lowest and highest.
        ratio: width over height of the window, lowest and highest.
        height, width: of the images.
    """
    n = len(height)
    u = torch.rand(4, CROP_TRIES, n, dtype=torch.float64, generator=generator)
    low, high = scale
    area = height * width * (low + (high - low) * u[0])
    narrow, wide = ratio
    aspect = (math.log(narrow) + (math.log(wide) - math.log(narrow)) * u[1]).exp()
    crop_width, crop_height = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
    legal = (crop_width > 0) & (crop_width <= width) & (crop_height > 0) & (crop_height <= height)
    top = (u[2] * (height - crop_height + 1)).floor()
    left = (u[3] * (width - crop_width + 1)).floor()
    first = legal.to(torch.uint8).argmax(0, keepdim=True)
    windows = torch.stack((top, left, crop_height, crop_width))[:, first[0], torch.arange(n)]

    height, width = height.double(), width.double()
    fallback_height = torch.where(width / height < narrow, (width / narrow).round(), height)
    fallback_width = torch.where(width / height > wide, (height * wide).round(), width)
    central = ((height - fallback_height) / 2).floor(), ((width - fallback_width) / 2).floor()
    fallback = torch.stack((*central, fallback_height, fallback_width))
    return torch.where(legal.any(0), windows, fallback).float()


def resample(
    images: Float[Tensor, "n c h w"],
    top: Float[Tensor, "n"],
    left: Float[Tensor, "n"],
    height: Float[Tensor, "n"],
    width: Float[Tensor, "n"],
    flip: Bool[Tensor, "n"],
    angle: Float[Tensor, "n"] | None,
    size: int,
) -> Float[Tensor, "n c s s"]:
    """Crop, rotation, flip and resizing to [size, size] by one bilinear interpolation.

    Where the angle is 0, this is torchvision's `resized_crop(..., BILINEAR, antialias=False)`: pixels outside
    the window do not contribute. Else the window turns about its centre within the image, which is surrounded
    by zeros, in the sense of torchvision's `rotate` (counter-clockwise as one sees it). The flip comes last.

    Args:
        images: any real values.
        top, left, height, width: windows in whole pixels, within the image.
        flip: which images to mirror horizontally.
        angle: degrees; None if nothing turns.
        size: side of the result in pixels.
    """
    image_height, image_width = images.shape[2:]
    # Centres of the target's pixels relative to the centre of the window, in its own shares: within ±1/2.
    step = (torch.arange(size, dtype=images.dtype, device=images.device) + (0.5 - size / 2)) / size
    mirrored = torch.where(flip, -width, width)
    x = (step * mirrored[:, None]).view(-1, 1, size)
    y = (step * height[:, None]).view(-1, size, 1)
    lowest_x, lowest_y = left.view(-1, 1, 1), top.view(-1, 1, 1)
    highest_x, highest_y = (left + width - 1).view(-1, 1, 1), (top + height - 1).view(-1, 1, 1)
    centre_x, centre_y = (lowest_x + highest_x) / 2, (lowest_y + highest_y) / 2
    if angle is not None:
        radians = torch.deg2rad(angle).view(-1, 1, 1)
        cos, sin = radians.cos(), radians.sin()
        x, y = cos * x - sin * y, sin * x + cos * y
        turned = radians != 0
        lowest_x, lowest_y = (low.masked_fill(turned, -math.inf) for low in (lowest_x, lowest_y))
        highest_x, highest_y = (high.masked_fill(turned, math.inf) for high in (highest_x, highest_y))
    x = (x + centre_x).clamp_(lowest_x, highest_x)
    y = (y + centre_y).clamp_(lowest_y, highest_y)
    # grid_sample counts from -1 to 1 between the outer edges of the image.
    x = x.add_(0.5).mul_(2 / image_width).sub_(1).expand(-1, size, size)
    y = y.add_(0.5).mul_(2 / image_height).sub_(1).expand(-1, size, size)
    grid = torch.stack((x, y), dim=1).permute(0, 2, 3, 1)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
