"""The contract of a method: from views to a loss."""

from abc import abstractmethod
from typing import Any, ClassVar, NamedTuple

import lightning as L
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import load_training_batches
from ssl_lightning.losses.gather import Gather
from ssl_lightning.optim.recipe import OptimizerRecipe


class Objective(NamedTuple):
    """What a method computes from one batch of views."""

    loss: Float[Tensor, ""]
    representations: Float[Tensor, "v n d"]
    embeddings: Float[Tensor, "v n e"]
    scalars: dict[str, Float[Tensor, ""]]  # logged beside the loss


class SSLMethod(L.LightningModule):
    """A method that trains an encoder. Subclasses set `backbone` and give `ssl_loss` and, with a projector, `project`.

    Args:
        optimizer: how to train; only needed by `Trainer.fit`.
    """

    backbone: nn.Module
    """Maps images [N, C, H, W] to representations [N, D]; its attribute `num_features` is D."""

    gradient_evaluations: float = 1.0
    """Cost of an optimizer step in forward and backward passes of the whole batch through the encoder."""

    min_views: ClassVar[int] = 2
    """How many views of an image the loss needs."""

    classifies: bool = False
    """Whether embeddings are logits of the dataset's classes."""

    def __init__(self, optimizer: OptimizerRecipe | None = None) -> None:
        super().__init__()
        self.recipe = optimizer

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Representations of normalised images; never augments."""
        return self.backbone(images)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Embeddings, what the loss sees. The identity unless a method has a projector."""
        return representations

    def encode(self, views: Float[Tensor, "v n c h w"]) -> tuple[Float[Tensor, "v n d"], Float[Tensor, "v n e"]]:
        """Representations and embeddings of all views, in one pass over their concatenation."""
        representations = self(views.flatten(0, 1))
        embeddings = self.project(representations)
        return representations.unflatten(0, views.shape[:2]), embeddings.unflatten(0, views.shape[:2])

    @abstractmethod
    def ssl_loss(self, views: Float[Tensor, "v n c h w"], batch: Batch, gather: Gather) -> Objective:
        """Loss of one batch. Pure: no logging, no optimizer, no side effect but BatchNorm's buffers.

        Args:
            views: V augmented versions of N images.
            batch: the images' labels and positions in the full dataset.
            gather: collects candidates over ranks.
        """

    def compile_backbone(self) -> None:
        """Compiles the backbone in place; the names of its weights stay."""
        self.backbone.compile()

    def after_step(self, objective: Objective) -> None:
        """Update of what is no parameter (EMA targets, queues, centres), once per optimizer step."""

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        if (views := len(batch.image)) < self.min_views:
            raise UserError(
                f"augment.views gives {'one view' if views == 1 else f'{views} views'} of an image, but "
                f"{type(self).__name__} needs at least {self.min_views}. "
                f"Set copies: {self.min_views} in the file of the augment group, or add a view."
            )
        gather = Gather(self.global_rank, self.trainer.world_size)
        objective = self.ssl_loss(batch.image, batch, gather)
        self.log("loss", objective.loss.detach(), prog_bar=True, logger=False)
        self._objective = objective
        return {"loss": objective.loss, "objective": objective}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)  # calls training_step
        self.after_step(self._objective)  # before any callback's on_train_batch_end, which may save a checkpoint
        del self._objective

    def configure_optimizers(self) -> Any:
        if self.recipe is None:
            raise UserError(
                f"{type(self).__name__} was made without an optimizer. Pass optimizer=OptimizerRecipe(...) to train it."
            )
        load_training_batches(self.trainer)  # else the number of batches may not be known yet
        total_steps = int(self.trainer.estimated_stepping_batches)
        optimizer, scheduler = self.recipe.build(self, int(self.trainer.num_training_batches), total_steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
