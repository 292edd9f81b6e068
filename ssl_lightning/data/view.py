"""What a random view of an image is drawn from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Le

from ssl_lightning.ranges import Count, NonNegative, Part, Share

# Operators that act with a probability, in their order.
CHANCES = ("flip", "jitter", "grey", "blur", "solarise")


@dataclass(frozen=True, kw_only=True)
class View:
    """Distribution of one view's augmentation; every parameter is drawn per image.

    The operators are those of SimCLR (arXiv 2002.05709, appendix A) and, with solarisation, BYOL (arXiv
    2006.07733, appendix B). They act in the order of the fields; the four of the jitter in an order that is
    drawn once per view and batch.

    Args:
        copies: how many views of this kind; a symmetric pair is `copies=2`.
        size: side in pixels, or as a share of that of the dataset's images; None: that of these images. Views that
            are smaller than others are the local ones of multi-crop.
        crop_scale: share of the image's area, uniform; as in torchvision's `RandomResizedCrop`.
        crop_ratio: width over height of the crop, log-uniform.
        flip_probability: of a horizontal flip.
        flip_alternates: in training, each image is mirrored in every other epoch instead, at a probability of 0.5
            (`data.alternation`).
        rotation_degrees: the crop window turns about its centre by an angle uniform in ± this.
        jitter_probability: of brightness, contrast, saturation and hue together.
        brightness: strength s; the factor is uniform in [max(0, 1 − s), 1 + s].
        contrast: likewise.
        saturation: likewise.
        hue: strength in [0, 0.5]; the shift is uniform in ± this share of the colour circle.
        grey_probability: of losing colour.
        blur_probability: of a Gaussian blur.
        blur_kernel: odd number of pixels.
        blur_sigma: standard deviation in pixels, uniform.
        solarise_probability: of inverting the values from the threshold on.
        solarise_threshold: in [0, 1].

    Raises:
        ValueError: a field is outside its range; the message names both.
    """

    copies: Count = 1
    size: Count | Part | None = None
    crop_scale: Sequence[float] = (1.0, 1.0)
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip_probability: Share = 0.0
    flip_alternates: bool = False
    rotation_degrees: Annotated[float, Ge(0), Le(180)] = 0.0
    jitter_probability: Share = 0.0
    brightness: NonNegative = 0.0
    contrast: NonNegative = 0.0
    saturation: NonNegative = 0.0
    hue: Annotated[float, Ge(0), Le(0.5)] = 0.0
    grey_probability: Share = 0.0
    blur_probability: Share = 0.0
    blur_kernel: Count = 3
    blur_sigma: Sequence[float] = (0.1, 2.0)
    solarise_probability: Share = 0.0
    solarise_threshold: Share = 0.5

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"copies is {self.copies}; pass an integer of at least 1.")
        if self.size is not None and not (self.size >= 1 if isinstance(self.size, int) else 0 < self.size < 1):
            raise ValueError(
                f"size is {self.size}; pass an integer of at least 1, a share of the images' side, or None for it."
            )
        for name in CHANCES:
            self._check_number(f"{name}_probability", 0.0, 1.0)
        if self.flip_alternates and self.flip_probability != 0.5:
            raise ValueError(
                f"flip_alternates is true, which mirrors an image in every other epoch, but flip_probability is "
                f"{self.flip_probability}; set it to 0.5."
            )
        self._check_number("rotation_degrees", 0.0, 180.0)
        for name in ("brightness", "contrast", "saturation"):
            self._check_number(name, 0.0, math.inf)
        self._check_number("hue", 0.0, 0.5)
        self._check_number("solarise_threshold", 0.0, 1.0)
        self._check_interval("crop_scale", 1.0)
        self._check_interval("crop_ratio", math.inf)
        self._check_interval("blur_sigma", math.inf)
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0:
            raise ValueError(f"blur_kernel is {self.blur_kernel}; pass an odd integer of at least 1.")

    def side(self, images: int) -> int:
        """In pixels, where that of the images is given."""
        if self.size is None:
            return images
        return self.size if isinstance(self.size, int) else max(1, round(self.size * images))

    def _check_number(self, name: str, low: float, high: float) -> None:
        value = getattr(self, name)
        if not low <= value <= high or math.isinf(value):
            legal = f"in [{low:g}, {high:g}]" if math.isfinite(high) else f"of at least {low:g}"
            raise ValueError(f"{name} is {value}; pass a number {legal}.")

    def _check_interval(self, name: str, high: float) -> None:
        value = tuple(getattr(self, name))
        if len(value) != 2 or not 0 < value[0] <= value[1] <= high or math.isinf(value[1]):
            legal = f"0 < low <= high <= {high:g}" if math.isfinite(high) else "0 < low <= high"
            raise ValueError(f"{name} is {list(value)}; pass two numbers [low, high] with {legal}.")
