"""LARS, layer-wise adaptive rate scaling, with multi-tensor operations and no host synchronisation."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class LARS(Optimizer):
    """SGD with momentum whose step is scaled per tensor (arXiv 1708.03888).

    d = g + wd·w;  d ← d · η‖w‖ / (‖g‖ + wd·‖w‖ + ε);  v ← m·v + d;  w ← w − lr·v.
    The ratio is 1 where ‖w‖ or ‖g‖ is 0. Parameter groups with `adapt: False` (biases and norms) take plain steps.

    Args:
        lr: learning rate, >= 0.
        momentum: m in [0, 1).
        weight_decay: wd >= 0.
        trust_coefficient: η > 0.
        clip: scale by min(ratio/lr, 1) instead (LARC), so that no step is larger than that of SGD at rate lr.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        clip: bool = False,
        eps: float = 1e-8,
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
            ratio = torch.where((weight_norms > 0) & (gradient_norms > 0), ratio, 1.0)
            if group["clip"]:
                ratio = (ratio / max(lr, eps)).clamp(max=1.0)
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
