"""Linear probes: logistic regression on all labels, its penalty chosen, and on a few."""

import statistics
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import torch
from annotated_types import MinLen
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor

from ssl_lightning.evaluation.logistic import LogisticRegression, Standardiser, Weights, fit_logistic
from ssl_lightning.metrics.accuracy import accuracy
from ssl_lightning.ranges import DISTINCT, Positive

Penalties = Annotated[Sequence[Positive], MinLen(1), DISTINCT]
PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
"""What is tried, of the squared weights, where nothing else is asked for."""


class Probe(NamedTuple):
    """A linear classifier of representations.

    Args:
        val_top1: accuracy on the validation part, before the second fit.
        l2: the penalty that was chosen there.
    """

    standardise: Standardiser
    weights: Weights
    val_top1: float
    l2: float

    def logits(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
        return self.weights.logits(self.standardise(features))

    def accuracy(self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"]) -> float:
        """In [0, 1]."""
        return accuracy(self.logits(features), labels)


def chosen_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    num_classes: int,
    validation: Bool[Tensor, " n"],
    l2_grid: Sequence[float],
) -> Probe:
    """Logistic regression on all training features, its `l2` chosen without the test set.

    For every `l2` of the grid, strong to weak, a classifier is fitted to the training features outside of the
    `validation` part; the one most accurate on that part wins, the stronger `l2` on a tie. Then it is fitted
    again, to all training features. Features are standardised with the statistics of those fitted to.
    """
    if validation.all() or not validation.any():
        raise ValueError("validation must mark some of the training features to choose l2 on, and not all")
    standardise = Standardiser.fit(train[~validation])
    held_out, held_out_labels = standardise(train[validation]), train_labels[validation]
    problem = LogisticRegression(standardise(train[~validation]), train_labels[~validation], num_classes)
    weights, best_weights, best_l2, best_accuracy = None, None, float("nan"), -1.0
    for l2 in sorted(l2_grid, reverse=True):
        weights = problem.solve(l2, initial=weights)
        right = accuracy(weights.logits(held_out), held_out_labels)
        if right > best_accuracy:
            best_weights, best_l2, best_accuracy = weights, l2, right
    del problem, held_out  # the largest tensors; the second fit needs as much again

    standardise = Standardiser.fit(train)
    weights = fit_logistic(standardise(train), train_labels, num_classes, best_l2, initial=best_weights)
    return Probe(standardise, weights, best_accuracy, float(best_l2))


def linear_stage(images: int, settings: Sequence[float]) -> str:
    """What is said before a linear probe is trained."""
    return f"linear probe: {images:,} images, settings tried: {len(settings)}"


def linear_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    num_classes: int,
    validation: Bool[Tensor, " n"],
    l2_grid: Sequence[float],
) -> dict[str, float]:
    """Test accuracy of `chosen_probe`, as `probe_metrics`."""
    probe = chosen_probe(train, train_labels, num_classes, validation, l2_grid)
    return probe_metrics(probe, test, test_labels, num_classes)


def probe_metrics(
    probe: Probe, test: Float[Tensor, "m d"], test_labels: Int[Tensor, " m"], num_classes: int
) -> dict[str, float]:
    """Accuracies in [0, 1]: `linear/top1`, `linear/val_top1` (the winner's, before the second fit), `linear/top5` where
    there are more than 10 classes, and the chosen `linear/l2`."""
    logits = probe.logits(test)
    metrics = {"linear/top1": accuracy(logits, test_labels), "linear/val_top1": probe.val_top1, "linear/l2": probe.l2}
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


def exactly(number: float) -> str:
    """The shortest text that is this number and no other: 10, 0.1."""
    return repr(float(number)).removesuffix(".0")


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

    Returns the mean accuracy in [0, 1], `linear_5shot/top1` or `linear_1pct/top1`, and of several draws their standard
    deviation (n - 1), `linear_5shot/top1_std`.
    """
    if (shots is None) == (percent is None):
        raise ValueError("few_label_probe takes exactly one of shots and percent: leave the other out")
    labels = train_labels.long().cpu()
    counts = labels.bincount(minlength=num_classes)
    if shots is not None:
        quotas, name = torch.full_like(counts, shots), f"linear_{shots}shot"
    elif percent is not None:
        quotas, name = (counts * percent / 100).round().long().clamp(min=1), f"linear_{exactly(percent)}pct"

    generator = torch.Generator().manual_seed(seed)
    accuracies = []
    for _ in range(draws):
        subset = _draw(labels, quotas, generator).to(train.device)
        features = train[subset]
        standardise = Standardiser.fit(features)
        weights = fit_logistic(standardise(features), train_labels[subset], num_classes, l2=1 / len(subset))
        accuracies.append(accuracy(weights.logits(standardise(test)), test_labels))
    spread = {f"{name}/top1_std": statistics.stdev(accuracies)} if draws > 1 else {}
    return {f"{name}/top1": statistics.fmean(accuracies), **spread}
