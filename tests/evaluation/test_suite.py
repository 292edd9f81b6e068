import math

import pytest
import torch

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn
from ssl_lightning.evaluation.linear import few_label_probe, linear_probe
from ssl_lightning.evaluation.sgd import sgd_probe
from ssl_lightning.evaluation.spectrum import spectrum
from ssl_lightning.evaluation.suite import EvaluationSuite
from tests.callbacks.fitting import dataset
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset as of_patterns
from tests.evaluation.test_episodes import encoders


def _features(n: int, classes: int, seed: int) -> Features:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(n) % classes
    representations = centres[labels] + torch.randn(n, 12, generator=generator)
    return Features(representations, representations[:, :5].clone(), labels)


TRAIN, TEST = _features(120, 4, seed=0), _features(80, 4, seed=1)
VALIDATION = torch.arange(120) % 5 == 0


def test_the_suite_is_the_union_of_its_parts():
    suite = EvaluationSuite(
        k=7, temperature=0.2, l2_grid=(0.1, 0.01), few_shots=(1, 3), few_percents=(0.5,), draws=2, seed=4
    )
    data = (TRAIN.representations, TRAIN.labels, TEST.representations, TEST.labels, 4)
    assert suite(TRAIN, TEST, VALIDATION, 4).metrics == {
        **linear_probe(*data, VALIDATION, (0.1, 0.01)),
        **few_label_probe(*data, shots=1, draws=2, seed=4),
        **few_label_probe(*data, shots=3, draws=2, seed=4),
        **few_label_probe(*data, percent=0.5, draws=2, seed=4),
        **knn(*data, k=7, temperature=0.2),
        **spectrum(TRAIN.representations, "representation")[1],
        **spectrum(TRAIN.embeddings, "embedding")[1],
    }


def test_sgd_takes_the_place_of_the_exact_linear_probe_and_of_nothing_else():
    settings = {"linear": "sgd", "learning_rates": (0.01, 0.1), "epochs": 3, "probe_batch_size": 16, "seed": 4}
    data = (TRAIN.representations, TRAIN.labels, TEST.representations, TEST.labels, 4)
    exact = EvaluationSuite(seed=4)(TRAIN, TEST, VALIDATION, 4).metrics
    others = {name: value for name, value in exact.items() if not name.startswith("linear/")}
    assert EvaluationSuite(**settings)(TRAIN, TEST, VALIDATION, 4).metrics == {
        **others,
        **sgd_probe(*data, VALIDATION, (0.01, 0.1), epochs=3, batch_size=16, seed=4),
    }


def test_the_standard_metrics_and_their_ranges():
    metrics = EvaluationSuite()(TRAIN, TEST, VALIDATION, 4).metrics
    accuracies = {
        "linear/top1",
        "linear/val_top1",
        "linear_5shot/top1",
        "linear_1pct/top1",
        "linear_10pct/top1",
        "knn/top1",
    }
    deviations = {"linear_5shot/top1_std", "linear_1pct/top1_std", "linear_10pct/top1_std"}
    ranks = {f"{of}/{rank}" for of in ("representation", "embedding") for rank in ("rankme", "effective_rank")}
    assert set(metrics) == accuracies | deviations | ranks | {"linear/l2"}
    assert all(type(value) is float for value in metrics.values())
    assert all(0.25 < metrics[name] <= 1 for name in accuracies)
    assert all(1 < metrics[name] <= 12 for name in ranks)
    assert metrics["embedding/rankme"] <= 5.001
    assert metrics["linear/l2"] in EvaluationSuite().l2_grid


def test_the_suite_is_deterministic_and_its_seed_matters_to_few_labels_only():
    first = EvaluationSuite()(TRAIN, TEST, VALIDATION, 4).metrics
    assert EvaluationSuite()(TRAIN, TEST, VALIDATION, 4).metrics == first
    other = EvaluationSuite(seed=1)(TRAIN, TEST, VALIDATION, 4).metrics
    changed = {name for name in first if first[name] != other[name]}
    assert changed
    assert all("shot" in name or "pct" in name for name in changed)


def test_collapsed_features_give_finite_metrics_at_chance():
    def collapse(features: Features) -> Features:
        constant = torch.full_like(features.representations, 0.3)
        return Features(constant, constant, features.labels)

    metrics = EvaluationSuite()(collapse(TRAIN), collapse(TEST), VALIDATION, 4).metrics
    assert all(math.isfinite(value) for value in metrics.values())
    assert metrics["linear/top1"] == metrics["knn/top1"] == metrics["linear_5shot/top1"] == 0.25
    assert metrics["representation/effective_rank"] == metrics["embedding/effective_rank"] == 0


@pytest.mark.parametrize("linear", ["lbfgs", "sgd"])
def test_encoders_are_ordered(linear):
    suite = EvaluationSuite(linear=linear, l2_grid=(1e-2,), learning_rates=(0.1,), epochs=5, few_percents=(10.0,), k=5)
    found = {name: suite.evaluate(subject_of(encoder, of_patterns())) for name, encoder in encoders().items()}
    name = {"lbfgs": "linear", "sgd": "linear_sgd"}[linear]
    for metric in (f"{name}/top1", "knn/top1", "linear_5shot/top1", "linear_10pct/top1"):
        trained, untrained, collapsed = (one.metrics[metric] for one in found.values())
        assert trained > untrained > collapsed, metric


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"k": 49}, r"evaluation\.k is 49, but tiny has 48 labelled training images"),
        (
            {"few_shots": (1, 17)},
            r"evaluation\.few_shots asks for 17 labels a class, but the largest class of tiny has 16",
        ),
    ],
)
def test_more_than_the_data_have_is_refused_at_once(setting, message):
    EvaluationSuite(k=48, few_shots=(16,)).check(dataset())
    EvaluationSuite().check(dataset(9))  # the standard ones take what there is
    with pytest.raises(UserError, match=message):
        EvaluationSuite(**setting).check(dataset())
