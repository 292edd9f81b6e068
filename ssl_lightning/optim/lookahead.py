"""Lookahead (Zhang et al. 2019, arXiv 1907.08610): slow weights that follow a fast optimizer every few steps."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import Tensor
from torch.optim import Optimizer

from ssl_lightning.ranges import Count


class Lookahead(Optimizer):
    """After every `every` steps of the fast optimizer, slow weights move towards the fast ones, φ ← φ + share (θ − φ),
    and fast ones start there, θ ← φ.

    Args:
        parameters: or groups of them.
        algorithm: class of the fast optimizer, with its own arguments bound.
        every: k.
        share: α, how far slow weights move; 1 leaves the fast optimizer as it is.
        options: for the fast optimizer, such as `lr`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor] | Iterable[dict[str, Any]],
        algorithm: Callable[..., Optimizer],
        every: Count = 5,
        share: Annotated[float, Gt(0), Le(1)] = 0.5,
        **options: Any,
    ) -> None:
        self.fast = algorithm(parameters, **options)
        super().__init__(self.fast.param_groups, self.fast.defaults)
        self.fast.param_groups = self.param_groups  # whose learning rates schedules change
        self.every, self.share, self.taken = every, share, 0
        self._slow = [parameter.detach().clone() for parameter in self._parameters()]

    def _parameters(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = self.fast.step(closure)
        self.taken += 1
        if self.taken % self.every == 0:
            fast = self._parameters()
            torch._foreach_lerp_(self._slow, fast, self.share)
            torch._foreach_copy_(fast, self._slow)
        return loss

    def state_dict(self) -> dict[str, Any]:
        return self.fast.state_dict() | {"lookahead": {"taken": self.taken, "slow": self._slow}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        held = state_dict["lookahead"]
        self.fast.load_state_dict({key: value for key, value in state_dict.items() if key != "lookahead"})
        self.param_groups = self.fast.param_groups
        self.taken = held["taken"]
        self._slow = [
            value.to(parameter, copy=True) for value, parameter in zip(held["slow"], self._parameters(), strict=True)
        ]
