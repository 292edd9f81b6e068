"""A linear classifier that follows training at no cost to it."""

from typing import Any, ClassVar

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.methods.method import Objective
from ssl_lightning.ranges import Positive


class OnlineProbe(L.Callback):
    """Trains on the detached representations of each batch, and measures where it did not train: on the images of
    the validation part of train, whose labels it never uses. Both are views, so its accuracy is a lower bound.

    It owns its weights, optimizer and state, and adds its gradients up over ranks. The method does not notice it.

    Args:
        lr: learning rate of Adam.
    """

    changes_training: ClassVar[bool] = False

    def __init__(self, lr: Positive = 3e-3) -> None:
        self.lr = lr
        self._probe: nn.Linear | None = None
        self._state: dict[str, Any] | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SubsetDataModule)
        self._num_classes = int(data.dataset.num_classes or 0)  # 0: there are no labels, and nothing to do
        self._held_out = data.dataset.validation().to(pl_module.device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._num_classes:
            return
        objective: Objective = outputs["objective"]
        representations = objective.representations.detach().float()
        if self._probe is None:
            self._start(representations)
        assert self._probe is not None
        num_views = len(representations)
        held_out = self._held_out[batch.index].repeat(num_views)
        labels = batch.label.repeat(num_views)
        features = representations.flatten(0, 1)
        logits = self._probe(features)
        logs = logits.log_softmax(1)
        targets = (labels[:, None] == self._classes).float()
        trainable = (~held_out & (labels >= 0)).float()
        of_rank = count = trainable.sum()
        if trainer.world_size > 1:  # the mean over the images of all ranks, who have different numbers of them
            count = of_rank.clone()
            dist.all_reduce(count)
        # The gradient of the cross-entropy, whose closed form spares a pass through autograd.
        errors = (logs.exp() - targets) * (trainable / count.clamp(min=1))[:, None]
        self._probe.weight.grad, self._probe.bias.grad = errors.T @ features, errors.sum(0)
        if trainer.world_size > 1:
            for p in self._probe.parameters():
                assert p.grad is not None
                dist.all_reduce(p.grad)
        self._optimizer.step()
        correct = (logits.argmax(1) == labels) & held_out
        outputs.setdefault("averages", {}).update(
            {
                "online/loss": (-(logs * targets).sum(1) @ trainable, of_rank),
                "online/val_top1": (correct.sum(), held_out.sum()),
            }
        )

    def _start(self, representations: Tensor) -> None:
        """At the first batch, when the length of a representation is known."""
        self._probe = nn.Linear(representations.shape[-1], self._num_classes).to(representations.device)
        nn.init.zeros_(self._probe.weight)
        nn.init.zeros_(self._probe.bias)
        self._classes = torch.arange(self._num_classes, device=representations.device)
        self._optimizer = torch.optim.Adam(self._probe.parameters(), lr=self.lr, fused=representations.is_cuda)
        if self._state is not None:
            self._probe.load_state_dict(self._state["probe"])
            self._optimizer.load_state_dict(self._state["optimizer"])

    def state_dict(self) -> dict[str, Any]:
        if self._probe is None:
            return self._state or {}
        return {"probe": self._probe.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._state = state_dict or None
