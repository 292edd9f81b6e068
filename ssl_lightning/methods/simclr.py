"""SimCLR (arXiv 2002.05709)."""

from collections.abc import Callable
from typing import Literal

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.contrastive import info_nce_terms, nt_xent_terms
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.models.projectors import mlp
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Temperature

LOSSES = {"nt_xent": nt_xent_terms, "info_nce": info_nce_terms}


class SimCLR(Projected):
    """Contrast views of an image with all other images, after a projector.

    Args:
        projector: called with D, returns the head between representation and loss; by default the paper's.
        temperature: τ > 0.
        loss: `nt_xent` as in the paper, or cross-view `info_nce` as in DirectCLR's comparisons.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module] = mlp,
        temperature: Temperature = 0.2,
        loss: Literal["nt_xent", "info_nce"] = "nt_xent",
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.temperature = temperature
        self.contrast = LOSSES[loss]

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        terms = self.contrast(embeddings, self.temperature, gather)
        return Objective(terms.mean(), representations, embeddings, image_losses=terms.of_images())
