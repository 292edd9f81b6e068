"""All random choices of a view, on the host: which images an operator touches is known there."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_lightning.data.geometry import crop_windows
from ssl_lightning.data.view import CHANCES, View

# The jitter's operators, in the order of their rows in `Choices.parameters`.
JITTER = ("brightness", "contrast", "saturation", "hue")

FLIP = 4
"""Row of the flip in `Choices.parameters`."""


@dataclass(frozen=True)
class Choices:
    """What happens to each image of a batch in one view.

    Rows of `parameters`: top, left, height, width, flip, angle, the four of the jitter, sigma. Of `masks`:
    who gets jitter, grey, blur, solarisation. `order` is that of the jitter.
    """

    parameters: Float[Tensor, "11 n"]
    masks: Bool[Tensor, "4 n"]
    order: list[str]

    def keeps_geometry(self, size: int, height: int, width: int) -> bool:
        """Whether no image changes before the jitter."""
        as_it_is = torch.tensor([0, 0, height, width, 0, 0], dtype=torch.float32)[:, None]
        geometry = self.parameters[:6]
        return size == height == width and torch.equal(geometry, as_it_is.expand_as(geometry))


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
    order = [JITTER[i] for i in torch.randperm(4, generator=generator).tolist()]
    return Choices(torch.cat((windows, masks[:1], uniform)), masks[1:], order)
