import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_lightning.evaluation import sgd
from ssl_lightning.evaluation.linear import linear_probe
from ssl_lightning.evaluation.logistic import Standardiser
from ssl_lightning.evaluation.sgd import _Classifiers, _Part, _train, sgd_probe
from ssl_lightning.evaluation.suite import EvaluationSuite

CPU = torch.device("cpu")


def _data(n: int, d: int, classes: int, separation: float = 1.0, seed: int = 0):
    """Correlated features that are neither centred nor of one scale, of overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(1000)
    centres = separation * torch.randn(classes, d, generator=fixed)
    mixing = torch.randn(d, d, generator=fixed) / d**0.5
    labels = torch.randint(classes, (n,), generator=generator)
    return (centres[labels] + torch.randn(n, d, generator=generator)) @ mixing + 0.5, labels


TRAIN, LABELS = _data(300, 12, 4, separation=0.3)
TEST, TARGETS = _data(500, 12, 4, separation=0.3, seed=1)
VALIDATION = torch.arange(300) % 4 == 0
RATES = (1e-3, 1e-2, 1e-1, 1.0)


def _probe(train=TRAIN, labels=LABELS, test=TEST, targets=TARGETS, validation=VALIDATION, rates=RATES, **settings):
    settings = {"epochs": 3, "batch_size": 32, "seed": 0} | settings
    return sgd_probe(train, labels, test, targets, 4, validation, rates, **settings)


def _part(features, labels, rows=None):
    return _Part(features, labels, torch.arange(len(features)) if rows is None else rows, CPU)


def _weights(features, labels, rates, classes=4, epochs=1, batch_size=32, seed=0, momentum=0.9):
    return _train(_part(features, labels), classes, rates, epochs, batch_size, seed, momentum).weights


@pytest.fixture
def trained(monkeypatch):
    """The classifiers of both stages of every probe."""
    made = []
    monkeypatch.setattr(sgd, "_train", lambda *arguments: made.append(_train(*arguments)) or made[-1])
    return made


@pytest.fixture
def batches(monkeypatch):
    """The rows of every batch."""
    seen = []
    read = _Part.read
    monkeypatch.setattr(_Part, "read", lambda self, rows: seen.append(rows) or read(self, rows))
    monkeypatch.setattr(_Part, "standardiser", lambda self: Standardiser.fit(self.features))  # reads too
    return seen


def test_the_gradient_is_that_of_each_classifiers_mean_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(20, 7, generator=generator, dtype=torch.float64)
    weights = torch.randn(7, 3, 4, generator=generator, dtype=torch.float64).requires_grad_()
    labels = torch.randint(4, (20,), generator=generator)
    losses = [torch.nn.functional.cross_entropy(inputs @ weights[:, i], labels) for i in range(3)]
    (expected,) = torch.autograd.grad(sum(losses), weights)
    actual = _Classifiers(Standardiser.fit(inputs), weights.detach()).gradient(inputs, labels)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-15)


def test_the_first_step_is_the_learning_rate_times_the_gradient_at_zero():
    features = TRAIN.double()
    standardised = (features - features.mean(0)) / features.std(0, correction=0)
    residuals = torch.full((300, 4), 0.25, dtype=torch.float64)
    residuals[torch.arange(300), LABELS] -= 1
    weights = _weights(features, LABELS, [0.3], batch_size=300)[:, 0]
    torch.testing.assert_close(weights[:-1], -0.3 * standardised.T @ residuals / 300, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(weights[-1], -0.3 * residuals.mean(0), rtol=1e-12, atol=1e-15)


def test_training_is_sgd_with_momentum_and_a_cosine_to_zero(batches):
    features = TRAIN.double()
    actual = _weights(features, LABELS, RATES, epochs=3, batch_size=64)
    assert len(batches) == 15
    standardise = Standardiser.fit(features)
    for i, rate in enumerate(RATES):
        layer = torch.nn.Linear(12, 4, dtype=torch.float64)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        optimizer = torch.optim.SGD(layer.parameters(), lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=15)
        for rows in batches:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(layer(standardise(features[rows])), LABELS[rows]).backward()
            optimizer.step()
            schedule.step()
        torch.testing.assert_close(actual[:-1, i], layer.weight.T, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(actual[-1, i], layer.bias, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("n", "batch_size", "sizes"), [(300, 100, {100}), (299, 64, {59, 60}), (20, 64, {20})])
def test_an_epoch_visits_each_row_once_in_batches_of_one_size(batches, n, batch_size, sizes):
    _weights(TRAIN[:n], LABELS[:n], [0.1], epochs=3, batch_size=batch_size)
    epochs = torch.cat(batches).view(3, n)
    for epoch in epochs:
        assert torch.equal(epoch.sort().values, torch.arange(n))
    assert not torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[1], epochs[2])
    assert {len(rows) for rows in batches} == sizes


@pytest.mark.parametrize("n", [6, 32, 61, 64, 1000])
def test_an_epoch_mixes_whole_runs_of_neighbours_within_windows(monkeypatch, n):
    monkeypatch.setattr(sgd, "_RUN", 4)
    monkeypatch.setattr(sgd, "_WINDOW", 32)
    rows = 3 * torch.arange(n)  # as where others are held out
    part = _part(torch.zeros(3 * n, 1), torch.zeros(3 * n, dtype=torch.long), rows)
    generator = torch.Generator().manual_seed(0)
    first, second = part.order(generator), part.order(generator)
    assert torch.equal(first.sort().values, rows)
    assert torch.equal(second.sort().values, rows)
    assert not torch.equal(first, second)
    assert not torch.equal(first, rows)
    if n % 4 == 0:
        for window in first.split(32):
            assert set((window // 12).bincount().tolist()) <= {0, 4}
    if n > 64:
        assert not torch.equal(first[:32].sort().values, rows[:32])  # the windows themselves differ
        assert not torch.equal(first[:32].sort().values, second[:32].sort().values)


def test_a_batch_is_read_in_the_order_of_the_file():
    features, labels = _part(TRAIN, LABELS).read(torch.tensor([7, 2, 205]))
    assert torch.equal(features, TRAIN[[2, 7, 205]])
    assert torch.equal(labels, LABELS[[2, 7, 205]])


def test_statistics_are_those_of_the_rows_alone(monkeypatch):
    monkeypatch.setattr(sgd, "_ROWS", 7)
    features = TRAIN * torch.logspace(-6, 6, 12) + 100.0
    features[:, 3] = 0.1  # constant up to the float's precision
    rows = VALIDATION.nonzero().flatten()
    actual, expected = _part(features, LABELS, rows).standardiser(), Standardiser.fit(features[rows].double())
    torch.testing.assert_close(actual.mean, expected.mean, rtol=1e-14, atol=0)
    assert actual.scale[3] == 1.0
    varies = expected.scale > 1e-4  # the others are constant up to rounding
    torch.testing.assert_close(actual.scale[varies], expected.scale[varies], rtol=1e-10, atol=0)


def test_the_probe_equals_its_definition():
    rest = torch.arange(300)[~VALIDATION]
    candidates = _train(_part(TRAIN, LABELS, rest), 4, RATES, 3, 32, 0, 0.9)
    standardise = Standardiser.fit(TRAIN[rest])
    held_out = torch.nn.functional.pad(standardise(TRAIN[VALIDATION]), (0, 1), value=1.0)
    accuracies = {
        rate: ((held_out @ candidates.weights[:, i]).argmax(1) == LABELS[VALIDATION]).double().mean().item()
        for i, rate in enumerate(RATES)
    }
    best = max(accuracies, key=lambda rate: (accuracies[rate], -rate))
    assert len(set(accuracies.values())) > 1

    everything = _weights(TRAIN, LABELS, [best], epochs=3)[:, 0]
    test = torch.nn.functional.pad(Standardiser.fit(TRAIN)(TEST), (0, 1), value=1.0)
    assert _probe() == {
        "linear_sgd/top1": ((test @ everything).argmax(1) == TARGETS).double().mean().item(),
        "linear_sgd/val_top1": accuracies[best],
        "linear_sgd/lr": best,
    }


def test_learning_rates_do_not_see_each_other():
    together = _weights(TRAIN.double(), LABELS, RATES, epochs=3)
    for i, rate in enumerate(RATES):
        alone = _weights(TRAIN.double(), LABELS, [rate], epochs=3)
        torch.testing.assert_close(together[:, i : i + 1], alone, rtol=1e-10, atol=1e-13)


def test_the_order_of_the_rates_does_not_matter_and_ties_choose_the_smaller():
    assert _probe(rates=RATES[::-1]) == _probe()
    # Rates that are so small that predictions depend on the first gradient only.
    for rates in [(1e-9, 1e-8), (1e-8, 1e-9)]:
        assert _probe(rates=rates)["linear_sgd/lr"] == 1e-9


def test_validation_samples_choose_but_do_not_train(trained):
    _probe()
    relabelled = torch.where(VALIDATION, (LABELS + 1) % 4, LABELS)
    other = _probe(labels=relabelled, train=torch.where(VALIDATION[:, None], -TRAIN, TRAIN))
    first, final, same, changed = trained
    assert torch.equal(first.weights, same.weights)
    assert torch.equal(first.standardise.mean, same.standardise.mean)
    assert torch.equal(first.standardise.scale, same.standardise.scale)
    assert not torch.equal(final.weights, changed.weights)
    assert other["linear_sgd/val_top1"] != _probe()["linear_sgd/val_top1"]


def test_validation_labels_do_choose_the_rate(trained):
    _probe()
    candidates = trained[0]
    inputs = candidates.inputs(TRAIN[VALIDATION])
    chosen = set()
    # Give the validation part the labels that the classifier of one rate predicts: that rate wins.
    for i in range(len(RATES)):
        relabelled = LABELS.clone()
        relabelled[VALIDATION] = candidates.logits(inputs)[:, i].argmax(1)
        metrics = _probe(labels=relabelled)
        assert metrics["linear_sgd/val_top1"] == 1.0
        chosen.add(metrics["linear_sgd/lr"])
    assert len(chosen) > 2


def test_test_labels_choose_nothing():
    shuffled = TARGETS[torch.randperm(500, generator=torch.Generator().manual_seed(0))]
    before, after = _probe(), _probe(targets=shuffled)
    assert before["linear_sgd/lr"] == after["linear_sgd/lr"]
    assert before["linear_sgd/val_top1"] == after["linear_sgd/val_top1"]
    assert before["linear_sgd/top1"] > after["linear_sgd/top1"] + 0.1


def test_separable_classes_are_all_told_apart():
    train, labels = _data(300, 12, 4, separation=10)
    test, targets = _data(500, 12, 4, separation=10, seed=1)
    metrics = _probe(train, labels, test, targets, epochs=20)
    assert metrics["linear_sgd/top1"] == metrics["linear_sgd/val_top1"] == 1.0


@pytest.mark.parametrize("classes", [10, pytest.param(40, marks=pytest.mark.nightly)])
def test_with_the_standard_settings_accuracy_is_that_of_the_exact_probe(classes):
    layer = torch.randn(32, 96, generator=torch.Generator().manual_seed(7)) / 32**0.5
    (train, labels), (test, targets) = (_data(n, 32, classes, separation=0.4, seed=n) for n in (10_000, 8000))
    data = ((train @ layer).relu(), labels, (test @ layer).relu(), targets, classes, torch.arange(10_000) % 10 == 0)
    suite = EvaluationSuite()
    exact = linear_probe(*data, suite.l2_grid)
    metrics = sgd_probe(*data, suite.learning_rates, suite.epochs, suite.probe_batch_size, seed=0)
    assert 4 / classes < exact["linear/top1"] < 0.7
    for name in ("top1", "top5") if classes > 10 else ("top1",):
        assert abs(metrics[f"linear_sgd/{name}"] - exact[f"linear/{name}"]) < 0.01


def test_top5_is_reported_for_more_than_ten_classes():
    for classes, reported in ((10, False), (11, True)):
        train, test = (_data(300, 12, classes, separation=0.3, seed=seed) for seed in (0, 1))
        metrics = sgd_probe(*train, *test, classes, VALIDATION, RATES, 3, 32, 0)
        assert ("linear_sgd/top5" in metrics) == reported
    assert metrics["linear_sgd/top1"] < metrics["linear_sgd/top5"] < 1
    # Labels that are in nobody's top five, of classes that never occur in training.
    absent = sgd_probe(TRAIN, LABELS, TEST, torch.full_like(TARGETS, 15), 20, VALIDATION, RATES, 3, 32, 0)
    assert absent["linear_sgd/top5"] == 0


def test_the_seed_alone_determines_the_weights(trained):
    for seed, surroundings in ((0, 1), (0, 2), (3, 2)):
        torch.manual_seed(surroundings)
        before = torch.random.get_rng_state()
        _probe(seed=seed)
        assert torch.equal(torch.random.get_rng_state(), before)
    one, _, again, _, other, _ = (classifiers.weights for classifiers in trained)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_blocks_and_files_do_not_change_the_metrics(tmp_path, monkeypatch):
    expected = _probe()
    np.save(tmp_path / "train.npy", TRAIN.numpy())
    np.save(tmp_path / "test.npy", TEST.numpy())
    train, test = (torch.from_numpy(np.load(tmp_path / f"{x}.npy", mmap_mode="c")) for x in ("train", "test"))
    assert _probe(train, test=test) == expected
    for rows in (1, 7, 10_000):
        monkeypatch.setattr(sgd, "_ROWS", rows)
        assert _probe(train, test=test) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_of_low_precision_are_read_as_float32(dtype):
    assert _probe(TRAIN.to(dtype), test=TEST.to(dtype)) == _probe(TRAIN.to(dtype).float(), test=TEST.to(dtype).float())


def test_integer_labels_of_any_type_will_do():
    assert _probe(labels=LABELS.to(torch.int32), targets=TARGETS.to(torch.int16)) == _probe()


def test_a_batch_may_exceed_the_samples():
    assert _probe(batch_size=300) == _probe(batch_size=10_000) != _probe(batch_size=100)


class _Largest(TorchDispatchMode):
    """The most numbers of a tensor that any operation made."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        results = function(*args, **(kwargs or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, torch.Tensor):
                self.numel = max(self.numel, result.untyped_storage().nbytes() // result.element_size())
        return results


def test_only_batches_are_held_of_the_features(monkeypatch):
    monkeypatch.setattr(sgd, "_ROWS", 50)
    features, labels = _data(4000, 200, 4)
    validation = torch.arange(4000) % 4 == 0
    with _Largest() as largest:
        sgd_probe(features, labels, features, labels, 4, validation, (0.1, 1.0), epochs=2, batch_size=64, seed=0)
    assert largest.numel == 64 * 201  # a batch and the ones beside it; more than the labels, and than all weights


@pytest.mark.parametrize("value", [True, False])
def test_validation_must_leave_something_to_train_on_and_something_to_choose_by(value):
    with pytest.raises(ValueError, match="validation must mark some"):
        _probe(validation=torch.full((300,), value))


def test_constant_features_give_chance():
    labels = torch.arange(300) % 4
    constant = torch.full((300, 12), 0.3)
    metrics = _probe(constant, labels, constant, labels, validation=torch.arange(300) % 5 == 0)
    assert metrics["linear_sgd/top1"] == 0.25
    assert all(math.isfinite(value) for value in metrics.values())
