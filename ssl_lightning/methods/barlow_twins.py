"""Barlow Twins (arXiv 2103.03230)."""

from collections.abc import Callable

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.redundancy import barlow_twins
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import NonNegative


class BarlowTwins(Projected):
    """Each dimension of the embeddings agrees over views, and is uncorrelated with the others.

    Args:
        projector: called with D, returns the head between representation and loss.
        redundancy_weight: λ of the correlations off the diagonal.
    """

    has_image_losses = False

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        redundancy_weight: NonNegative = 0.0051,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.redundancy_weight = redundancy_weight

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        return Objective(barlow_twins(embeddings, self.redundancy_weight, gather), representations, embeddings)
