"""The loss of a method at weights that are not its own, and gradients that a step is told of."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import Objective, SSLMethod

Parameters = Sequence[Tensor]


class Elsewhere(nn.Module):
    """`ssl_loss` of a method as a function of its parameters; the method itself stays as it is.

    Args:
        method: whose buffers, such as BatchNorm's, each pass begins with.
        names: of the parameters that are given.
        draw: the same for all passes.
        twice: gradients of gradients are taken.
    """

    def __init__(self, method: SSLMethod, names: Sequence[str], draw: Draw, twice: bool) -> None:
        super().__init__()
        self.method = method
        self.names = [f"method.{name}" for name in names]
        self.draw = draw
        self.twice = twice

    def forward(self, batch: Batch) -> Objective:
        return self.method.ssl_loss(batch, LOCAL, self.draw)

    def objective(self, at: Parameters, batch: Batch) -> tuple[Objective, dict[str, Tensor]]:
        """At these parameters; and the buffers, by the method's names, as the pass has left them."""
        buffers = {name: buffer.clone() for name, buffer in self.method.named_buffers()}
        state = dict(zip(self.names, at, strict=True)) | {f"method.{name}": b for name, b in buffers.items()}
        # Of fused attention there is no gradient of the gradient.
        with sdpa_kernel(SDPBackend.MATH) if self.twice else contextlib.nullcontext():
            return functional_call(self, state, (batch,)), buffers


def gradient_of(loss: Tensor, at: Parameters, again: bool = False, differentiable: bool = False) -> list[Tensor]:
    """By these parameters; zero by those that the loss does not depend on.

    Args:
        again: it will be taken of the same loss once more.
        differentiable: so that it has gradients itself.
    """
    found = torch.autograd.grad(
        loss,
        list(at),
        retain_graph=again or differentiable,
        create_graph=differentiable,
        allow_unused=True,
        materialize_grads=True,
    )
    return list(found)


def leaves_of(at: Parameters) -> list[Tensor]:
    """Values without history, by which gradients can be taken."""
    return [p.detach().requires_grad_() for p in at]


class WithGradient(torch.autograd.Function):
    """A loss of known value whose gradients are given: one backward pass hands them to the parameters, so that
    DistributedDataParallel reduces them once and automatic optimisation sees an ordinary loss."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Parameters, *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, *torch._foreach_mul(list(ctx.gradients), upstream[0])


def of_batch_norm(method: nn.Module, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of BatchNorm, by name."""
    return {
        name: buffers[name]
        for place, module in method.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        for key, _ in module.named_buffers(recurse=False)
        for name in [f"{place}.{key}" if place else key]
    }


def update_batch_norm(method: nn.Module, passes: Sequence[dict[str, Tensor]]) -> None:
    """Running statistics move once a step, by the mean of what these passes, of a task each, would have done."""
    with torch.no_grad():
        for name, buffer in of_batch_norm(method, dict(method.named_buffers())).items():
            after = [buffers[name] for buffers in passes]
            buffer.copy_(after[0] if len(after) == 1 else torch.stack(after).double().mean(0))
