"""Muon: steps along the orthogonalised momentum of each weight matrix, without host synchronisation."""

import math
from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Len, Lt
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from ssl_lightning.ranges import NonNegative, Positive

Beta = Annotated[float, Ge(0), Lt(1)]
# Of the odd polynomial that takes all singular values into about [0.7, 1.2] in five steps.
STEPS, (A, B, C) = 5, (3.4445, -4.7750, 2.0315)


def orthogonalised(matrices: Float[Tensor, "n rows columns"]) -> Float[Tensor, "n rows columns"]:
    """Each matrix UΣVᵀ as about UVᵀ: its singular values become about 1, but for those that are almost 0.

    Newton–Schulz steps X ← aX + (bS + cS²)X with S = XXᵀ, from X of Frobenius norm 1.
    """
    rows, columns = matrices.shape[1:]
    x = matrices.mT if rows > columns else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-7)
    for _ in range(STEPS):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=B, alpha=C), x, beta=A)
    return x.mT if rows > columns else x


class Muon(Optimizer):
    """Muon for weights, AdamW for all else (https://kellerjordan.github.io/posts/muon; arXiv 2502.16982).

    v ← m·v + (1 − m)·g;  w ← w − lr·wd·w − lr·0.2·√max(rows, columns)·UVᵀ, where UΣVᵀ = (1 − m)·g + m·v (Nesterov).
    The factor gives a step the root mean square of AdamW's, so that both share one learning rate and weight decay.
    The kernel of a convolution is the matrix [output channels, all else].

    `torch.optim.Muon` takes no convolutions. On matrices this one does the same; those of one shape go together, in
    bfloat16 on GPUs and in the precision of the weights elsewhere.

    Parameters of one dimension, and groups with `adapt: False` (biases, norms, tokens and positions), take AdamW's
    steps.

    Args:
        lr: learning rate.
        momentum: m.
        weight_decay: wd.
        betas, eps: of AdamW.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: NonNegative,
        momentum: Beta = 0.95,
        weight_decay: NonNegative = 0.0,
        betas: Annotated[Sequence[Beta], Len(2, 2)] = (0.9, 0.999),
        eps: Positive = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        for key, value in defaults.items():
            if value < 0:
                raise ValueError(f"Muon: {key} is {value}; it must be at least 0")
        super().__init__(params, {**defaults, "betas": betas, "eps": eps, "adapt": True})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[Tensor]] = {}
            others = []
            for p in group["params"]:
                if p.grad is None:
                    continue
                if group["adapt"] and p.ndim > 1:
                    by_shape.setdefault((len(p), p[0].numel()), []).append(p)
                else:
                    others.append(p)
            for shape, weights in by_shape.items():
                self._step_weights(group, weights, *shape)
            if others:
                self._step_others(group, others)
        return loss

    def _step_weights(self, group: dict[str, Any], weights: list[Tensor], rows: int, columns: int) -> None:
        """Of weights whose matrices have one shape."""
        lr, momentum = group["lr"], group["momentum"]
        gradients = [p.grad for p in weights if p.grad is not None]
        for p in weights:
            if not self.state[p]:
                self.state[p]["momentum"] = torch.zeros_like(p)
        momenta = [self.state[p]["momentum"] for p in weights]
        torch._foreach_lerp_(momenta, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, momenta, momentum)
        matrices = torch.stack([direction.flatten(1) for direction in directions])
        if matrices.is_cuda:
            matrices = matrices.bfloat16()
        steps = orthogonalised(matrices).to(weights[0].dtype)
        torch._foreach_mul_(weights, 1 - lr * group["weight_decay"])
        size = lr * 0.2 * math.sqrt(max(rows, columns))
        torch._foreach_add_(weights, [s.view(p.shape) for s, p in zip(steps, weights, strict=True)], alpha=-size)

    def _step_others(self, group: dict[str, Any], others: list[Tensor]) -> None:
        for p in others:
            if not self.state[p]:
                self.state[p] |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
                self.state[p]["step"] = torch.tensor(0.0)  # on the host
        states = [self.state[p] for p in others]
        adamw(
            others,
            [p.grad for p in others if p.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
