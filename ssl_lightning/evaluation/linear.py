"""Linear probes: multinomial logistic regression on frozen, standardised features.

The problem is convex, so it is solved, not trained: no learning rate, no epochs, no augmentation to choose.
"""

import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Float64, Int, Int64
from torch import Tensor
from torch.nn.functional import log_softmax

from ssl_lightning.metrics.accuracy import accuracy
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


class _LogisticRegression:
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
    return _LogisticRegression(features, labels, num_classes).solve(l2, initial, max_iterations, tolerance)


def linear_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    num_classes: int,
    validation: Bool[Tensor, " n"],
    l2_grid: Sequence[float],
) -> dict[str, float]:
    """Test accuracy of logistic regression on all training features, its `l2` chosen without the test set.

    For every `l2` of the grid, strong to weak, a classifier is fitted to the training features outside of the
    `validation` part; the one most accurate on that part wins, the stronger `l2` on a tie. Then it is fitted
    again, to all training features. Features are standardised with the statistics of those fitted to.

    Returns accuracies in [0, 1]: `linear/top1`, `linear/val_top1` (the winner's, before the second fit),
    `linear/top5` where there are more than 10 classes, and the chosen `linear/l2`.
    """
    if validation.all() or not validation.any():
        raise ValueError("validation must mark some of the training features to choose l2 on, and not all")
    standardise = Standardiser.fit(train[~validation])
    held_out, held_out_labels = standardise(train[validation]), train_labels[validation]
    problem = _LogisticRegression(standardise(train[~validation]), train_labels[~validation], num_classes)
    weights, best_weights, best_l2, best_accuracy = None, None, float("nan"), -1.0
    for l2 in sorted(l2_grid, reverse=True):
        weights = problem.solve(l2, initial=weights)
        right = accuracy(weights.logits(held_out), held_out_labels)
        if right > best_accuracy:
            best_weights, best_l2, best_accuracy = weights, l2, right
    del problem, held_out  # the largest tensors; the second fit needs as much again

    standardise = Standardiser.fit(train)
    weights = fit_logistic(standardise(train), train_labels, num_classes, best_l2, initial=best_weights)
    logits = weights.logits(standardise(test))
    metrics = {
        "linear/top1": accuracy(logits, test_labels),
        "linear/val_top1": best_accuracy,
        "linear/l2": float(best_l2),
    }
    if num_classes > 10:
        metrics["linear/top5"] = accuracy(logits, test_labels, k=5)
    return metrics


def draw_labels(labels: Int64[Tensor, " n"], percent: float, generator: torch.Generator) -> Int64[Tensor, " m"]:
    """Positions of a random part of each class: `round(n_c * percent / 100)` samples, at least one."""
    counts = labels.bincount()
    quotas = (counts * percent / 100).round().long().clamp(min=1)
    return _draw(labels, torch.minimum(quotas, counts), generator)


def _draw(labels: Int64[Tensor, " n"], quotas: Int64[Tensor, " c"], generator: torch.Generator) -> Int64[Tensor, " m"]:
    """Positions of a random subset, `quotas[y]` samples of every class y. Larger quotas only add samples."""
    shuffled = torch.randperm(len(labels), generator=generator)
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    classes = labels[by_class]
    counts = labels.bincount(minlength=len(quotas))
    rank_in_class = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[classes]
    return by_class[rank_in_class < quotas[classes]]


def few_label_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    num_classes: int,
    *,
    shots: int | None = None,
    percent: float | None = None,
    draws: int,
    seed: int,
) -> dict[str, float]:
    """Test accuracy of logistic regression on a few labels a class, averaged over `draws` random subsets.

    Of a class with n_c samples a subset has `min(shots, n_c)`, or `round(n_c * percent / 100)` but at least
    one, so that small classes get more than `percent`. Subsets depend on `seed` and labels only, and those of
    the same seed are nested: a larger budget adds samples to a smaller one's. There is nothing to tune on:
    features are standardised with the subset's statistics, and `l2 = 1 / size`, scikit-learn's C = 1.

    Returns the mean accuracy in [0, 1], `linear_5shot/top1` or `linear_1pct/top1`, and the standard deviation
    over draws (n - 1; 0 for a single draw), `linear_5shot/top1_std`.
    """
    if (shots is None) == (percent is None):
        raise ValueError("few_label_probe takes exactly one of shots and percent: leave the other out")
    labels = train_labels.long().cpu()
    counts = labels.bincount(minlength=num_classes)
    if shots is not None:
        quotas, name = torch.full_like(counts, shots), f"linear_{shots}shot"
    elif percent is not None:
        quotas, name = (counts * percent / 100).round().long().clamp(min=1), f"linear_{percent:g}pct"

    generator = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(draws):
        subset = _draw(labels, quotas, generator).to(train.device)
        features = train[subset]
        standardise = Standardiser.fit(features)
        weights = fit_logistic(standardise(features), train_labels[subset], num_classes, l2=1 / len(subset))
        accuracies.append(accuracy(weights.logits(standardise(test)), test_labels))
    return {
        f"{name}/top1": statistics.fmean(accuracies),
        f"{name}/top1_std": statistics.stdev(accuracies) if draws > 1 else 0.0,
    }
