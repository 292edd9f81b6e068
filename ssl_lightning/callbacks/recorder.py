"""What a run logs: means over logging intervals, and what it has cost so far."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.data.loading import Loader
from ssl_lightning.devices import count_memory, peak_memory
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import show_metrics
from ssl_lightning.methods.method import Objective, SSLMethod


class Recorder(L.Callback):
    """Accumulates losses and scalars on the device; every `log_every_n_steps` optimizer steps, and at the last,
    hands their means to all loggers. The sums of every rank and the cost travel in checkpoints, so a run logs the same
    numbers, to the last bit, however often it is saved or resumed. Nothing here waits for the device inside a step.

    Other callbacks may put pairs (sum, count) of tensors into `outputs["averages"]`, into `outputs["aside"]` the
    seconds that they took in the first process and that are no part of training, and, in all processes, `True` into
    `outputs["row"]` where what they have put is to be logged at this step. What is logged with Lightning's
    `self.log` is averaged likewise. `trainer.callback_metrics` has the means of the last row and, at the end of an
    epoch, those over the epoch.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}  # name -> [sum, count], of this rank
        self._of_ranks: dict[str, Tensor] = {}  # name -> those of each rank: of a checkpoint, or for the next
        self._first_bad_step = torch.zeros((), dtype=torch.int64)  # 0 for none
        self._train_seconds = 0.0
        self._watching_seconds = 0.0
        self._waiting_seconds = 0.0  # but for that of the loader; NaN where a former version has not measured it
        self._loader: Loader | None = None
        self._images_seen = 0
        self._peak_memory = 0
        self._started: float | None = None
        self._lr = 0.0
        self._number_of_epoch = 0
        self._logged_step = 0
        self._planned_steps = -1
        self._epoch: dict[str, list[float]] = {}  # name -> [sum, count], of this epoch's rows
        self._row_began = 0.0, 0  # when, and how many images had been seen
        self.row: dict[str, float] = {}
        """What was logged last."""
        self.images_per_second = math.nan
        """Between the last two rows of this command."""

    @property
    def train_seconds(self) -> float:
        """Wall time spent in training so far, over all resumptions, but for `watching_seconds`."""
        return self._train_seconds + (time.monotonic() - self._started if self._started is not None else 0.0)

    @property
    def waiting_seconds(self) -> float:
        """What of these was spent waiting for batches. Of several processes, since they were brought together for a
        checkpoint or the end, of the one that has waited longest: the others have waited for it."""
        return self._waiting_seconds + (self._loader.waited if self._loader is not None else 0.0)

    @property
    def watching_seconds(self) -> float:
        """What callbacks have taken in the meantime that only watch training."""
        return self._watching_seconds

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

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        assert isinstance(pl_module, SSLMethod)
        pl_module.recorded = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        count_memory(trainer.strategy.root_device)
        self._started = time.monotonic()
        self._row_began = self._started, self._images_seen
        loader = trainer.train_dataloader
        self._loader = loader if isinstance(loader, Loader) else None
        self._first_bad_step = self._first_bad_step.to(pl_module.device)
        self._planned_steps = pl_module.clock.planned
        self._sums = {name: pair.to(pl_module.device) for name, pair in self._own_part(trainer).items()}
        for logger in trainer.loggers:
            if hasattr(logger, "rewind"):
                logger.rewind(self._logged_step)

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SSLMethod)
        # Of this step; afterwards they are the next one's.
        self._planned_steps = pl_module.clock.planned
        self._number_of_epoch = trainer.current_epoch
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
        self._set_aside(outputs.get("aside", 0.0))
        if pl_module.batches % pl_module.batches_a_step:
            return
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if step == self._planned_steps or step % every == 0 or outputs.get("row", False):
            self._flush(trainer)
        if step == self._planned_steps or trainer.is_last_batch:
            self._end_epoch(trainer)

    def _set_aside(self, seconds: float) -> None:
        began, images = self._row_began
        self._row_began = began + seconds, images
        self._train_seconds -= seconds
        self._watching_seconds += seconds

    def _add(self, pairs: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        self._of_ranks = {}
        for name, pair in pairs.items():
            values = torch.stack([v.detach().float() for v in pair])
            self._sums[name] = self._sums[name] + values if name in self._sums else values

    def _add_logged(self, method: SSLMethod) -> None:
        self._add({name: (value, torch.ones_like(value)) for name, value in method.logged.items()})
        method.logged = {}

    def collect(self, trainer: L.Trainer) -> None:
        """Tells the first rank, whose state a checkpoint holds, the sums of all. All ranks must call this."""
        self._measure_memory(trainer)
        self._take_longest(trainer)
        names, of_ranks = self._gathered(trainer)
        self._of_ranks = dict(zip(names, of_ranks.unbind(1), strict=True))

    def _own_part(self, trainer: L.Trainer) -> dict[str, Tensor]:
        """Of a checkpoint's sums. If other processes have made it, the first one goes on with all of them."""
        ranks = {len(pairs) for pairs in self._of_ranks.values()}
        if ranks == {trainer.world_size}:
            return {name: pairs[trainer.global_rank] for name, pairs in self._of_ranks.items()}
        return {name: float(trainer.is_global_zero) * pairs.sum(0) for name, pairs in self._of_ranks.items()}

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        self._add_logged(pl_module)
        if self._sums:  # something ended training before its last step, or was logged after it
            self._flush(trainer)
        self._train_seconds, self._started = self.train_seconds, None
        self._waiting_seconds, self._loader = self.waiting_seconds, None
        self._measure_memory(trainer)
        self._take_longest(trainer)

    def _take_longest(self, trainer: L.Trainer) -> None:
        """Takes the longest of all ranks' times of waiting for one's own."""
        if trainer.world_size > 1:
            own = torch.tensor(self.waiting_seconds, device=trainer.strategy.root_device)
            self._waiting_seconds += float(trainer.strategy.reduce(own, reduce_op="max")) - self.waiting_seconds

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
        warmer = ", raise method.temperature" if hasattr(trainer.lightning_module, "temperature") else ""
        raise UserError(
            f"{what}; parameters no longer finite: {shown or 'none'}. What was saved before is kept. "
            f"Lower optimizer.lr{warmer} or lengthen the warm-up."
        )

    def _flush(self, trainer: L.Trainer) -> None:
        self.check(trainer)
        names, of_ranks = self._gathered(trainer)
        totals = of_ranks.cpu().sum(0)  # all of them at once
        self._sums, self._of_ranks = {}, {}
        self._logged_step = _steps(trainer)
        means = {name: (s / c).item() for name, (s, c) in zip(names, totals, strict=True) if c > 0}
        self.row = {"epoch": self._number_of_epoch, "lr": self._lr, **means}
        began, images = self._row_began
        self._row_began = time.monotonic(), self._images_seen
        self.images_per_second = (self._images_seen - images) / max(self._row_began[0] - began, 1e-9)
        show_metrics(trainer, means)
        for name, pair in zip(names, totals.tolist(), strict=True):
            self._epoch[name] = _sum(pair, self._epoch.get(name))
        for logger in trainer.loggers:
            logger.log_metrics(self.row, self._logged_step)

    def _end_epoch(self, trainer: L.Trainer) -> None:
        """Shows the means over the epoch to callbacks that watch them at its end."""
        names, of_ranks = self._gathered(trainer)
        of_next_row = dict(zip(names, of_ranks.sum(0).tolist(), strict=True))
        pairs = of_next_row | {name: _sum(pair, of_next_row.get(name)) for name, pair in self._epoch.items()}
        show_metrics(trainer, {name: total / count for name, (total, count) in pairs.items() if count > 0})
        self._epoch = {name: [-total, -count] for name, (total, count) in of_next_row.items()}  # no part of the next

    def _gathered(self, trainer: L.Trainer) -> tuple[list[str], Float[Tensor, "ranks m 2"]]:
        """Names, and the sums and counts of each rank."""
        names = sorted(self._sums)
        if trainer.world_size > 1:  # a rank may have logged what others have not
            their_names: list[list[str]] = [[] for _ in range(trainer.world_size)]
            dist.all_gather_object(their_names, names)
            names = sorted({name for some in their_names for name in some})
        if not names:
            return [], torch.zeros(trainer.world_size, 0, 2)
        nothing = torch.zeros(2, device=trainer.strategy.root_device)
        own = torch.stack([self._sums.get(name, nothing) for name in names])
        if trainer.world_size == 1:
            return names, own[None]
        of_ranks = [torch.empty_like(own) for _ in range(trainer.world_size)]
        dist.all_gather(of_ranks, own)
        return names, torch.stack(of_ranks)

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self._of_ranks or {name: pair[None] for name, pair in self._sums.items()},
            "logged_step": self._logged_step,
            "train_seconds": self.train_seconds,
            "watching_seconds": self.watching_seconds,
            "waiting_seconds": self.waiting_seconds,
            "images_seen": self._images_seen,
            "peak_memory": self._peak_memory,
            "planned_steps": self._planned_steps,
            "epoch": self._epoch,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._of_ranks = {name: pairs.reshape(-1, 2) for name, pairs in state_dict["sums"].items()}  # [2] once
        self._logged_step = state_dict["logged_step"]
        self._train_seconds = state_dict["train_seconds"]
        self._watching_seconds = state_dict.get("watching_seconds", 0.0)
        self._waiting_seconds = state_dict.get("waiting_seconds", math.nan)
        self._images_seen = state_dict["images_seen"]
        self._peak_memory = state_dict.get("peak_memory", 0)
        self._planned_steps = state_dict.get("planned_steps", -1)
        self._epoch = state_dict.get("epoch", {})


def _sum(one: Sequence[float], other: Sequence[float] | None) -> list[float]:
    return list(one) if other is None else [a + b for a, b in zip(one, other, strict=True)]


def _steps(trainer: L.Trainer) -> int:
    method = trainer.lightning_module
    assert isinstance(method, SSLMethod)
    return method.steps
