"""Views that grow during training."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Gt, Le

from ssl_lightning.ranges import Count, Share


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Side of the views, a function of the number of the batch: small at first, which is cheap, then full.

    It grows linearly, as in EfficientNetV2 (arXiv 2104.00298, section 4), where augmentation grows too; here it does
    not. The last part of training is at the size of the evaluation, as encoders depend on that of the objects that
    they have seen (arXiv 1906.06423).

    Args:
        start: share of the full side at which training begins.
        until: share of the training from which on views have the full side.
        multiple: of which smaller sides are multiples, in pixels; each size is another shape of all tensors.
    """

    start: Annotated[float, Gt(0), Le(1)] = 0.5
    until: Share = 0.75
    multiple: Count = 4

    def size(self, number: int, total: int, full: int) -> int:
        """Side in pixels.

        Args:
            number: of the batch, from 0.
            total: batches of the training.
            full: side of the dataset's images.
        """
        progress = (number + 1) / total  # so a rehearsal of one batch is at full size
        if progress >= self.until:
            return full
        side = full * (self.start + (1 - self.start) * progress / self.until)
        return min(full, max(1, int(side / self.multiple)) * self.multiple)
