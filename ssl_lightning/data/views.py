"""Random views of whole batches: uint8 images in, normalised float views out, on any device.

All random numbers come from a CPU generator, one value per image and parameter, so which images an operator
touches is known on the host: operators with a probability run on just these images, nothing waits for the
device, and a generator state gives the same views on every device.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, Len
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ssl_lightning.data.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur,
    grey,
    solarise,
)
from ssl_lightning.data.draw import to_device
from ssl_lightning.data.geometry import crop_windows, resample
from ssl_lightning.data.sizes import by_size, views_of
from ssl_lightning.ranges import Count, NonNegative, Share

# On a CPU, images go through all operators in groups whose floats fit its cache. 2 ** 19 floats are 2 MiB.
CPU_GROUP_FLOATS = 2**19
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
        size: side in pixels; None: that of the dataset's images.
        crop_scale: share of the image's area, uniform; as in torchvision's `RandomResizedCrop`.
        crop_ratio: width over height of the crop, log-uniform.
        flip_probability: of a horizontal flip.
        rotation_degrees: the crop window turns about its centre by an angle uniform in ± this.
        jitter_probability: of brightness, contrast, saturation and hue together.
        brightness, contrast, saturation: strength s; the factor is uniform in [max(0, 1 − s), 1 + s].
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
    size: Count | None = None
    crop_scale: Sequence[float] = (1.0, 1.0)
    crop_ratio: Sequence[float] = (3 / 4, 4 / 3)
    flip_probability: Share = 0.0
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
        if self.size is not None and self.size < 1:
            raise ValueError(f"size is {self.size}; pass an integer of at least 1, or None for that of the images.")
        for name in CHANCES:
            self._check_number(f"{name}_probability", 0.0, 1.0)
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


# The jitter's operators, in the order of their rows in `Choices.parameters`.
JITTER = {
    "brightness": adjust_brightness,
    "contrast": adjust_contrast,
    "saturation": adjust_saturation,
    "hue": adjust_hue,
}


@dataclass(frozen=True)
class Choices:
    """What happens to each image of a batch in one view; all on the host.

    Rows of `parameters`: top, left, height, width, flip, angle, the four of the jitter, sigma. Of `masks`:
    who gets jitter, grey, blur, solarisation. `order` is that of the jitter.
    """

    parameters: Float[Tensor, "11 n"]
    masks: Bool[Tensor, "4 n"]
    order: list[str]


def choose(view: View, n: int, height: int, width: int, generator: torch.Generator) -> Choices:
    """All random choices of one view for n images of the given height and width."""
    windows = crop_windows(
        view.crop_scale, view.crop_ratio, torch.full((n,), height), torch.full((n,), width), generator
    )
    chances = torch.tensor([getattr(view, f"{operator}_probability") for operator in CHANCES])
    masks = torch.rand(5, n, generator=generator) < chances[:, None]
    strengths = (view.brightness, view.contrast, view.saturation)
    bounds = [
        (-view.rotation_degrees, view.rotation_degrees),
        *((max(0.0, 1 - strength), 1 + strength) for strength in strengths),
        (-view.hue, view.hue),
        tuple(view.blur_sigma),
    ]
    low, high = torch.tensor(bounds).split(1, dim=1)
    uniform = low + (high - low) * torch.rand(6, n, generator=generator)
    order = [list(JITTER)[i] for i in torch.randperm(4, generator=generator).tolist()]
    return Choices(torch.cat((windows, masks[:1], uniform)), masks[1:], order)


def _keeps_geometry(drawn: Choices, size: int, height: int, width: int) -> bool:
    """Whether no image changes before the jitter."""
    as_it_is = torch.tensor([0, 0, height, width, 0, 0], dtype=torch.float32)[:, None]
    geometry = drawn.parameters[:6]
    return size == height == width and torch.equal(geometry, as_it_is.expand_as(geometry))


def _at(index: Tensor, x: Tensor, operator: Callable[[Tensor], Tensor]) -> Tensor:
    """The operator applied to the images of the index; writes into x unless these are all."""
    if len(index) == len(x):
        return operator(x)
    return x.index_copy_(0, index, operator(x.index_select(0, index))) if len(index) else x


class Augment:
    """Turns a batch of stored images into its views.

    Args:
        views: the kinds of views; their copies follow one another in this order.

    Raises:
        ValueError: there is no view.
    """

    def __init__(self, views: Annotated[Sequence[View], Len(1)]) -> None:
        if not views:
            raise ValueError("views is empty; pass at least one View.")
        self._views = [view for view in views for _ in range(view.copies)]

    def describe(self) -> list[dict[str, Any]]:
        """The fields of each view, for provenance; those that were added later only where they are used."""
        return [
            {key: value for key, value in asdict(view).items() if key != "size" or value is not None}
            for view in self._views
        ]

    @property
    def num_views(self) -> int:
        """Sum of all copies."""
        return len(self._views)

    def colours(self) -> list[str]:
        """The settings of views that images of one or three channels have a meaning for alone."""
        return [
            name
            for name in ("contrast", "saturation", "hue", "grey_probability")
            if any(
                getattr(view, name) > 0 and (name == "grey_probability" or view.jitter_probability > 0)
                for view in self._views
            )
        ]

    def sizes(self, images: int) -> list[int]:
        """The side of each view in pixels, where that of the images is given."""
        return [view.size or images for view in self._views]

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "n c h w"],
        mean: Float[Tensor, "c"],
        std: Float[Tensor, "c"],
        generator: torch.Generator,
        size: int | None = None,
    ) -> tuple[Float[Tensor, "_v n c _s _s"], ...]:
        """Views of 1 or 3 channels, float32, each normalised to (x − mean) / std with x in [0, 1]; a tensor for each
        size, largest first.

        Args:
            images: with 1 or 3 channels, on any device; left as they are.
            mean, std: per channel, for values in [0, 1], on the device of the images.
            generator: on the CPU, whatever the device of the images.
            size: side in pixels of the views that have none of their own; by default that of the images, which must
                then be square.

        Raises:
            ValueError: the images are not square and no size is given.
        """
        height, width = images.shape[2:]
        if size is None:
            if height != width:
                raise ValueError(f"Images are {height}x{width} pixels, not square; pass the views' size.")
            size = height
        return self._make([images] * self.num_views, self.sizes(size), mean, std, generator, cut=True)

    @torch.no_grad()
    def colour(
        self,
        crops: Sequence[UInt8[Tensor, "_v n c _s _s"]],
        mean: Float[Tensor, "c"],
        std: Float[Tensor, "c"],
        generator: torch.Generator,
        size: int,
    ) -> tuple[Float[Tensor, "_v n c _s _s"], ...]:
        """All of `__call__` but the geometry, for crops that were made by `windows`, as `by_size` arranges them."""
        sizes = self.sizes(size)
        return self._make(views_of(crops, sizes), sizes, mean, std, generator, cut=False)

    def windows(
        self, height: Int[Tensor, "n"], width: Int[Tensor, "n"], generator: torch.Generator
    ) -> tuple[Float[Tensor, "v 4 n"], Bool[Tensor, "v n"]]:
        """Where to crop images of these sizes, and which crops to mirror, for whoever decodes them."""
        drawn = [
            (
                crop_windows(view.crop_scale, view.crop_ratio, height, width, generator),
                torch.rand(len(height), generator=generator),
            )
            for view in self._views
        ]
        windows, chances = zip(*drawn, strict=True)
        limits = torch.tensor([view.flip_probability for view in self._views])
        return torch.stack(windows), torch.stack(chances) < limits[:, None]

    @property
    def turns(self) -> bool:
        """Whether any view is rotated."""
        return any(view.rotation_degrees > 0 for view in self._views)

    def _make(
        self,
        images: Sequence[UInt8[Tensor, "n c _h _w"]],
        sizes: Sequence[int],
        mean: Float[Tensor, "c"],
        std: Float[Tensor, "c"],
        generator: torch.Generator,
        cut: bool,
    ) -> tuple[Float[Tensor, "_v n c _s _s"], ...]:
        """Of the images of each view."""
        n, c = images[0].shape[:2]
        device = images[0].device
        draws = [
            choose(view, n, some.shape[2], some.shape[3], generator)
            for view, some in zip(self._views, images, strict=True)
        ]
        made = by_size(sizes, lambda number, size: torch.empty(number, n, c, size, size, device=device))
        outputs = views_of(made, sizes)
        mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        pixels_of_image = max(max(size * size for size in sizes), *(some.shape[2] * some.shape[3] for some in images))
        group = max(1, CPU_GROUP_FLOATS // (c * pixels_of_image)) if device.type == "cpu" else n
        for start in range(0, n, group):
            part = slice(start, start + group)
            # Two small copies to the device for all views: the parameters, and the images of each operator.
            parameters = to_device(torch.stack([d.parameters[:, part] for d in draws]), device)
            members = [mask.nonzero().flatten() for d in draws for mask in d.masks[:, part]]
            indices = to_device(torch.cat(members), device).split([len(m) for m in members])
            pixels = images[0][part].float().div_(255)
            for k, view in enumerate(self._views):
                if not cut and k:
                    pixels = images[k][part].float().div_(255)
                x = _cut(view, draws[k], pixels, parameters[k], sizes[k]) if cut else pixels
                x = _augment(view, draws[k], x, parameters[k], indices[4 * k : 4 * k + 4])
                torch.sub(x, mean, out=outputs[k][part]).div_(std)
        return made


def _cut(
    view: View, drawn: Choices, pixels: Float[Tensor, "n c h w"], parameters: Float[Tensor, "11 n"], size: int
) -> Float[Tensor, "n c s s"]:
    """The geometry of one view, in a tensor of its own."""
    if _keeps_geometry(drawn, size, *pixels.shape[2:]):
        return pixels.clone()
    top, left, height, width, flip, angle = parameters[:6]
    return resample(pixels, top, left, height, width, flip.bool(), angle if view.rotation_degrees else None, size)


def _augment(
    view: View,
    drawn: Choices,
    x: Float[Tensor, "n c s s"],
    parameters: Float[Tensor, "11 n"],
    indices: Sequence[Tensor],
) -> Float[Tensor, "n c s s"]:
    """Colours of one view of a group of images, not yet normalised. Writes into `x`; all on its device."""
    jitter_index, grey_index, blur_index, solarise_index = indices
    *strengths, sigma = parameters[6:]
    factors = dict(zip(JITTER, strengths, strict=True))

    def jitter(some: Tensor) -> Tensor:
        for name in drawn.order:
            if getattr(view, name) > 0:
                some = JITTER[name](some, factors[name].index_select(0, jitter_index))
        return some

    x = _at(jitter_index, x, jitter)
    x = _at(grey_index, x, grey)
    x = _at(blur_index, x, lambda some: blur(some, sigma.index_select(0, blur_index), view.blur_kernel))
    return _at(solarise_index, x, lambda some: solarise(some, view.solarise_threshold))
