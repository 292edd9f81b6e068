"""How a method is optimised: algorithm, learning rate, what decays, warm-up and schedule."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True, kw_only=True)
class OptimizerRecipe:
    """Builds an optimizer and its schedule by optimizer step.

    Args:
        algorithm: optimizer class with its own arguments bound; called with parameter groups, `lr`, `weight_decay`.
        lr: peak learning rate, for `reference_batch_size` images a step where that is given (then scaled linearly).
        weight_decay: >= 0.
        batch_size: global images per optimizer step.
        exclude_bias_and_norm: no weight decay and no layer-wise adaptation for parameters of less than 2 dimensions.
        warmup_epochs: linear warm-up, in epochs of the subset; at most half of the training.
        warmup_ratio: share of the peak at which the warm-up starts, in [0, 1].
        schedule: `cosine` to `final_ratio` of the peak, or `constant`.
        final_ratio: share of the peak at the end, in [0, 1].
    """

    algorithm: Callable[..., Optimizer]
    lr: float
    batch_size: int
    weight_decay: float = 0.0
    reference_batch_size: int | None = None
    exclude_bias_and_norm: bool = True
    warmup_epochs: float = 0.0
    warmup_ratio: float = 0.0
    schedule: Literal["cosine", "constant"] = "cosine"
    final_ratio: float = 0.0

    @property
    def peak_lr(self) -> float:
        return self.lr * (self.batch_size / self.reference_batch_size if self.reference_batch_size else 1.0)

    def factor(self, step: int, warmup_steps: int, total_steps: int) -> float:
        """Learning rate of the 0-based `step` as a share of the peak."""
        if step < warmup_steps:
            return self.warmup_ratio + (1 - self.warmup_ratio) * (step + 1) / warmup_steps
        if self.schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return self.final_ratio + (1 - self.final_ratio) * (1 + math.cos(math.pi * progress)) / 2

    def build(self, module: nn.Module, steps_per_epoch: int, total_steps: int) -> tuple[Optimizer, LambdaLR]:
        """Optimizer of all trainable parameters of `module`, and a scheduler to be stepped once a step."""
        parameters = [p for p in module.parameters() if p.requires_grad]
        excluded = [p for p in parameters if self.exclude_bias_and_norm and p.ndim < 2]
        kept = [p for p in parameters if not (self.exclude_bias_and_norm and p.ndim < 2)]
        groups: list[dict[str, Any]] = [{"params": kept}, {"params": excluded, "weight_decay": 0.0}]
        optimizer = self.algorithm(
            [group for group in groups if group["params"]], lr=self.peak_lr, weight_decay=self.weight_decay
        )
        if "adapt" in optimizer.defaults:
            for group in optimizer.param_groups:
                group["adapt"] = not (self.exclude_bias_and_norm and group["params"][0].ndim < 2)
        warmup_steps = min(round(self.warmup_epochs * steps_per_epoch), total_steps // 2)
        return optimizer, LambdaLR(optimizer, lambda step: self.factor(step, warmup_steps, total_steps))
