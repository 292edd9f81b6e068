"""Random views of whole batches: uint8 images in, normalised float views out, on any device.

All random numbers come from a CPU generator, one value per image and parameter: nothing waits for the device, and a
generator state gives the same views on every device.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import torch
from annotated_types import Len
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ssl_lightning.data.choices import FLIP, choose
from ssl_lightning.data.geometry import crop_windows
from ssl_lightning.data.painting import Task, by_masks, by_subsets
from ssl_lightning.data.sizes import by_size, views_of
from ssl_lightning.data.view import View

LATER = {"size": None, "flip_alternates": False}
"""Fields of a view that there were not always, and what stands for their absence."""


class Augment:
    """Turns a batch of stored images into its views.

    Args:
        views: the kinds of views; their copies follow one another in this order.

    Raises:
        ValueError: there is no view.
    """

    compiled: bool = False
    """Whether operators are compiled, by `torch.compile`."""

    def __init__(self, views: Annotated[Sequence[View], Len(1)]) -> None:
        if not views:
            raise ValueError("views is empty; pass at least one View.")
        self._views = [view for view in views for _ in range(view.copies)]

    def describe(self) -> list[dict[str, Any]]:
        """The fields of each view, for provenance; those that were added later only where they are used."""
        return [
            {key: value for key, value in asdict(view).items() if key not in LATER or value != LATER[key]}
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

    def local(self, images: int) -> int:
        """The side of the largest of the views that have a size of their own beside views that have none; 0 where there
        are not both."""
        sized = [view.side(images) for view in self._views if view.size is not None]
        return max(sized, default=0) if len(sized) < len(self._views) else 0

    def sizes(self, images: int) -> list[int]:
        """The side of each view in pixels, where that of the images is given."""
        return [view.side(images) for view in self._views]

    @torch.no_grad()
    def __call__(
        self,
        images: UInt8[Tensor, "n c h w"],
        mean: Float[Tensor, "c"],
        std: Float[Tensor, "c"],
        generator: torch.Generator,
        size: int | None = None,
        mirrored: Bool[Tensor, "v n"] | None = None,
    ) -> tuple[Float[Tensor, "_v n c _s _s"], ...]:
        """Views of 1 or 3 channels, float32, each normalised to (x − mean) / std with x in [0, 1]; a tensor for each
        size, largest first.

        Args:
            images: with 1 or 3 channels, on any device; left as they are.
            mean, std: per channel, for values in [0, 1], on the device of the images.
            generator: on the CPU, whatever the device of the images.
            size: side in pixels of the views that have none of their own; by default that of the images, which must
                then be square.
            mirrored: on the CPU, which images the views with `flip_alternates` mirror; by default a random half.

        Raises:
            ValueError: the images are not square and no size is given.
        """
        height, width = images.shape[2:]
        if size is None:
            if height != width:
                raise ValueError(f"Images are {height}x{width} pixels, not square; pass the views' size.")
            size = height
        return self._make([images] * self.num_views, self.sizes(size), mean, std, generator, mirrored, cut=True)

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
        return self._make(views_of(crops, sizes), sizes, mean, std, generator, None, cut=False)

    def windows(
        self,
        height: Int[Tensor, "n"],
        width: Int[Tensor, "n"],
        generator: torch.Generator,
        mirrored: Bool[Tensor, "v n"] | None = None,
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
        flips = torch.stack(chances) < limits[:, None]
        if mirrored is not None:
            alternates = torch.tensor([view.flip_alternates for view in self._views])
            flips = torch.where(alternates[:, None], mirrored, flips)
        return torch.stack(windows), flips

    @property
    def alternates(self) -> bool:
        """Whether any view mirrors an image in every other epoch."""
        return any(view.flip_alternates for view in self._views)

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
        mirrored: Bool[Tensor, "v n"] | None,
        cut: bool,
    ) -> tuple[Float[Tensor, "_v n c _s _s"], ...]:
        """Of the images of each view."""
        n, c = images[0].shape[:2]
        device = images[0].device
        made = by_size(sizes, lambda number, size: torch.empty(number, n, c, size, size, device=device))
        tasks = [
            Task(view, choose(view, n, some.shape[2], some.shape[3], generator), some, output, cut)
            for view, some, output in zip(self._views, images, views_of(made, sizes), strict=True)
        ]
        if mirrored is not None:
            for task, mirror in zip(tasks, mirrored, strict=True):
                if task.view.flip_alternates:
                    task.drawn.parameters[FLIP] = mirror.float()
        mean, std = mean.view(-1, 1, 1), std.view(-1, 1, 1)
        if self.compiled or device.type != "cpu":
            by_masks(tasks, mean, std, self.compiled)
        else:
            by_subsets(tasks, mean, std)
        return made
