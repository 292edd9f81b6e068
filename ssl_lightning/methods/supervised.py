"""Supervised training: what the labels of the subset are worth."""

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
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
        hold_out: whether the labels of the validation part are left out of the loss, so that probes can choose their
            settings on labels that the encoder has not seen.
    """

    min_views = 1
    classifies = True
    accumulates = True

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: Count | None,
        optimizer: OptimizerRecipe | None = None,
        hold_out: bool = True,
    ) -> None:
        super().__init__(optimizer)
        if num_classes is None:
            raise UserError(
                "dataset.num_classes is null, but a classifier is built before the images are read. "
                "Set dataset.num_classes to the number of classes."
            )
        self.backbone = backbone
        self.hold_out = hold_out
        self._weights: Float[Tensor, " n"] | None = None  # of all images of train, in the loss
        self.head = nn.Linear(num_features_of(backbone), num_classes)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Logits."""
        return self.head(representations)

    def choose_images(self, positions: Int[Tensor, " m"], validation: Bool[Tensor, " n"]) -> None:
        seen = ~validation[positions]
        if not self.hold_out or bool(seen.all()):
            self._weights = None
            return
        if not bool(seen.any()):
            raise UserError(
                "all images of the subset belong to the validation part, whose labels a classifier does not see. "
                "Choose a larger subset, or method.hold_out=false."
            )
        # A constant factor, and not the mean over those of a batch: parts of a batch must add up to its loss.
        self._weights = (~validation).float() * (len(seen) / seen.sum())

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, logits = self.encode(batch.views, draw)
        losses = F.cross_entropy(logits.flatten(0, 1), batch.label.repeat(len(logits)), reduction="none")
        losses = losses.view(len(logits), -1)
        if self._weights is not None:
            self._weights = self._weights.to(losses.device, losses.dtype, non_blocking=True)
            losses = losses * self._weights[batch.index]
        return Objective(losses.mean(), representations, logits, image_losses=losses.mean(0))
