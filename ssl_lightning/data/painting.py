"""Draws, carried out: every operator on the images that it is for.

Two ways with the same numbers. On a CPU an operator runs on a subset of the images, in groups whose floats fit the
cache. Elsewhere, and where operators are compiled, it runs on all of them and a mask says whose outcome counts: shapes
are the same in every batch.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from ssl_lightning.data.choices import JITTER, Choices
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
from ssl_lightning.data.geometry import resample
from ssl_lightning.data.view import View

GROUP_FLOATS = 2**19
"""Of a group of images on a CPU: 2 MiB."""
ADJUST = dict(zip(JITTER, (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue), strict=True))

Images = UInt8[Tensor, "n c _h _w"] | Float[Tensor, "n c _h _w"]


class Task(NamedTuple):
    """One view of a batch.

    Args:
        images: whole, or crops of its size whose geometry is done.
        output: the view, normalised.
    """

    view: View
    drawn: Choices
    images: UInt8[Tensor, "n c h w"]
    output: Float[Tensor, "n c s s"]
    cut: bool


def scaled(images: UInt8[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
    """Values in [0, 1]."""
    return images.float().div_(255)


def cut(
    pixels: Float[Tensor, "n c h w"], geometry: Float[Tensor, "6 n"], size: int, turns: bool
) -> Float[Tensor, "n c s s"]:
    """Window, flip and rotation: the first six rows of `Choices.parameters`."""
    top, left, height, width, flip, angle = geometry
    return resample(pixels, top, left, height, width, flip.bool(), angle if turns else None, size)


# Subsets


def by_subsets(tasks: Sequence[Task], mean: Float[Tensor, "c 1 1"], std: Float[Tensor, "c 1 1"]) -> None:
    """Fills the outputs of views of one batch."""
    n, c = tasks[0].images.shape[:2]
    pixels_of_image = max(side[-1] * side[-2] for task in tasks for side in (task.images.shape, task.output.shape))
    group = max(1, GROUP_FLOATS // (c * pixels_of_image))
    for start in range(0, n, group):
        part = slice(start, start + group)
        source, pixels = None, torch.empty(0)
        for view, drawn, images, output, whole in tasks:
            if images is not source:  # views of whole images share them
                source, pixels = images, scaled(images[part])
            parameters, size = drawn.parameters[:, part], output.shape[-1]
            x = pixels
            if whole:
                kept = drawn.keeps_geometry(size, *images.shape[2:])
                x = pixels.clone() if kept else cut(pixels, parameters[:6], size, view.rotation_degrees > 0)
            x = _colour(view, drawn, x, parameters, drawn.masks[:, part])
            torch.sub(x, mean, out=output[part]).div_(std)


def _at(mask: Bool[Tensor, "n"], x: Tensor, operator: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The operator applied to the images of the mask; it is told which these are. Writes into x unless these are
    all."""
    index = mask.nonzero().flatten()
    if len(index) == len(x):
        return operator(x, index)
    return x.index_copy_(0, index, operator(x.index_select(0, index), index)) if len(index) else x


def _colour(
    view: View,
    drawn: Choices,
    x: Float[Tensor, "n c s s"],
    parameters: Float[Tensor, "11 n"],
    masks: Bool[Tensor, "4 n"],
) -> Float[Tensor, "n c s s"]:
    """Colours of one view of a group of images. Writes into `x`."""
    *strengths, sigma = parameters[6:]
    factors = dict(zip(JITTER, strengths, strict=True))

    def jitter(some: Tensor, index: Tensor) -> Tensor:
        for name in drawn.order:
            if getattr(view, name) > 0:
                some = ADJUST[name](some, factors[name][index])
        return some

    x = _at(masks[0], x, jitter)
    x = _at(masks[1], x, lambda some, _: grey(some))
    x = _at(masks[2], x, lambda some, index: blur(some, sigma[index], view.blur_kernel))
    return _at(masks[3], x, lambda some, _: solarise(some, view.solarise_threshold))


# Masks


def finish(
    jittered: Float[Tensor, "n c s s"],
    plain: Float[Tensor, "n c s s"],
    masks: Bool[Tensor, "4 n"],
    sigma: Float[Tensor, "n"],
    mean: Float[Tensor, "c 1 1"],
    std: Float[Tensor, "c 1 1"],
    view: View,
) -> Float[Tensor, "n c s s"]:
    """All that follows the jitter, whatever was drawn: who was jittered, grey, blur, solarisation, normalisation."""
    was_jittered, greyed, blurred, solarised = masks[:, :, None, None, None]
    x = torch.where(was_jittered, jittered, plain) if view.jitter_probability > 0 else plain
    if view.grey_probability > 0:
        x = torch.where(greyed, grey(x), x)
    if view.blur_probability > 0:
        x = torch.where(blurred, blur(x, sigma, view.blur_kernel), x)
    if view.solarise_probability > 0:
        x = torch.where(solarised, solarise(x, view.solarise_threshold), x)
    return (x - mean) / std


@functools.cache
def compiled(operator: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """One graph for each shape and setting. An order of the jitter makes no other graph, as each of its operators has
    one of its own; for the same reason CUDA graphs, which hold one order, would not pay."""
    return torch.compile(operator, fullgraph=True, dynamic=False)


def by_masks(
    tasks: Sequence[Task], mean: Float[Tensor, "c 1 1"], std: Float[Tensor, "c 1 1"], compile: bool = False
) -> None:
    """Fills the outputs of views of one batch, on their device. Nothing waits for it: one small copy goes there."""
    run = compiled if compile else lambda operator: operator
    choices = torch.stack([torch.cat((task.drawn.parameters, task.drawn.masks.float())) for task in tasks])
    on_device = to_device(choices, mean.device)
    source, pixels = None, torch.empty(0)
    for (view, drawn, images, output, whole), chosen in zip(tasks, on_device, strict=True):
        if images is not source:
            source, pixels = images, scaled(images)
        x, size = pixels, output.shape[-1]
        if whole and not drawn.keeps_geometry(size, *images.shape[2:]):
            x = run(cut)(pixels, chosen[:6], size, view.rotation_degrees > 0)
        plain = x
        if view.jitter_probability > 0:
            for name in drawn.order:
                if getattr(view, name) > 0:
                    x = run(ADJUST[name])(x, chosen[6 + JITTER.index(name)])
        output.copy_(run(finish)(x, plain, chosen[11:].bool(), chosen[10], mean, std, view))
