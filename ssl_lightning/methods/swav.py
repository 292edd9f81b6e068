"""SwAV (arXiv 2006.09882)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.clustering import cross_entropy_of_pairs, sinkhorn
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.models.prototypes import Prototypes
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup
from ssl_lightning.ranges import Count, Several, Share, Temperature


class SwAV(Projected):
    """Predicts from a view the balanced code of another: its assignment to learned prototypes. Codes are those of the
    largest views.

    Args:
        projector: called with D, returns the head between representation and loss.
        prototypes: how many, 2 or more.
        temperature: τ of the predictions, > 0.
        epsilon: temperature of the codes, that is, the weight of their entropy.
        iterations: of Sinkhorn–Knopp.
        frozen: share of training in which prototypes do not move (the paper: the first epoch).
    """

    needs_length = True
    progress: Tensor

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        prototypes: Several = 500,
        temperature: Temperature = 0.1,
        epsilon: Temperature = 0.05,
        iterations: Count = 3,
        frozen: Share = 0.01,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.prototypes = Prototypes(self.embedding_length, prototypes)
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.frozen = frozen
        self.register_buffer("progress", torch.zeros(()))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        scores = self.prototypes(embeddings, moves=self.progress >= self.frozen)
        codes = [sinkhorn(view, self.epsilon, self.iterations, gather) for view in scores[: len(batch.views[0])]]
        losses = cross_entropy_of_pairs(torch.stack(codes), scores / self.temperature)
        return Objective(losses.mean(), representations, embeddings, image_losses=losses)

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        self.progress.fill_(progress)

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.apart(self.prototypes, decay=False)
