"""Probes on the same frozen features, by us, by scikit-learn and by the loop that is usually written: time, accuracy.

Features are 50,000 × 512 of ten classes, and 10,000 for testing: Gaussians about ten centres, in directions of very
different lengths, of which the longest tell the classes apart, turned at random so that coordinates are correlated.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.peers.figures import Figures, Options, Row, contest, timed
from ssl_lightning.evaluation.knn import knn
from ssl_lightning.evaluation.linear import draw_labels, few_label_probe
from ssl_lightning.evaluation.linear import linear_probe as ours_of_linear
from ssl_lightning.evaluation.logistic import Standardiser, Weights, fit_logistic
from ssl_lightning.evaluation.suite import EvaluationSuite

CLASSES, L2, PERCENT = 10, 1e-4, 1.0
TELLING, SEPARATION = 1 / 16, 0.45
"""Share of directions in which classes differ, and how far their centres are from 0, in standard deviations."""
SUITE = EvaluationSuite()
EPOCHS, BATCH, LR, MOMENTUM = 100, 256, 0.1, 0.9  # of the loop


class Data(NamedTuple):
    train: Float[Tensor, "n d"]
    train_labels: Int[Tensor, " n"]
    test: Float[Tensor, "m d"]
    test_labels: Int[Tensor, " m"]

    @property
    def arrays(self) -> tuple:
        return tuple(part.numpy() for part in self)


def mixture(train: int, test: int, length: int) -> Data:
    generator = torch.Generator().manual_seed(0)
    centres = SEPARATION * torch.randn(CLASSES, length, generator=generator)
    centres[:, max(2, round(TELLING * length)) :] = 0
    lengths = (1 + torch.arange(length)) ** -0.5
    turn = torch.linalg.qr(torch.randn(length, length, generator=generator)).Q

    def some(n: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(CLASSES, (n,), generator=generator)
        return ((centres[labels] + torch.randn(n, length, generator=generator)) * lengths) @ turn, labels

    return Data(*some(train), *some(test))


def objective(weights: Weights, features: Tensor, labels: Tensor) -> float:
    """What logistic regression minimises; less is better."""
    loss = cross_entropy(weights.logits(features.double()), labels)
    return (loss + L2 / 2 * weights.weight.square().sum()).item()


def logistic(data: Data) -> Figures:
    standardise = Standardiser.fit(data.train)
    features = standardise(data.train)
    weights = fit_logistic(features, data.train_labels, CLASSES, L2)
    hits = weights.logits(standardise(data.test)).argmax(1) == data.test_labels
    return {"accuracy": hits.double().mean().item(), "objective": objective(weights, features, data.train_labels)}


def sklearn_logistic(data: Data) -> Figures:
    train, labels, test, test_labels = data.arrays
    scaler = StandardScaler().fit(train)
    features = scaler.transform(train)
    model = LogisticRegression(C=1 / (len(train) * L2), max_iter=1000).fit(features, labels)
    weights = Weights(torch.tensor(model.coef_).double(), torch.tensor(model.intercept_).double())
    return {
        "accuracy": model.score(scaler.transform(test), test_labels),
        "objective": objective(weights, torch.from_numpy(features), data.train_labels),
    }


def linear(data: Data) -> Figures:
    """With its penalty chosen among seven."""
    validation = torch.arange(len(data.train)) % 10 == 0
    return {"accuracy": ours_of_linear(*data, CLASSES, validation, SUITE.l2_grid)["linear/top1"]}


def sgd_loop(data: Data, epochs: int) -> Figures:
    """The usual loop: its learning rate is given, and nothing is chosen."""
    standardise = Standardiser.fit(data.train)
    features, layer = standardise(data.train), nn.Linear(data.train.shape[1], CLASSES)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.SGD(layer.parameters(), LR, MOMENTUM)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(features), generator=generator).split(BATCH):
            optimizer.zero_grad()
            cross_entropy(layer(features[rows]), data.train_labels[rows]).backward()
            optimizer.step()
        scheduler.step()
    with torch.no_grad():
        hits = layer(standardise(data.test)).argmax(1) == data.test_labels
    return {"accuracy": hits.double().mean().item()}


def neighbours(data: Data) -> Figures:
    return {"accuracy": knn(*data, CLASSES, SUITE.k, SUITE.temperature)["knn/top1"]}


def sklearn_neighbours(data: Data) -> Figures:
    train, labels, test, test_labels = data.arrays

    def votes(distances):  # type: ignore[no-untyped-def]
        return torch.from_numpy(-distances).div_(SUITE.temperature).exp_().numpy()

    model = KNeighborsClassifier(SUITE.k, metric="cosine", algorithm="brute", weights=votes)
    return {"accuracy": model.fit(train, labels).score(test, test_labels)}


def few(data: Data) -> Figures:
    found = few_label_probe(*data, CLASSES, percent=PERCENT, draws=SUITE.draws, seed=SUITE.seed)
    return {"accuracy": found["linear_1pct/top1"]}


def sklearn_few(data: Data) -> Figures:
    """On the same draws of labels."""
    train, labels, test, test_labels = data.arrays
    generator = torch.Generator().manual_seed(SUITE.seed)
    scores = []
    for _ in range(SUITE.draws):
        chosen = draw_labels(data.train_labels, PERCENT, generator).numpy()
        scaler = StandardScaler().fit(train[chosen])
        model = LogisticRegression(max_iter=1000).fit(scaler.transform(train[chosen]), labels[chosen])
        scores.append(model.score(scaler.transform(test), test_labels))
    return {"accuracy": sum(scores) / len(scores)}


def rows(options: Options) -> Iterator[Row]:
    data = mixture(*((600, 200, 16) if options.small else (50_000, 10_000, 512)))
    epochs = 2 if options.small else EPOCHS
    loop = f"loop, SGD of {epochs} epochs"
    parts = {
        f"logistic regression, l2 = {L2:g}": {"ours": logistic, "scikit-learn": sklearn_logistic},
        "linear probe": {"ours, best of 7 penalties": linear, loop: lambda data: sgd_loop(data, epochs)},
        f"{SUITE.k}-NN, weighted": {"ours": neighbours, "scikit-learn": sklearn_neighbours},
        f"{PERCENT:g} % of labels, {SUITE.draws} draws": {"ours": few, "scikit-learn": sklearn_few},
    }
    for what, ways in parts.items():
        turns = {who: timed(lambda way=way: way(data)) for who, way in ways.items()}
        yield from contest(what, turns, options.turns)
