"""Multinomial logistic regression on frozen, standardised features.

The problem is convex, so it is solved, not trained: no learning rate, no epochs, no augmentation to choose.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor
from torch.nn.functional import log_softmax

from ssl_lightning.metrics.moments import Moments

_ROWS = 8192  # rows that are converted at a time
# Up to this many numbers (1 GiB) the solver holds its copy of the features in float64: reduced precision
# modes of float32 products (TF32) then cannot disturb its line search. Larger copies are float32.
_FLOAT64_NUMEL = 2**27
_THREADED_NUMEL = 2**20  # below this many numbers a product is too short for a second thread to pay
# PyTorch's L-BFGS learns nothing from steps of which (gradient change) · (step) is below an absolute 1e-10,
# too coarse for losses that are small themselves, so it is given this multiple of the objective.
_SCALE = 1e6


class Weights(NamedTuple):
    """A linear classifier."""

    weight: Float64[Tensor, "c d"]
    bias: Float64[Tensor, " c"]

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        """`features @ weight.T + bias`, computed in the features' type."""
        return torch.addmm(self.bias.to(features.dtype), features, self.weight.to(features.dtype).T)


class Standardiser(NamedTuple):
    """Gives every dimension mean 0 and standard deviation 1 *on the features that it was fitted to*."""

    mean: Float64[Tensor, " d"]
    scale: Float64[Tensor, " d"]

    @classmethod
    def fit(cls, features: Float[Tensor, "n d"]) -> "Standardiser":
        """Biased statistics. A dimension that is constant up to rounding is shifted only (its scale is 1)."""
        mean = features.mean(0, dtype=torch.float64)
        squares = torch.zeros_like(mean)
        for rows in features.split(_ROWS):
            squares += (rows - mean).square().sum(0)
        deviation = (squares / len(features)).sqrt()
        varies = deviation > 10 * torch.finfo(features.dtype).eps * mean.abs()
        return cls(mean, torch.where(varies, deviation, 1.0))

    def __call__(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return (features - self.mean.to(features.dtype)) / self.scale.to(features.dtype)


@contextmanager
def _threads_that_pay(numel: int) -> Iterator[None]:
    """One thread for small problems.

    A solve is thousands of short operations. Threads hardly speed these up, but where several jobs share the
    cores every barrier waits for a thread that is not scheduled: two jobs on two cores take 30 times as long.
    """
    threads = torch.get_num_threads()
    if numel < _THREADED_NUMEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class LogisticRegression:
    """The objective in coordinates in which it is well conditioned, prepared once for any number of `l2`.

    Correlated features make L-BFGS crawl. In the principal axes V of the features, centred, the penalty keeps
    its form (V is orthonormal, the bias is free and absorbs the shift), the Hessian is near to diagonal, and
    dividing each coordinate by the root of its curvature leaves a problem close to the identity. With fewer
    samples than dimensions the axes span the samples only; the minimiser lies in that span.
    """

    def __init__(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], num_classes: int) -> None:
        n, d = features.shape
        self.samples = torch.arange(n, device=labels.device)
        self.labels = labels.long()
        self.num_classes = num_classes
        self.centre = features.mean(0, dtype=torch.float64)
        with _threads_that_pay(features.numel()):
            if n < d:
                self.axes = torch.linalg.svd(features - self.centre, full_matrices=False).Vh.T
            else:
                moments = Moments(d, features.device)
                moments.update(features)
                self.axes = torch.linalg.eigh(moments.covariance()).eigenvectors
        rank = self.axes.shape[1]
        dtype = torch.float64 if n * rank <= _FLOAT64_NUMEL else features.dtype
        # The last coordinate is 1 and carries the bias.
        self.coordinates = torch.ones(n, rank + 1, dtype=dtype, device=features.device)
        self.second_moments = torch.ones(rank + 1, dtype=torch.float64, device=features.device)
        self.second_moments[:-1] = 0.0
        for rows, target in zip(features.split(_ROWS), self.coordinates.split(_ROWS), strict=True):
            coordinates = (rows - self.centre) @ self.axes
            target[:, :-1] = coordinates
            self.second_moments[:-1] += coordinates.square().sum(0) / n

    def _log_probabilities(self, parameters: Float64[Tensor, "c k"]) -> Float64[Tensor, "n c"]:
        logits = self.coordinates @ parameters.to(self.coordinates.dtype).T
        return log_softmax(logits.double(), dim=1)

    @torch.no_grad()
    def solve(
        self, l2: float, initial: Weights | None = None, max_iterations: int = 1000, tolerance: float = 1e-5
    ) -> Weights:
        rank = self.axes.shape[1]
        start = self.coordinates.new_zeros(self.num_classes, rank + 1, dtype=torch.float64)
        if initial is not None:
            start[:, :-1] = initial.weight @ self.axes
            start[:, -1] = initial.bias + initial.weight @ self.centre

        # The softmax's curvature, averaged over samples and classes, where the search begins.
        probabilities = self._log_probabilities(start).exp()
        softness = (probabilities * (1 - probabilities)).mean().clamp(min=1e-6)
        penalty = torch.full_like(self.second_moments, l2)
        penalty[-1] = 0.0
        step = (softness * self.second_moments + penalty).rsqrt()

        parameter = start / step

        def closure() -> Tensor:
            current = parameter * step
            log_probabilities = self._log_probabilities(current)
            cross_entropy = -log_probabilities[self.samples, self.labels].mean()
            loss = cross_entropy + (penalty * current.square()).sum() / 2
            residuals = log_probabilities.exp()
            residuals[self.samples, self.labels] -= 1
            gradient = (residuals.to(self.coordinates.dtype).T @ self.coordinates).double() / len(residuals)
            parameter.grad = (gradient + penalty * current) * step * _SCALE
            return loss * _SCALE

        optimizer = torch.optim.LBFGS(
            [parameter],
            max_iter=max_iterations,
            max_eval=2 * max_iterations,
            tolerance_grad=tolerance * _SCALE,
            tolerance_change=1e-20,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        with _threads_that_pay(self.coordinates.numel()):
            optimizer.step(closure)
        solution = parameter * step
        weight = solution[:, :-1] @ self.axes.T
        return Weights(weight, solution[:, -1] - weight @ self.centre)


def fit_logistic(
    features: Float[Tensor, "n d"],
    labels: Int[Tensor, " n"],
    num_classes: int,
    l2: float,
    initial: Weights | None = None,
    max_iterations: int = 1000,
    tolerance: float = 1e-5,
) -> Weights:
    """Multinomial logistic regression: minimises mean cross-entropy + `l2 / 2 * ||weight||²`, for `l2 > 0`.

    scikit-learn's `LogisticRegression(C=1 / (n * l2))`. The bias is not penalised. Full-batch L-BFGS with a
    strong Wolfe line search, deterministic, until no component of the gradient (in coordinates of about unit
    curvature) exceeds `tolerance`; `initial` starts it elsewhere than at 0 and does not change the minimum.
    Labels are in `[0, num_classes)`; a class without samples only gets an ever smaller bias.

    Losses, parameters and gradients are float64. So are the products with the features, unless that copy of
    them would exceed 1 GiB: then it has the features' type. Rounding ends the search at a gradient of about
    1e-9, in float32 of about 1e-6, even where `tolerance` asks for less.
    """
    return LogisticRegression(features, labels, num_classes).solve(l2, initial, max_iterations, tolerance)
