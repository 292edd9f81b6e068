"""Hyper-parameters that change during training, by optimizer step."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_lightning.errors import UserError
from ssl_lightning.ranges import NonNegative, Share


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A hyper-parameter over training, as a factor of the value that it was given.

    Args:
        shape: after the warm-up, `cosine` from 1 to `final_ratio`, `linear`, or `constant`.
        final_ratio: the factor at the end; above 1 the hyper-parameter grows.
        warmup_epochs: linear warm-up, in epochs of the subset; at most half of the training.
        warmup_ratio: the factor at which the warm-up starts, in [0, 1].
    """

    shape: Literal["cosine", "linear", "constant"] = "cosine"
    final_ratio: NonNegative = 0.0
    warmup_epochs: NonNegative = 0.0
    warmup_ratio: Share = 0.0

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """At the 0-based optimizer step."""
        warmup = min(round(self.warmup_epochs * steps_per_epoch), total_steps // 2)
        if step < warmup:
            return self.warmup_ratio + (1 - self.warmup_ratio) * (step + 1) / warmup
        if self.shape == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
        share = (1 + math.cos(math.pi * progress)) / 2 if self.shape == "cosine" else 1 - progress
        return self.final_ratio + (1 - self.final_ratio) * share


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """A hyper-parameter that goes up and down again, or down and up, once (arXiv 1708.07120).

    As a factor of the value that it was given: from `start_ratio` to `peak_ratio` at the step rise·T − 1, and on to
    `final_ratio` at the last of T steps. Step by step what `torch.optim.lr_scheduler.OneCycleLR` does with two phases.

    Args:
        shape: of both ways: half a `cosine`, or `linear`.
        rise: share of the training until the peak.
        start_ratio, peak_ratio, final_ratio: factors; a momentum that falls meanwhile has its smallest at the peak.
    """

    shape: Literal["cosine", "linear"] = "cosine"
    rise: Share = 0.3
    start_ratio: NonNegative = 0.04
    peak_ratio: NonNegative = 1.0
    final_ratio: NonNegative = 4e-6

    def factor(self, step: int, steps_per_epoch: int, total_steps: int) -> float:
        """At the 0-based optimizer step."""
        peak, last = max(0.0, self.rise * total_steps - 1), total_steps - 1
        step = min(step, last)
        if step <= peak:
            start, end, progress = self.start_ratio, self.peak_ratio, step / peak if peak else 1.0
        else:
            start, end, progress = self.peak_ratio, self.final_ratio, (step - peak) / (last - peak)
        left = (1 + math.cos(math.pi * progress)) / 2 if self.shape == "cosine" else 1 - progress
        return end + (start - end) * left


class Scheduler(LRScheduler):
    """Sets the hyper-parameters of each parameter group before each optimizer step.

    Args:
        optimizer: whose groups hold the values that the factors multiply.
        schedules: of each group, by the name of the hyper-parameter.
        steps_per_epoch, total_steps: in optimizer steps.
        at: the step of the schedules that an optimizer step is made with, by default its own; such as
            `Clock.scheduled`.

    Raises:
        UserError: the optimizer has no hyper-parameter of that name, or one that is no number.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        schedules: Sequence[Mapping[str, Schedule | OneCycle]],
        steps_per_epoch: int,
        total_steps: int,
        at: Callable[[int], int] | None = None,
    ) -> None:
        self._schedules = schedules
        self._at = at
        self._length = steps_per_epoch, total_steps
        for group, named in zip(optimizer.param_groups, schedules, strict=True):
            for name in named:
                if type(group.get(name)) not in (int, float):
                    known = ", ".join(key for key, value in group.items() if type(value) in (int, float))
                    raise UserError(
                        f"optimizer.schedules names {name!r}, which is no number that {type(optimizer).__name__} has. "
                        f"Choose among {known}."
                    )
        self._values = [
            {name: group[name] for name in named}
            for group, named in zip(optimizer.param_groups, schedules, strict=True)
        ]
        super().__init__(optimizer)  # takes the first step

    def get_lr(self) -> list[float | Tensor]:
        """Learning rates of the groups; sets all other hyper-parameters."""
        rates: list[float | Tensor] = []
        step = self.last_epoch if self._at is None else self._at(self.last_epoch)
        for group, named, values in zip(self.optimizer.param_groups, self._schedules, self._values, strict=True):
            current = {name: values[name] * schedule.factor(step, *self._length) for name, schedule in named.items()}
            rates.append(current.pop("lr", group["lr"]))
            group.update(current)
        return rates

    def state_dict(self) -> dict[str, object]:
        """How many steps were made; the rest follows from the configuration."""
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        self.last_epoch = int(state_dict["last_epoch"])  # type: ignore[call-overload]
        self._last_lr = self.get_lr()
