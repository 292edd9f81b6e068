"""VICReg (arXiv 2105.04906)."""

from collections.abc import Callable

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.redundancy import vicreg
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import NonNegative


class VICReg(Projected):
    """Embeddings of an image's views agree (invariance), each dimension varies over images (variance), and dimensions
    are uncorrelated (covariance).

    Args:
        projector: called with D, returns the head between representation and loss.
        invariance_weight, variance_weight, covariance_weight: λ, μ, ν.
    """

    has_image_losses = False

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        invariance_weight: NonNegative = 25.0,
        variance_weight: NonNegative = 25.0,
        covariance_weight: NonNegative = 1.0,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.weights = invariance_weight, variance_weight, covariance_weight

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        invariance, variance, covariance = vicreg(embeddings, *self.weights, gather)
        scalars = {"invariance_loss": invariance, "variance_loss": variance, "covariance_loss": covariance}
        scalars = {name: value.detach() for name, value in scalars.items()}
        return Objective(invariance + variance + covariance, representations, embeddings, scalars)
