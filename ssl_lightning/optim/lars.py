"""LARS, layer-wise adaptive rate scaling, with multi-tensor operations and no host synchronisation."""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor
from torch.optim import Optimizer

from ssl_lightning.ranges import NonNegative, Positive


class LARS(Optimizer):
    """SGD with momentum whose step is scaled per tensor (arXiv 1708.03888).

    d = g + wd·w;  d ← d · η‖w‖ / (‖g‖ + wd·‖w‖ + ε);  v ← m·v + d;  w ← w − lr·v.
    The ratio is 1 where ‖w‖ is 0. Where ‖g‖ is 0, d is 0: weights that get no gradient do not decay, as in the common
    implementations. Parameter groups with `adapt: False` (biases and norms) take plain steps.

    Args:
        lr: learning rate.
        momentum: m.
        weight_decay: wd.
        trust_coefficient: η.
        clip: scale by min(ratio/lr, 1) instead (LARC), so that no step is larger than that of SGD at rate lr.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: NonNegative,
        momentum: Annotated[float, Ge(0), Lt(1)] = 0.9,
        weight_decay: NonNegative = 0.0,
        trust_coefficient: Positive = 0.001,
        clip: bool = False,
        eps: NonNegative = 1e-8,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
            "clip": clip,
            "eps": eps,
            "adapt": True,
        }
        for key in ("lr", "momentum", "weight_decay"):
            if defaults[key] < 0:
                raise ValueError(f"LARS: {key} is {defaults[key]}; it must be at least 0")
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._step_group(group, params)
        return loss

    def _step_group(self, group: dict[str, Any], params: list[Tensor]) -> None:
        weight_decay, lr, eps = group["weight_decay"], group["lr"], group["eps"]
        gradients = [p.grad for p in params if p.grad is not None]
        direction = torch._foreach_add(gradients, params, alpha=weight_decay)
        if group["adapt"]:
            weight_norms = torch.stack(torch._foreach_norm(params))
            gradient_norms = torch.stack(torch._foreach_norm(gradients))
            ratio = group["trust_coefficient"] * weight_norms
            ratio = ratio / (gradient_norms + weight_decay * weight_norms + eps)
            ratio = torch.where(weight_norms > 0, ratio, 1.0)
            if group["clip"]:
                ratio = (ratio / max(lr, eps)).clamp(max=1.0)
            ratio = torch.where(gradient_norms > 0, ratio, 0.0)
            torch._foreach_mul_(direction, list(ratio.unbind()))
        momenta = []
        for p in params:
            state = self.state[p]
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(p)
            momenta.append(state["momentum"])
        torch._foreach_mul_(momenta, group["momentum"])
        torch._foreach_add_(momenta, direction)
        torch._foreach_add_(params, momenta, alpha=-lr)
