"""SimSiam (arXiv 2011.10566)."""

from collections.abc import Callable

from torch import nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction
from ssl_lightning.losses.prediction import cosine_to_targets
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup
from ssl_lightning.optim.schedule import Schedule


class SimSiam(Projected):
    """Predicts the embedding of another view, which counts as a constant. With more views: FastSiam
    (https://doi.org/10.1007/978-3-031-16788-1_4).

    Args:
        projector: called with D, returns the head between representation and loss.
        predictor: called with the length of an embedding; its learning rate is constant.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        predictor: Callable[[int], nn.Module],
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.predictor = predictor(self.embedding_length)

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        predictions = self.predictor(embeddings.flatten(0, 1)).view_as(embeddings)
        losses = -cosine_to_targets(predictions, embeddings)
        return Objective(
            losses.mean(), representations, embeddings, image_losses=losses, carry={"predictions": predictions}
        )

    def predictions(self, objective: Objective) -> Prediction:
        return objective.carry["predictions"], objective.embeddings

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.apart(self.predictor, schedules={"lr": Schedule(shape="constant")})
