"""How a method is optimised: algorithm, learning rate, what decays, warm-up and schedules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NotRequired, TypedDict

from torch import Tensor
from torch.optim import Optimizer

from ssl_lightning.optim.schedule import OneCycle, Schedule, Scheduler
from ssl_lightning.ranges import Count, NonNegative, Positive, Share


class ParameterGroup(TypedDict):
    """Parameters that are optimised alike.

    `decay`: whether weights decay and layer-wise adaptation scales them; False for biases and norms.
    `schedules`: of hyper-parameters by name, instead of the recipe's: `{"lr": Schedule(shape="constant")}`.
    """

    params: list[Tensor]
    decay: NotRequired[bool]
    schedules: NotRequired[Mapping[str, Schedule | OneCycle]]


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """Builds an optimizer and its schedules by optimizer step.

    Args:
        algorithm: optimizer class with its own arguments bound; called with parameter groups, `lr`, `weight_decay`.
        lr: peak learning rate, for `reference_batch_size` images a step where that is given (then scaled linearly).
        weight_decay: of weights.
        batch_size: global images per optimizer step.
        exclude_bias_and_norm: no weight decay and no layer-wise adaptation for the groups that a method marks so:
            biases, norms, tokens and positions.
        warmup_epochs: linear warm-up of the learning rate, in epochs of the subset; at most half of the training.
        warmup_ratio: share of the peak at which the warm-up starts, in [0, 1].
        schedule: of the learning rate: `cosine` to `final_ratio` of the peak, or `constant`.
        final_ratio: share of the peak at the end, in [0, 1].
        schedules: of other hyper-parameters of the optimizer, by name, such as weight_decay or momentum; that of `lr`
            stands instead of the four settings before.
    """

    algorithm: Callable[..., Optimizer]
    lr: Positive
    batch_size: Count
    weight_decay: NonNegative = 0.0
    reference_batch_size: Count | None = None
    exclude_bias_and_norm: bool = True
    warmup_epochs: NonNegative = 0.0
    warmup_ratio: Share = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_ratio: Share = 0.0
    schedules: Mapping[str, Schedule | OneCycle] | None = None

    @property
    def peak_lr(self) -> float:
        return self.lr * (self.batch_size / self.reference_batch_size if self.reference_batch_size else 1.0)

    @property
    def lr_schedule(self) -> Schedule:
        return Schedule(
            shape=self.schedule,
            final_ratio=self.final_ratio,
            warmup_epochs=self.warmup_epochs,
            warmup_ratio=self.warmup_ratio,
        )

    def build(
        self,
        groups: Sequence[ParameterGroup],
        steps_per_epoch: int,
        total_steps: int,
        at: Callable[[int], int] | None = None,
    ) -> tuple[Optimizer, Scheduler]:
        """Optimizer of the parameters of all groups, and a scheduler to be stepped once a step.

        Args:
            at: see `Scheduler`.
        """
        given: list[dict[str, Any]] = []
        schedules: list[Mapping[str, Schedule | OneCycle]] = []
        for group in groups:
            if not group["params"]:
                continue
            excluded = self.exclude_bias_and_norm and not group.get("decay", True)
            given.append({"params": group["params"], **({"weight_decay": 0.0} if excluded else {})})
            schedules.append({"lr": self.lr_schedule, **(self.schedules or {}), **group.get("schedules", {})})
        optimizer = self.algorithm(given, lr=self.peak_lr, weight_decay=self.weight_decay)
        if "adapt" in optimizer.defaults:
            for group, made in zip([g for g in groups if g["params"]], optimizer.param_groups, strict=True):
                made["adapt"] = not (self.exclude_bias_and_norm and not group.get("decay", True))
        return optimizer, Scheduler(optimizer, schedules, steps_per_epoch, total_steps, at)
