"""DINO (arXiv 2104.14294)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.clustering import cross_entropy_of_pairs
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.models.prototypes import Prototypes
from ssl_lightning.models.teacher import Teacher, growing
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup
from ssl_lightning.ranges import Several, Share, Temperature


class DINO(Projected):
    """Predicts from a view the centred and sharpened outputs of a slowly moving teacher on another. The teacher sees
    the largest views.

    Outputs are cosines of embeddings and learned directions, the paper's weight-normalised last layer.

    Args:
        projector: called with D, returns the head between representation and last layer.
        outputs: how many, 2 or more.
        temperature: τ of the student, > 0.
        teacher_temperature, final_teacher_temperature: τ of the teacher at the beginning, and after `warmup`.
        warmup: share of training in which the teacher's τ grows, linearly.
        momentum: m of the teacher at the beginning; 1 at the end.
        center_momentum: of the centre, which is taken from the teacher's outputs.
        frozen: share of training in which the last layer does not move (the paper: the first epoch).
    """

    needs_length = True
    progress: Tensor
    center: Tensor

    gradient_evaluations = 4 / 3  # the teacher looks at both views, without a gradient

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        outputs: Several = 4096,
        temperature: Temperature = 0.1,
        teacher_temperature: Temperature = 0.04,
        final_teacher_temperature: Temperature = 0.07,
        warmup: Share = 0.3,
        momentum: Share = 0.996,
        center_momentum: Share = 0.9,
        frozen: Share = 0.01,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.last = Prototypes(self.embedding_length, outputs)
        self.teacher = Teacher((self.backbone, self.projector, self.last))
        self.temperature = temperature
        self.teacher_temperatures = teacher_temperature, final_teacher_temperature
        self.warmup, self.momentum, self.center_momentum, self.frozen = warmup, momentum, center_momentum, frozen
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("center", torch.zeros(outputs))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        scores = self.last(embeddings, moves=self.progress >= self.frozen)
        large = batch.views[0]
        with draw.seeded(large.device):
            outputs = self.teacher(large.flatten(0, 1)).unflatten(0, large.shape[:2])
        begin, end = self.teacher_temperatures
        grown = (self.progress / self.warmup).clamp(max=1) if self.warmup else 1.0
        targets = ((outputs - self.center) / (begin + (end - begin) * grown)).softmax(-1)
        losses = cross_entropy_of_pairs(targets, scores / self.temperature)
        carry = {"scores": scores[: len(large)], "outputs": outputs}
        return Objective(losses.mean(), representations, embeddings, image_losses=losses, carry=carry)

    def predictions(self, objective: Objective) -> Prediction:
        return objective.carry["scores"], objective.carry["outputs"]

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        self.progress.fill_(progress)
        networks = (self.backbone, self.projector, self.last)
        self.teacher.follow(networks, growing(self.momentum, progress))
        mean = gather.total(objective.carry["outputs"].mean((0, 1)).to(self.center.dtype)) / gather.world_size
        self.center.lerp_(mean, 1 - self.center_momentum)

    def parameter_groups(self) -> list[ParameterGroup]:
        return self.apart(self.last, decay=False)
