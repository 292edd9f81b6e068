"""What a run logs: means over logging intervals, and what it has cost so far."""

import time
from collections.abc import Mapping
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.memory import count_memory, peak_memory
from ssl_lightning.methods.method import Objective, SSLMethod


class Recorder(L.Callback):
    """Accumulates losses and scalars on the device; every `log_every_n_steps` optimizer steps, and at the last,
    hands their means to all loggers. Its sums and the cost travel in checkpoints, so a resumed run logs what an
    uninterrupted one would have. Nothing here waits for the device inside a step.

    Other callbacks may put pairs (sum, count) of tensors into `outputs["averages"]`. What is logged with Lightning's
    `self.log` is averaged likewise.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name -> [sum, count]
        self._first_bad_step = torch.zeros((), dtype=torch.int64)  # 0 for none
        self._train_seconds = 0.0
        self._images_seen = 0
        self._peak_memory = 0
        self._started: float | None = None
        self._lr = 0.0
        self._logged_step = 0
        self._planned_steps = -1
        self.row: dict[str, float] = {}
        """What was logged last."""

    @property
    def train_seconds(self) -> float:
        """Wall time spent in training so far, over all resumptions."""
        return self._train_seconds + (time.monotonic() - self._started if self._started is not None else 0.0)

    @property
    def planned_steps(self) -> int:
        """Optimizer steps that training takes unless something ends it earlier; known once it has begun."""
        return self._planned_steps

    @property
    def images_seen(self) -> int:
        return self._images_seen

    @property
    def peak_memory(self) -> int:
        """Bytes that this process has needed in training, over all resumptions; known at its end."""
        return self._peak_memory

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        count_memory(trainer.strategy.root_device)
        self._started = time.monotonic()
        self._first_bad_step = self._first_bad_step.to(pl_module.device)
        self._planned_steps = int(trainer.estimated_stepping_batches)
        mine = float(trainer.is_global_zero)  # a checkpoint holds the sums of all ranks together
        self._sums = {name: mine * pair.to(pl_module.device) for name, pair in self._sums.items()}
        for logger in trainer.loggers:
            if hasattr(logger, "rewind"):
                logger.rewind(self._logged_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        # Of this step; afterwards it is the next one's.
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SSLMethod)
        objective: Objective = outputs["objective"]
        step = -(-pl_module.batches // pl_module.batches_a_step)  # to which this batch belongs
        loss = objective.loss
        one = torch.ones_like(loss)
        pairs = {name: (value.detach(), one) for name, value in objective.scalars.items()}
        pairs |= {"loss": (loss, one)} | outputs.get("averages", {})
        self._add(pairs)
        self._add_logged(pl_module)
        bad = ~torch.isfinite(loss) & (self._first_bad_step == 0)
        self._first_bad_step = torch.where(bad, step, self._first_bad_step)
        self._images_seen += len(batch.index) * trainer.world_size
        if pl_module.batches % pl_module.batches_a_step:
            return
        if step == self._planned_steps or step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            self._flush(trainer)

    def _add(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        for name, pair in pairs.items():
            values = torch.stack([v.detach().float() for v in pair])
            self._sums[name] = self._sums[name] + values if name in self._sums else values

    def _add_logged(self, method: SSLMethod) -> None:
        self._add({name: (value, torch.ones_like(value)) for name, value in method.logged.items()})
        method.logged = {}

    def collect(self, trainer: L.Trainer) -> None:
        """Hands the sums of all ranks to the first, whose state a checkpoint holds. All ranks must call this."""
        self._measure_memory(trainer)
        if trainer.world_size > 1:
            mine = float(trainer.is_global_zero)
            names, totals = self._reduced(trainer)
            self._sums = {name: mine * pair for name, pair in zip(names, totals, strict=True)}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        self._add_logged(pl_module)
        if self._sums:  # something ended training before its last step, or was logged after it
            self._flush(trainer)
        self._train_seconds, self._started = self.train_seconds, None
        self._measure_memory(trainer)

    def _measure_memory(self, trainer: L.Trainer) -> None:
        self._peak_memory = max(self._peak_memory, peak_memory(trainer.strategy.root_device))

    def check(self, trainer: L.Trainer, weights: bool = False) -> None:
        """Raises UserError if a loss was not finite on any rank, or, where asked, a parameter is not."""
        step = int(trainer.strategy.reduce(self._first_bad_step, reduce_op="max"))
        if step == 0 and not weights:
            return
        parameters = trainer.lightning_module.named_parameters()
        broken = [name for name, p in parameters if not torch.isfinite(p).all()]
        if step == 0 and not broken:
            return
        what = f"The loss was not finite at optimizer step {step}" if step else f"At step {_steps(trainer)}"
        shown = ", ".join(broken[:3]) + (f" and {len(broken) - 3} more" if len(broken) > 3 else "")
        raise UserError(
            f"{what}; parameters no longer finite: {shown or 'none'}. The last good checkpoint was kept. "
            "Lower optimizer.lr, raise the temperature or lengthen the warm-up."
        )

    def _flush(self, trainer: L.Trainer) -> None:
        self.check(trainer)
        names, totals = self._reduced(trainer)
        totals = totals.cpu()  # all of them at once
        self._sums = {}
        self._logged_step = _steps(trainer)
        means = {name: (s / c).item() for name, (s, c) in zip(names, totals, strict=True) if c > 0}
        self.row = {"epoch": trainer.current_epoch, "lr": self._lr, **means}
        for logger in trainer.loggers:
            logger.log_metrics(self.row, self._logged_step)

    def _reduced(self, trainer: L.Trainer) -> tuple[list[str], Float[Tensor, "m 2"]]:
        """Names, and the sums and counts of all ranks together."""
        names = sorted(self._sums)
        if trainer.world_size > 1:  # a rank may have logged what others have not
            of_ranks: list[list[str]] = [[] for _ in range(trainer.world_size)]
            dist.all_gather_object(of_ranks, names)
            names = sorted({name for some in of_ranks for name in some})
        if not names:
            return [], torch.zeros(0, 2)
        nothing = torch.zeros(2, device=trainer.strategy.root_device)
        totals = trainer.strategy.reduce(torch.stack([self._sums.get(n, nothing) for n in names]), reduce_op="sum")
        assert isinstance(totals, Tensor)
        return names, totals

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": dict(self._sums),
            "logged_step": self._logged_step,
            "train_seconds": self.train_seconds,
            "images_seen": self._images_seen,
            "peak_memory": self._peak_memory,
            "planned_steps": self._planned_steps,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._sums = dict(state_dict["sums"])
        self._logged_step = state_dict["logged_step"]
        self._train_seconds = state_dict["train_seconds"]
        self._images_seen = state_dict["images_seen"]
        self._peak_memory = state_dict.get("peak_memory", 0)
        self._planned_steps = state_dict.get("planned_steps", -1)


def _steps(trainer: L.Trainer) -> int:
    method = trainer.lightning_module
    assert isinstance(method, SSLMethod)
    return method.steps
