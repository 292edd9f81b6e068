"""BYOL (arXiv 2006.07733)."""

from collections.abc import Callable

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction
from ssl_lightning.losses.prediction import cosine_to_targets
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.models.teacher import Teacher, growing
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Share


class BYOL(Projected):
    """Predicts a slowly moving teacher's embedding of another view; targets are those of the largest views.

    Args:
        projector: called with D, returns the head between representation and loss.
        predictor: called with the length of an embedding.
        momentum: m of the teacher at the beginning; 1 at the end.
    """

    needs_length = True

    gradient_evaluations = 4 / 3  # the teacher looks at both views, without a gradient

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        momentum: Share = 0.99,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.predictor = predictor(self.embedding_length)
        self.teacher = Teacher((self.backbone, self.projector))
        self.momentum = momentum

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        predictions = self.predictor(embeddings.flatten(0, 1)).view_as(embeddings)
        large = batch.views[0]
        with draw.seeded(large.device):
            targets = self.teacher(large.flatten(0, 1)).unflatten(0, large.shape[:2])
        losses = 2 - 2 * cosine_to_targets(predictions, targets)
        carry = {"predictions": predictions[: len(large)], "targets": targets}
        return Objective(losses.mean(), representations, embeddings, image_losses=losses, carry=carry)

    def predictions(self, objective: Objective) -> Prediction:
        return objective.carry["predictions"], objective.carry["targets"]

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        self.teacher.follow((self.backbone, self.projector), growing(self.momentum, progress))
