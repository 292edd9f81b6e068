"""MoCo v2 (arXiv 2003.04297), symmetric in the views."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction
from ssl_lightning.losses.queue import info_nce_of_queue
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.projected import Projected
from ssl_lightning.models.teacher import Teacher
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Count, Share, Temperature


class MoCo(Projected):
    """Finds a slowly moving encoder's key of another view of the image among those of former images.

    Args:
        projector: called with D, returns the head between representation and loss.
        temperature: τ > 0.
        momentum: m of the key encoder.
        queue: how many keys of former images are kept, of the largest views of all ranks, oldest first.
    """

    queue: Tensor

    gradient_evaluations = 4 / 3  # the teacher looks at both views, without a gradient

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        temperature: Temperature = 0.1,
        momentum: Share = 0.99,
        queue: Count = 4096,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(backbone, projector, optimizer)
        self.teacher = Teacher((self.backbone, self.projector))
        self.temperature = temperature
        self.momentum = momentum
        self.register_buffer("queue", unit(torch.randn(queue, self.embedding_length)))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        keys = self._keys(batch.views[0], gather, draw)
        losses = info_nce_of_queue(embeddings, keys, self.queue, self.temperature)
        carry = {"queries": embeddings[: len(keys)], "keys": keys}
        return Objective(losses.mean(), representations, embeddings, image_losses=losses, carry=carry)

    def _keys(self, views: Float[Tensor, "w n c h w2"], gather: Gather, draw: Draw) -> Float[Tensor, "w n e"]:
        """Unit keys. Of several ranks, each encodes images of all, by a common draw: what a batch statistic tells of
        its images is not those that the queries' batches hold (arXiv 1911.05722, section 3.3)."""
        n = views.shape[1]
        images = views.transpose(0, 1)
        if gather.world_size > 1:
            order = draw.common().permutation("shuffle", n * gather.world_size, device=views.device)
            with torch.no_grad():
                images = gather(images.flatten(1))[order[gather.rank * n : (gather.rank + 1) * n]].view_as(images)
        with draw.seeded(views.device):
            keys = unit(self.teacher(images.flatten(0, 1))).unflatten(0, images.shape[:2])
        if gather.world_size > 1:
            with torch.no_grad():
                shuffled = gather(keys.flatten(1))
                of_all = torch.empty_like(shuffled).index_copy_(0, order, shuffled)
                keys = of_all[gather.rank * n : (gather.rank + 1) * n].view_as(keys)
        return keys.transpose(0, 1)

    def predictions(self, objective: Objective) -> Prediction:
        return objective.carry["queries"], objective.carry["keys"]

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        self.teacher.follow((self.backbone, self.projector), self.momentum)
        keys = gather(objective.carry["keys"].transpose(0, 1).flatten(1)).view(-1, self.queue.shape[1])
        self.queue.copy_(torch.cat((self.queue, keys.to(self.queue.dtype)))[-len(self.queue) :])
