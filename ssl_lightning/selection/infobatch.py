"""InfoBatch (arXiv 2303.04947): some of the easy images are left out, and the others stand for them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge, Lt
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_lightning.ranges import Share
from ssl_lightning.selection.rule import Moment, SelectionRule


@dataclass(frozen=True, kw_only=True)
class InfoBatch(SelectionRule):
    """Each image whose loss is below the mean is left out with probability r; where it is not, its loss counts
    1/(1 − r) times (section 2.2). So the expected sum of gradients over an epoch is that of all images.

    Args:
        ratio: r.
        until: δ, the share of the training after which all images are seen; an epoch that would end later sees all.
    """

    name: ClassVar[str] = "infobatch"
    weighs: ClassVar[bool] = True

    ratio: Annotated[float, Ge(0), Lt(1)] = 0.5
    until: Share = 0.875

    @property
    def least(self) -> float:
        return 1 - self.ratio

    def weights(
        self, losses: Float[Tensor, " m"], seen: Bool[Tensor, " m"], moment: Moment, generator: torch.Generator
    ) -> Float[Tensor, " m"]:
        weights = torch.ones(len(losses))
        if moment.ends > self.until or not seen.any():
            return weights
        below = seen & (losses.double() < losses[seen].double().mean())
        left_out = torch.rand(len(losses), generator=generator, dtype=torch.float64) < self.ratio
        weights[below] = 1 / (1 - self.ratio)
        weights[below & left_out] = 0.0
        return weights
