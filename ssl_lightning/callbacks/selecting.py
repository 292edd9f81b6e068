"""Chooses the images of each epoch by the losses that they had."""

import time
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from jaxtyping import Bool, Float
from torch import Tensor

from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.sampler import Round, seed_of
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import set_epoch_length
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.selection.rule import Moment, SelectionRule


class Selecting(L.Callback):
    """Keeps the last loss of each image, and has a rule choose what the next epoch sees.

    Losses are written down on the device, which no step waits for, and brought together at the end of an epoch: all
    processes choose the same. Losses that are not finite are as if they were not known. An epoch for which too few
    images are chosen to fill a batch sees all. Its state lies in checkpoints, so that a training that goes on in the
    middle of an epoch sees what it would have seen.

    It is the first of the callbacks but for those that seed: others ask the method how long training is.

    Args:
        rule: chooses.
        seed: of what the rule draws.
    """

    changes_training = True

    def __init__(self, rule: SelectionRule, seed: int = 0) -> None:
        self.rule = rule
        self.seed = seed
        self.round: Round | None = None
        """What this epoch sees; None before training."""
        self.images_left_out = 0
        """How many more the epochs that have begun would have passed through, had they seen all."""
        self.seconds = 0.0
        """Taken by choosing, over all resumptions."""
        self._losses: Float[Tensor, " n"] | None = None  # last known, of all images of the dataset; on the host
        self._seen: Bool[Tensor, " n"] | None = None
        self._new: Float[Tensor, "2 n"] | None = None  # of this process, since these: losses, and whether there are any

    def check(self, method: SSLMethod, limit_train_batches: float | None = None) -> None:
        """Raises UserError where images of this method, or parts of epochs, cannot be selected."""
        names = self.rule.name, type(method).__name__
        if not method.has_image_losses:
            raise UserError(
                f"selection={names[0]} reads the loss of each image, but {names[1]} has only one of a whole batch. "
                "Choose another method, such as simclr, byol, moco, simsiam, swav or dino; or selection=none."
            )
        if self.rule.weighs and not method.weighs_images:
            raise UserError(
                f"selection={names[0]} weighs the losses of images, but the gradient of {names[1]} is that of whole "
                "tasks, in which they cannot count differently. Choose selection=scan or coarse_to_fine, which weigh "
                "nothing, or selection=none."
            )
        if limit_train_batches not in (None, 1.0):
            raise UserError(
                f"trainer.limit_train_batches is {limit_train_batches}, but selection={names[0]} says itself how many "
                "batches an epoch has. Remove it; subset.fraction trains on fewer images."
            )

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, SSLMethod)
        data = self._data(trainer)
        rehearsal = bool(trainer.fast_dev_run)  # type: ignore[attr-defined]
        self.check(pl_module, None if rehearsal else trainer.limit_train_batches)
        size, least = data.mask.size, int(self.rule.least * data.mask.size + 1e-9)
        if least < data.batch_size:
            raise UserError(
                f"selection={self.rule.name} may leave {least} of {size} images to an epoch, but batch_size "
                f"is {data.batch_size}. Choose a smaller batch_size, or have it leave out less."
            )

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Before schedules are restored, which ask how long epochs are."""
        assert isinstance(pl_module, SSLMethod)
        number = len(self._data(trainer).dataset.train().labels)
        if self._losses is None:
            self._losses, self._seen = torch.zeros(number), torch.zeros(number, dtype=torch.bool)
        self._new = torch.zeros(2, number, device=pl_module.device)
        self._world_size = trainer.world_size
        if self.round is None:
            self.round = Round(0, 0, torch.ones(number))
        self._begin(trainer, pl_module)
        self._go_on(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        objective: Objective = outputs["objective"]
        if objective.image_losses is None:
            raise UserError(
                f"selection={self.rule.name} reads the loss of each image, but the objectives of "
                f"{type(pl_module).__name__} have no image_losses. Return Objective(..., image_losses=...), or choose "
                "selection=none."
            )
        losses = objective.image_losses.detach().float()
        assert self._new is not None
        self._new.index_copy_(1, batch.index, torch.stack([losses, torch.ones_like(losses)]))

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        self._go_on(trainer, pl_module)

    def _go_on(self, trainer: L.Trainer, method: SSLMethod) -> None:
        """Chooses the next epoch, where this one is over and training is not."""
        assert self.round is not None
        steps = method.steps
        done = method.batches - self.round.first == len(self._data(trainer).loader)
        if not done or steps >= method.clock.planned:
            return
        started = time.monotonic()
        self._losses, self._seen = self._brought_together()
        assert self._new is not None
        self._new.zero_()
        clock, epoch = method.clock, self.round.epoch + 1
        ends = (clock.scheduled(steps) + clock.per_epoch) / max(1, clock.total)
        weights = self._chosen(self._data(trainer), Moment(epoch, clock.progress(steps), ends))
        self.round = Round(epoch, method.batches, weights)
        self._begin(trainer, method)
        self.seconds += time.monotonic() - started

    def _chosen(self, data: SubsetDataModule, moment: Moment) -> Float[Tensor, " n"]:
        """Of all images of the dataset; those outside of the subset have weight 0."""
        assert self._losses is not None
        assert self._seen is not None
        positions = torch.from_numpy(data.mask.positions)
        generator = torch.Generator().manual_seed(seed_of("selection", self.seed, moment.epoch))
        of_subset = self.rule.weights(self._losses[positions], self._seen[positions], moment, generator)
        kept = int((of_subset > 0).sum())
        if kept < data.batch_size:
            of_subset, kept = torch.ones(len(positions)), len(positions)
        self.images_left_out += (len(positions) // data.batch_size - kept // data.batch_size) * data.batch_size
        return torch.zeros(len(self._losses)).index_copy_(0, positions, of_subset)

    def _begin(self, trainer: L.Trainer, method: SSLMethod) -> None:
        assert self.round is not None
        batches = self._data(trainer).begin(self.round)
        if self.round.epoch == 0:  # as planned, or less in a rehearsal
            return
        a_step = method.batches_a_step
        method.clock.begin(self.round.epoch, self.round.first // a_step, batches // a_step)
        set_epoch_length(trainer, batches)

    def _brought_together(self) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
        """The last losses, and which are known, with what all processes have seen of this epoch since. An image is
        seen by one of them, so that a sum is its loss."""
        assert self._losses is not None
        assert self._seen is not None
        assert self._new is not None
        new = self._new.clone()
        if self._world_size > 1:
            dist.all_reduce(new)
        losses, there = new.cpu()
        known = (there > 0) & losses.isfinite()
        return torch.where(known, losses, self._losses), torch.where(there > 0, known, self._seen)

    @staticmethod
    def _data(trainer: L.Trainer) -> SubsetDataModule:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SubsetDataModule)
        return data

    def state_dict(self) -> dict[str, Any]:
        """All processes together."""
        if self.round is None or self._losses is None:
            return {}
        losses, seen = self._brought_together()
        return {
            "losses": losses,
            "seen": seen,
            "epoch": self.round.epoch,
            "first": self.round.first,
            "weights": self.round.weights,
            "images_left_out": self.images_left_out,
            "selecting_seconds": self.seconds,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not state_dict:
            return
        self._losses, self._seen = state_dict["losses"].cpu(), state_dict["seen"].cpu()
        self.round = Round(state_dict["epoch"], state_dict["first"], state_dict["weights"].cpu())
        self.images_left_out = state_dict["images_left_out"]
        self.seconds = state_dict["selecting_seconds"]
