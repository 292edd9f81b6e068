"""LeJEPA (arXiv 2511.08544)."""

from collections.abc import Callable

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.sigreg import agreement, sigreg
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Count, Share


class LeJEPA(Projected):
    """Views agree with the mean of the image's global views, which are those of the largest size, and embeddings are
    Gaussian in random directions, drawn anew at each step. No teacher, no negatives.

    Args:
        projector: called with D, returns the head between representation and loss.
        weight: λ of the Gaussian; 1 − λ of the agreement.
        directions: how many.
    """

    has_image_losses = False

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        weight: Share = 0.05,
        directions: Count = 1024,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.weight = weight
        self.directions = directions

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        normal = draw.common().normal("directions", self.directions, embeddings.shape[-1], device=embeddings.device)
        gaussian = sigreg(embeddings, unit(normal).T, gather)
        agreed = agreement(embeddings, len(batch.views[0]))
        loss = (1 - self.weight) * agreed + self.weight * gaussian
        scalars = {"agreement_loss": agreed.detach(), "sigreg_loss": gaussian.detach()}
        return Objective(loss, representations, embeddings, scalars)
