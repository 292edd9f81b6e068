"""Supervised training: what the labels of the subset are worth."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.models.backbones import num_features_of
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Count


class Supervised(SSLMethod):
    """Cross-entropy of a linear classifier on the representation, averaged over images and views.

    Args:
        num_classes: of the dataset; a dataset that learns it from its files must be told.
    """

    min_views = 1
    classifies = True
    accumulates = True

    def __init__(
        self, backbone: nn.Module, num_classes: Count | None, optimizer: OptimizerRecipe | None = None
    ) -> None:
        super().__init__(optimizer)
        if num_classes is None:
            raise UserError(
                "dataset.num_classes is null, but a classifier is built before the images are read. "
                "Set dataset.num_classes to the number of classes."
            )
        self.backbone = backbone
        self.head = nn.Linear(num_features_of(backbone), num_classes)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Logits."""
        return self.head(representations)

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, logits = self.encode(batch.views, draw)
        losses = F.cross_entropy(logits.flatten(0, 1), batch.label.repeat(len(logits)), reduction="none")
        return Objective(losses.mean(), representations, logits, image_losses=losses.view(len(logits), -1).mean(0))
