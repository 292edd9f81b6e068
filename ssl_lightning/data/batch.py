"""What a data loader hands to a method."""

from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """Images with labels and positions.

    `image` is uint8 [N, C, H, W] as loaded and, in training steps, float views [V, N, C, H, W]; `label` and `index`
    are int64 [N], `index` being the position in the full dataset.
    """

    image: Tensor
    label: Tensor
    index: Tensor  # type: ignore[assignment]  # a field may shadow tuple.index, which nobody needs here
