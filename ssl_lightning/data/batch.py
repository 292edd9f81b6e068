"""What a loader hands over, and what a method sees of it."""

from typing import NamedTuple

from torch import Tensor


class Stored(NamedTuple):
    """Images as a loader gives them.

    `images` is uint8 [n, c, h, w]; of streamed images, whose crops are cut already, a tuple of uint8 [v, n, c, s, s],
    one entry a size of view, largest first. `label` and `index` are int64 [n], `index` being the position in the full
    dataset, and `label` −1 where an image has none.
    """

    images: Tensor | tuple[Tensor, ...]
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # a field may shadow tuple.index, which nobody needs here


class Batch(NamedTuple):
    """What a method sees in a step.

    `views` is a tuple of float [v, n, c, s, s], one entry a size, largest first; `label` and `index` are those of
    `Stored`. `weight` is float [n], what the loss of each image counts; None: 1.
    """

    views: tuple[Tensor, ...]
    label: Tensor
    index: Tensor  # type: ignore[assignment]
    weight: Tensor | None = None

    @property
    def num_views(self) -> int:
        """V, over all sizes."""
        return sum(map(len, self.views))

    def part(self, images: slice) -> "Batch":
        """Some of the images."""
        views = tuple(views[:, images] for views in self.views)
        return Batch(
            views, self.label[images], self.index[images], None if self.weight is None else self.weight[images]
        )
