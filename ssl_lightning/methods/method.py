"""The contract of a method: from views to a loss."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import Tensor, nn

from ssl_lightning.data.ahead import Ahead
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import place_of
from ssl_lightning.lightning_internals import compile_in_place, load_training_batches
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.matching import Prediction
from ssl_lightning.methods.logged import Logged
from ssl_lightning.models.teacher import Teacher
from ssl_lightning.optim.clock import Clock
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup

CUDA_GRAPHS = ("reduce-overhead", "max-autotune")
"""Modes of `torch.compile` that record CUDA graphs, on GPUs."""
# Parameters of more than one dimension that are no weights of a layer: tokens, and embeddings of positions.
TOKENS = ("token", "pos_embed", "position", "pos_embedding", "rel_pos")


class Objective(NamedTuple):
    """What a method computes from one batch.

    Views of all sizes stand along v, largest first. `carry` holds tensors [v n *] that `after_step` needs, such as
    the keys of a queue; `image_losses` is [n], where the method has a loss of each image.
    """

    loss: Float[Tensor, ""]
    representations: Float[Tensor, "v n d"]
    embeddings: Float[Tensor, "v n e"]
    scalars: Mapping[str, Float[Tensor, ""]] = {}  # logged beside the loss
    image_losses: Float[Tensor, " n"] | None = None
    carry: Mapping[str, Tensor] = {}


def weighted(objective: Objective, weight: Float[Tensor, " n"]) -> Objective:
    """With the mean of the weighted losses of the images in place of their mean."""
    assert objective.image_losses is not None
    return objective._replace(loss=(weight * objective.image_losses).mean())


def detached(objective: Objective) -> Objective:
    """Without gradients."""
    return Objective(
        objective.loss.detach(),
        objective.representations.detach(),
        objective.embeddings.detach(),
        {name: value.detach() for name, value in objective.scalars.items()},
        None if objective.image_losses is None else objective.image_losses.detach(),
        {name: value.detach() for name, value in objective.carry.items()},
    )


def joined(parts: Sequence[Objective], loss: Tensor, scalars: Mapping[str, Tensor]) -> Objective:
    """One objective of the images of several, which have no gradients."""
    image_losses = [part.image_losses for part in parts if part.image_losses is not None]
    return Objective(
        loss,
        torch.cat([part.representations for part in parts], 1),
        torch.cat([part.embeddings for part in parts], 1),
        scalars,
        torch.cat(image_losses) if len(image_losses) == len(parts) else None,
        {name: torch.cat([part.carry[name] for part in parts], 1) for name in parts[0].carry},
    )


class SSLMethod(Logged):
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

    min_images: ClassVar[int] = 1
    """How many images of a batch a process needs: two where images are compared with one another."""

    tasks: int = 1
    """Into how many mini-batches of equal size, of `min_images` or more, a process divides the images of a step."""

    classifies: bool = False
    """Whether embeddings are logits of the dataset's classes."""

    accumulates: bool = False
    """Whether the mean of the losses of parts of a batch is the loss of the batch: an optimizer step may then be made
    of several batches (`trainer.accumulate_grad_batches`). Not so where images are compared with one another."""

    needs_length: bool = False
    """Whether a step depends on how long the training is, as by the `progress` of `after_step`."""

    has_image_losses: bool = True
    """Whether an objective has the loss of each image. Where a method says so and gives none, training ends at once."""

    weighs_images: bool = True
    """Whether these losses have gradients, and the loss is their mean: so that images can count differently."""

    clock: Clock
    """How far this training is; from `configure_optimizers` on."""

    batches: int = 0
    """How many batches this training has seen; between steps the number of the next one, from 0."""

    def __init__(self, optimizer: OptimizerRecipe | None = None) -> None:
        super().__init__()
        self.recipe = optimizer
        self._objectives: list[Objective] = []  # of the batches of an optimizer step
        self._graphs = False

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Representations of normalised images; never augments."""
        return self.backbone(images)

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        """Embeddings, what the loss sees. The identity unless a method has a projector."""
        return representations

    def watched(self, r: Float[Tensor, "n d"], z: Float[Tensor, "n e"]) -> dict[str, Float[Tensor, "n _d"]]:
        """What `callbacks=spectrum` measures the spectra of, by name: `r`, and `z` where it is something else."""
        return {"r": r} | ({} if z is r else {"z": z})

    def encode(
        self, views: Sequence[Float[Tensor, "_v n c _s _s"]], draw: Draw
    ) -> tuple[Float[Tensor, "v n d"], Float[Tensor, "v n e"]]:
        """Representations and embeddings of all views: one pass a size, over the concatenation of its views. Dropout
        and the like are those of the draw."""
        representations, embeddings = [], []
        with draw.seeded(views[0].device):
            for some in views:
                r = self(some.flatten(0, 1))
                z = self.project(r)
                representations.append(r.unflatten(0, some.shape[:2]))
                embeddings.append(z.unflatten(0, some.shape[:2]))
        if len(views) == 1:
            return representations[0], embeddings[0]
        return torch.cat(representations), torch.cat(embeddings)

    @abstractmethod
    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        """Loss of one batch. Pure: no logging, no optimizer, no side effect but BatchNorm's buffers.

        Args:
            batch: views of N images, with labels and positions in the full dataset.
            gather: collects candidates over ranks.
            draw: gives all random numbers that the loss needs, the same ones whenever it is asked.
        """

    def predictions(self, objective: Objective) -> Prediction:
        """What GeSSL compares in order to classify the mini-batch: queries, and what they are compared with. The
        embeddings with themselves, unless a method predicts a target."""
        return objective.embeddings, objective.embeddings

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        """Update of what is no parameter (EMA targets, queues, centres), once per optimizer step and without gradients.

        Args:
            objective: of the images of this rank in the step, without gradients.
            progress: share of the training that is done, in [0, 1].
        """

    def choose_images(self, positions: Int[Tensor, " m"], validation: Bool[Tensor, " n"]) -> None:
        """Is told, before training, of which images it learns, and which of those of train are the validation part. A
        method that learns from labels leaves theirs alone."""

    def parameter_groups(self) -> list[ParameterGroup]:
        """What is optimised: weights, and, without weight decay, biases, norms, tokens and positions."""
        return self._groups(self.named_parameters())

    def apart(self, module: nn.Module, **settings: Any) -> list[ParameterGroup]:
        """`parameter_groups`, those of a part of the method apart, with settings of their own."""
        own = set(module.parameters())
        others = self._groups((name, p) for name, p in self.named_parameters() if p not in own)
        return [*others, *(cast(ParameterGroup, group | settings) for group in self._groups(module.named_parameters()))]

    def _groups(self, named: Iterable[tuple[str, Tensor]]) -> list[ParameterGroup]:
        groups: tuple[list[Tensor], list[Tensor]] = [], []
        for name, parameter in named:
            if parameter.requires_grad:
                token = any(word in name.rpartition(".")[2] for word in TOKENS)
                groups[parameter.ndim < 2 or token].append(parameter)
        return [{"params": groups[0]}, {"params": groups[1], "decay": False}]

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Gives the backbone, and teachers' copies of it, the weights of another one before training.

        Raises:
            RuntimeError: they are those of another network.
        """
        self.backbone.load_state_dict(weights)
        for part in self.modules():
            if isinstance(part, Teacher):
                part.networks[0].load_state_dict(weights)

    def compile_networks(self, mode: str | None) -> None:
        """Compiles the backbone and the heads in place; the names of their weights stay. The loss is left as it is: it
        is small, or of tiles whose number depends on the batch.

        Args:
            mode: of `torch.compile`; None goes back to what is not compiled.
        """
        self._graphs = mode in CUDA_GRAPHS
        for network in self.children():
            if any(True for _ in network.parameters()):
                compile_in_place(network, mode)

    @property
    def batches_a_step(self) -> int:
        """Batches of an optimizer step."""
        return self.trainer.accumulate_grad_batches

    @property
    def steps(self) -> int:
        """Optimizer steps that this training has completed."""
        return self.batches // self.batches_a_step

    def setup(self, stage: str) -> None:
        if stage != "fit":
            return
        self.batches, self._objectives = 0, []
        if any(isinstance(callback, GradientAccumulationScheduler) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise UserError(
                "callbacks has a GradientAccumulationScheduler, but an optimizer step has equally many batches all "
                "through training. Remove it, and set trainer.accumulate_grad_batches."
            )
        if self.batches_a_step != 1 and not self.accumulates:
            raise UserError(
                f"trainer.accumulate_grad_batches is {self.batches_a_step}, but {type(self).__name__} compares images "
                "of a batch with one another: accumulation would change its loss. Use a larger batch_size, or more "
                "processes."
            )
        if self.batches_a_step != 1 and self._graphs:
            raise UserError(
                f"trainer.accumulate_grad_batches is {self.batches_a_step}, but the CUDA graphs of this compile mode "
                "overwrite what a step keeps of the batches before. Choose compile=default."
            )

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        if batch.num_views < self.min_views:
            raise UserError(
                f"augment.views gives {batch.num_views} view{'s' * (batch.num_views > 1)} of an image, but "
                f"{type(self).__name__} needs at least {self.min_views}. "
                f"Set copies: {self.min_views} in the file of the augment group, or add a view."
            )
        if self._graphs:  # what the last step's graphs have written may be overwritten
            torch.compiler.cudagraph_mark_step_begin()
        seed = getattr(self.trainer.datamodule, "seed", 0)  # type: ignore[attr-defined]
        objective = self.ssl_loss(batch, self._gather(), Draw(seed, self.batches, self.global_rank))
        if not isinstance(objective, Objective):
            raise UserError(
                f"{place_of(type(self).ssl_loss)} returned a {type(objective).__name__}. Return Objective(loss, "
                "representations, embeddings)."
            )
        if batch.weight is not None:
            objective = weighted(objective, batch.weight)
        self._objectives.append(detached(objective))
        self.batches += 1
        if not self.recorded:
            self.log("loss", objective.loss.detach(), prog_bar=True, batch_size=len(batch.index))
            self.log_dict({name: value.detach() for name, value in objective.scalars.items()})
        return {"loss": objective.loss, "objective": objective}

    def on_before_backward(self, loss: Tensor) -> None:
        loader = self.trainer.train_dataloader
        if isinstance(loader, Ahead):
            loader.begin()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)  # calls training_step
        parts, self._objectives = self._objectives, []
        objective = parts[0]
        if len(parts) > 1:
            means = {name: torch.stack([part.scalars[name] for part in parts]).mean() for name in objective.scalars}
            objective = joined(parts, torch.stack([part.loss for part in parts]).mean(), means)
        # Before any callback's on_train_batch_end, which may save a checkpoint.
        with torch.no_grad():
            self.after_step(objective, self._gather(), self.clock.progress(self.steps))

    def configure_optimizers(self) -> Any:
        if self.recipe is None:
            raise UserError(
                f"{type(self).__name__} was made without an optimizer. Pass optimizer=OptimizerRecipe(...) to train it."
            )
        load_training_batches(self.trainer)  # else the number of batches may not be known yet
        batches = int(self.trainer.num_training_batches)
        if batches % self.batches_a_step and not self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            raise UserError(
                f"trainer.limit_train_batches leaves {batches} batches an epoch, which are no whole number of "
                f"optimizer steps of {self.batches_a_step} batches each. Choose a multiple of {self.batches_a_step}."
            )
        steps_per_epoch = max(1, batches // self.batches_a_step)
        epochs, limit = (None if n in (None, -1) else n for n in (self.trainer.max_epochs, self.trainer.max_steps))
        self.clock = Clock(int(self.trainer.estimated_stepping_batches), steps_per_epoch, epochs, limit)
        groups = self.parameter_groups()
        optimizer, scheduler = self.recipe.build(groups, steps_per_epoch, self.clock.total, self.clock.scheduled)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["batches"] = self.batches

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches = checkpoint.get("batches", checkpoint["global_step"])  # until schema 2, a batch was a step

    def _gather(self) -> Gather:
        return Gather(self.global_rank, self.trainer.world_size)
