"""The linear probe for features that do not fit into memory: they stay where they are, and are read in batches.

`linear.py` solves its problem exactly but holds a copy of all features, in float64 where it can. Here the same
classifier is trained by mini-batch SGD, for several learning rates at once: each batch is read once for all.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, Int64
from torch import Tensor
from torch.nn.functional import pad

from ssl_lightning.evaluation.logistic import Standardiser

_ROWS = 1024  # rows that statistics and accuracies read at a time
# An epoch reads runs of neighbouring rows, in random order, and mixes the rows of as many runs as make a window.
# A system that maps a file reads at least 128 KiB around what is asked for: 16 to 32 rows of 2048 numbers. The rows of
# a window come from its cache then (at most 1 GiB of those, which it frees when it must), and they are enough that of
# 1000 classes whose images lie side by side hardly one is missing.
_RUN = 32
_WINDOW = 2**17


class _Part:
    """Some rows, ascending, of features that may be mapped from a file larger than memory, and their labels.

    What is read is on `device`, in float32, or float64 where the features are.
    """

    def __init__(
        self, features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], rows: Int64[Tensor, " m"], device: torch.device
    ) -> None:
        self.features = features
        self.labels = labels.to(device, torch.long)
        self.rows = rows
        self.device = device
        self.dtype = torch.promote_types(features.dtype, torch.float32)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, rows: Int64[Tensor, " b"]) -> tuple[Float[Tensor, "b d"], Int64[Tensor, " b"]]:
        """Features and labels of these rows in ascending order: a file is read forwards."""
        rows = rows.sort().values
        features = self.features.index_select(0, rows.to(self.features.device))
        return features.to(self.device, self.dtype), self.labels[rows.to(self.device)]

    def blocks(self) -> Iterator[tuple[Float[Tensor, "b d"], Int64[Tensor, " b"]]]:
        """All of it, once, in order."""
        return map(self.read, self.rows.split(_ROWS))

    def order(self, generator: torch.Generator) -> Int64[Tensor, " m"]:
        """The rows in a new random order, each once: any order for up to a window, local to one beyond that."""
        runs = torch.randperm(-(-len(self) // _RUN), generator=generator)
        positions = (runs[:, None] * _RUN + torch.arange(_RUN)).flatten()
        windows = positions[positions < len(self)].split(_WINDOW)
        return self.rows[torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])]

    def standardiser(self) -> Standardiser:
        """`Standardiser.fit`, in one pass: merging the statistics of blocks (Chan et al. 1979)."""
        mean = torch.zeros(self.features.shape[1], dtype=torch.float64, device=self.device)
        squares, seen = torch.zeros_like(mean), 0
        for features, _ in self.blocks():
            block = features.double()
            share = len(block) / (seen + len(block))
            difference = block.mean(0) - mean
            squares += (block - block.mean(0)).square().sum(0) + difference.square() * seen * share
            mean += difference * share
            seen += len(block)
        deviation = (squares / seen).sqrt()
        varies = deviation > 10 * torch.finfo(self.dtype).eps * mean.abs()
        return Standardiser(mean, torch.where(varies, deviation, 1.0))


class _Classifiers(NamedTuple):
    """Linear classifiers, one a learning rate, of inputs: standardised features and, last, a 1 for the bias."""

    standardise: Standardiser
    weights: Float[Tensor, "k g c"]

    def inputs(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return pad(self.standardise(features), (0, 1), value=1.0)

    def logits(self, inputs: Float[Tensor, "b k"]) -> Float[Tensor, "b g c"]:
        return (inputs @ self.weights.flatten(1)).unflatten(1, self.weights.shape[1:])

    def gradient(self, inputs: Float[Tensor, "b k"], labels: Int64[Tensor, " b"]) -> Float[Tensor, "k g c"]:
        """Of the batch's mean cross-entropy, each classifier's by its own weights."""
        residuals = self.logits(inputs).softmax(2)
        residuals[torch.arange(len(labels), device=labels.device), :, labels] -= 1
        return (inputs.T @ residuals.flatten(1)).div_(len(labels)).view_as(self.weights)

    def accuracies(self, part: _Part, k: int = 1) -> list[float]:
        """The share of samples whose label is among the k largest logits."""
        hits = torch.zeros(self.weights.shape[1], dtype=torch.long, device=part.device)
        for features, labels in part.blocks():
            largest = self.logits(self.inputs(features)).topk(k, dim=2).indices
            hits += (largest == labels[:, None, None]).sum((0, 2))
        return (hits.double() / len(part)).tolist()


def _train(
    part: _Part,
    num_classes: int,
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
    seed: int,
    momentum: float,
) -> _Classifiers:
    """From weights of 0; the batches of an epoch, `ceil(n / batch_size)`, differ by one row at most."""
    dimension = part.features.shape[1] + 1
    weights = torch.zeros(dimension, len(learning_rates), num_classes, dtype=part.dtype, device=part.device)
    classifiers = _Classifiers(part.standardiser(), weights)
    velocity = torch.zeros_like(weights)
    rates = torch.tensor(learning_rates, dtype=part.dtype, device=part.device)[:, None]
    generator = torch.Generator().manual_seed(seed)
    batches = -(-len(part) // batch_size)
    for epoch in range(epochs):
        for i, rows in enumerate(part.order(generator).tensor_split(batches)):
            features, labels = part.read(rows)
            velocity.mul_(momentum).add_(classifiers.gradient(classifiers.inputs(features), labels))
            done = (epoch + i / batches) / epochs
            weights.addcmul_(velocity, rates, value=-(1 + math.cos(math.pi * done)) / 2)
    return classifiers


@torch.no_grad()
def sgd_probe(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    num_classes: int,
    validation: Bool[Tensor, " n"],
    learning_rates: Sequence[float],
    epochs: int,
    batch_size: int,
    seed: int,
    momentum: float = 0.9,
    device: torch.device | str | None = None,
) -> dict[str, float]:
    """Test accuracy of logistic regression by SGD, its learning rate chosen without the test set.

    A classifier a learning rate, all at once, is trained on the training features outside of the `validation`
    part; the one most accurate on that part wins, the smaller rate on a tie. Then one is trained again, on all
    training features. Features are standardised with the statistics of those trained on. There is no penalty
    on the weights, and each step's learning rate is that of a cosine from the given one to 0. An epoch visits
    each row once, in an order that `seed` determines. Where classes differ in directions that vary little beside
    others, accuracy stays below the exact probe's until there are many more epochs.

    `train` and `test` are of any float type, and may be mapped from files (`torch.from_numpy(numpy.load(file,
    mmap_mode="c"))`): they are never copied whole. For g rates, b = `max(batch_size, 1024)` and c classes,
    about `3 * g * d * c + 3 * b * (d + g * c)` numbers are held besides, on `device` (that of `train` unless
    given). All other tensors may be anywhere.

    Returns accuracies in [0, 1]: `linear_sgd/top1`, `linear_sgd/val_top1` (the winner's, before the second
    training), `linear_sgd/top5` where there are more than 10 classes, and the chosen `linear_sgd/lr`.
    """
    if validation.all() or not validation.any():
        raise ValueError("validation must mark some of the training features to choose the learning rate on, not all")
    device = train.device if device is None else torch.device(device)
    validation = validation.cpu()
    rest, held_out, everything = (
        _Part(train, train_labels, rows.nonzero().flatten(), device)
        for rows in (~validation, validation, torch.ones_like(validation))
    )
    rates = sorted(learning_rates)
    accuracies = _train(rest, num_classes, rates, epochs, batch_size, seed, momentum).accuracies(held_out)
    best_accuracy = max(accuracies)
    best_rate = rates[accuracies.index(best_accuracy)]

    classifier = _train(everything, num_classes, [best_rate], epochs, batch_size, seed, momentum)
    testing = _Part(test, test_labels, torch.arange(len(test)), device)
    metrics = {
        "linear_sgd/top1": classifier.accuracies(testing)[0],
        "linear_sgd/val_top1": best_accuracy,
        "linear_sgd/lr": float(best_rate),
    }
    if num_classes > 10:
        metrics["linear_sgd/top5"] = classifier.accuracies(testing, k=5)[0]
    return metrics
