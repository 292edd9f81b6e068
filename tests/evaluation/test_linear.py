import statistics

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_lightning.evaluation import logistic
from ssl_lightning.evaluation.linear import few_label_probe, linear_probe
from ssl_lightning.evaluation.logistic import Standardiser, Weights, fit_logistic


def _data(n: int, d: int, classes: int, separation: float = 1.0, seed: int = 0):
    """Correlated features that are neither centred nor of one scale, of overlapping classes."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(1000)
    centres = separation * torch.randn(classes, d, generator=fixed, dtype=torch.float64)
    mixing = torch.randn(d, d, generator=fixed, dtype=torch.float64) / d**0.5
    labels = torch.randint(classes, (n,), generator=generator)
    noise = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return (centres[labels] + noise) @ mixing + 0.5, labels


def _objective(weight, bias, features, labels, l2):
    cross_entropy = torch.nn.functional.cross_entropy(features @ weight.T + bias, labels)
    return cross_entropy + l2 / 2 * weight.square().sum()


def _top1(logits, labels):
    return (logits.argmax(1) == labels).double().mean().item()


# Taller than wide, wider than tall, and so weakly penalised that the classes are separated.
PROBLEMS = pytest.mark.parametrize(("n", "d", "l2"), [(300, 8, 1.0), (300, 8, 1e-3), (25, 60, 1e-2), (60, 40, 1e-5)])


@PROBLEMS
def test_fit_agrees_with_scikit_learn(n, d, l2):
    features, labels = _data(n, d, 4)
    actual = fit_logistic(features, labels, 4, l2, tolerance=1e-9)
    reference = LogisticRegression(C=1 / (n * l2), tol=1e-10, max_iter=20_000).fit(features, labels)
    coefficients, intercept = torch.from_numpy(reference.coef_), torch.from_numpy(reference.intercept_)

    objective = _objective(*actual, features, labels, l2)
    expected = _objective(coefficients, intercept, features, labels, l2)
    torch.testing.assert_close(objective, expected, rtol=1e-6, atol=0)
    # Equal up to the softmax's shift invariance.
    torch.testing.assert_close(
        actual.weight - actual.weight.mean(0), coefficients - coefficients.mean(0), rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(actual.bias - actual.bias.mean(), intercept - intercept.mean(), rtol=1e-3, atol=5e-3)
    assert torch.equal(actual.logits(features).argmax(1), torch.from_numpy(reference.predict(features)))


@PROBLEMS
def test_the_objectives_gradient_vanishes_at_the_solution(n, d, l2):
    features, labels = _data(n, d, 4)
    weight, bias = (p.requires_grad_() for p in fit_logistic(features, labels, 4, l2, tolerance=1e-9))
    gradients = torch.autograd.grad(_objective(weight, bias, features, labels, l2), (weight, bias))
    start = torch.zeros_like(weight).requires_grad_()
    (initial,) = torch.autograd.grad(_objective(start, bias.detach(), features, labels, l2), start)
    assert initial.abs().max() > 1e-2
    for gradient in gradients:
        assert gradient.abs().max() < 5e-8


def test_the_default_tolerance_finds_the_minimum():
    features, labels = _data(300, 8, 4)
    precise = _objective(*fit_logistic(features, labels, 4, 1e-3, tolerance=1e-10), features, labels, 1e-3)
    default = _objective(*fit_logistic(features, labels, 4, 1e-3), features, labels, 1e-3)
    torch.testing.assert_close(default, precise, rtol=1e-8, atol=0)


def test_a_warm_start_changes_the_way_but_not_the_minimum():
    features, labels = _data(300, 8, 4)
    cold = fit_logistic(features, labels, 4, 1e-2, tolerance=1e-10)
    generator = torch.Generator().manual_seed(3)
    elsewhere = Weights(*(torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in cold))
    warm = fit_logistic(features, labels, 4, 1e-2, initial=elsewhere, tolerance=1e-10)
    torch.testing.assert_close(warm.weight, cold.weight, rtol=0, atol=1e-6)
    # No iterations: the start itself comes back, up to rounding, through the change of coordinates.
    unmoved = fit_logistic(features, labels, 4, 1e-2, initial=cold, max_iterations=0)
    torch.testing.assert_close(unmoved, cold)


def test_large_problems_are_solved_in_float32(monkeypatch):
    features, labels = _data(500, 12, 4)
    features = features.float()
    expected = fit_logistic(features, labels, 4, 1e-4, tolerance=1e-6)
    monkeypatch.setattr(logistic, "_FLOAT64_NUMEL", 0)
    actual = fit_logistic(features, labels, 4, 1e-4, tolerance=1e-6)
    assert not torch.equal(actual.weight, expected.weight)
    torch.testing.assert_close(actual.weight, expected.weight, rtol=1e-3, atol=1e-3)


def test_fit_works_in_inference_mode_and_restores_the_number_of_threads():
    features, labels = _data(50, 8, 4)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            actual = fit_logistic(features.clone(), labels, 4, 1e-2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(actual.weight.clone(), fit_logistic(features, labels, 4, 1e-2).weight)


def test_standardised_features_have_mean_zero_and_deviation_one():
    features, _ = _data(300, 8, 4)
    features = features.float() * torch.logspace(-6, 6, 8) + 1.0
    standardised = Standardiser.fit(features)(features).double()
    torch.testing.assert_close(standardised.std(0, correction=0)[2:], torch.ones(6).double(), rtol=1e-3, atol=0)
    assert standardised.mean(0)[2:].abs().max() < 1e-2


def test_constant_dimensions_are_shifted_only():
    features = torch.stack([torch.full((7,), 0.1), torch.zeros(7), torch.arange(7.0)], dim=1)
    standardise = Standardiser.fit(features)
    assert standardise.scale.tolist() == [1.0, 1.0, 2.0]
    elsewhere = standardise(torch.tensor([[0.6, 3.0, 3.0]]))
    torch.testing.assert_close(elsewhere, torch.tensor([[0.5, 3.0, 0.0]]))


GRID = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def _probe(validation=None, test_labels=None, train_labels=None, grid=GRID, classes=4):
    train, labels = _data(160, 30, classes, separation=0.3)
    test, targets = _data(400, 30, classes, separation=0.3, seed=1)
    validation = torch.arange(160) % 4 == 0 if validation is None else validation
    train_labels = labels if train_labels is None else train_labels
    return linear_probe(
        train, train_labels, test, targets if test_labels is None else test_labels, classes, validation, grid
    )


def test_linear_probe_equals_its_definition():
    train, labels = _data(160, 30, 4, separation=0.3)
    test, targets = _data(400, 30, 4, separation=0.3, seed=1)
    validation = torch.arange(160) % 4 == 0

    fit = Standardiser.fit(train[~validation])
    accuracies = {}
    for l2 in GRID:
        weights = fit_logistic(fit(train[~validation]), labels[~validation], 4, l2)
        accuracies[l2] = _top1(weights.logits(fit(train[validation])), labels[validation])
    best = max(GRID, key=lambda l2: (accuracies[l2], l2))
    assert len(set(accuracies.values())) > 1

    fit = Standardiser.fit(train)
    everything = fit_logistic(fit(train), labels, 4, best)
    assert linear_probe(train, labels, test, targets, 4, validation, GRID) == {
        "linear/top1": _top1(everything.logits(fit(test)), targets),
        "linear/val_top1": accuracies[best],
        "linear/l2": best,
    }
    # What a probe that is not fitted again would report, differs.
    fit = Standardiser.fit(train[~validation])
    part = fit_logistic(fit(train[~validation]), labels[~validation], 4, best)
    assert _top1(part.logits(fit(test)), targets) != _top1(everything.logits(Standardiser.fit(train)(test)), targets)


def test_test_labels_do_not_choose_the_penalty():
    _, targets = _data(400, 30, 4, separation=0.3, seed=1)
    shuffled = targets[torch.randperm(400, generator=torch.Generator().manual_seed(0))]
    before, after = _probe(), _probe(test_labels=shuffled)
    assert before["linear/l2"] == after["linear/l2"]
    assert before["linear/val_top1"] == after["linear/val_top1"]
    assert before["linear/top1"] > after["linear/top1"] + 0.1


def test_validation_labels_do_choose_the_penalty():
    train, labels = _data(160, 30, 4, separation=0.3)
    validation = torch.arange(160) % 4 == 0
    chosen = set()
    # Give the validation part the labels that the classifier of one penalty predicts: that penalty wins.
    standardise = Standardiser.fit(train[~validation])
    for l2 in GRID:
        weights = fit_logistic(standardise(train[~validation]), labels[~validation], 4, l2)
        relabelled = labels.clone()
        relabelled[validation] = weights.logits(standardise(train[validation])).argmax(1)
        metrics = _probe(train_labels=relabelled)
        assert metrics["linear/val_top1"] == 1.0
        chosen.add(metrics["linear/l2"])
    assert len(chosen) > 2


def test_the_order_of_the_grid_does_not_matter_and_ties_choose_the_stronger_penalty():
    assert _probe(grid=GRID[::-1]) == _probe()
    # Both penalties are so strong that only the bias is left, and all predictions agree.
    labels = torch.arange(160) % 3 % 2  # class 0 is the larger
    for grid in [(1e6, 1e7), (1e7, 1e6)]:
        assert _probe(train_labels=labels, grid=grid)["linear/l2"] == 1e7


def test_top5_is_reported_for_more_than_ten_classes():
    assert "linear/top5" not in _probe(classes=10)
    metrics = _probe(classes=11)
    assert metrics["linear/top1"] < metrics["linear/top5"] < 1
    # Labels that are in nobody's top five, of classes that never occur in training.
    train, labels = _data(160, 30, 11, separation=0.3)
    validation = torch.arange(160) % 4 == 0
    absent = linear_probe(train, labels, train, torch.full_like(labels, 15), 20, validation, GRID)
    assert absent["linear/top5"] == 0


@pytest.mark.parametrize("marked", [False, True])
def test_a_validation_part_without_or_with_everything_is_refused(marked):
    with pytest.raises(ValueError, match="validation must mark some"):
        _probe(validation=torch.full((160,), marked))


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_constant_features_give_the_largest_class(value):
    constant, labels = torch.full((40, 6), value), (torch.arange(40) % 5).clamp(max=3)  # class 3: 2 of 5
    validation = torch.arange(40) < 20
    metrics = linear_probe(constant, labels, constant, labels, 4, validation, GRID)
    assert metrics == {"linear/top1": 0.4, "linear/val_top1": 0.4, "linear/l2": 1.0}
    # The same number of labels of every class leaves nothing to choose by: one class is predicted everywhere.
    few = few_label_probe(constant, labels, constant, labels, 4, shots=2, draws=2, seed=0)
    assert few["linear_2shot/top1"] in (0.2, 0.3, 0.4)


# Class sizes 40, 25, 3 and 150.
LABELS = torch.tensor([0] * 40 + [1] * 25 + [2] * 3 + [3] * 150)[
    torch.randperm(218, generator=torch.Generator().manual_seed(0))
]


@pytest.fixture
def subsets(monkeypatch):
    """Records the positions that each draw takes: dimension 0 of the features is the position."""
    taken = []
    fit = Standardiser.fit.__func__

    def record(cls, features):
        taken.append(features[:, 0].long())
        return fit(cls, features)

    monkeypatch.setattr(Standardiser, "fit", classmethod(record))
    return taken


def _few(**arguments):
    features = torch.randn(218, 4, generator=torch.Generator().manual_seed(1))
    features += torch.nn.functional.one_hot(LABELS, 4)
    features[:, 0] = torch.arange(218)
    return few_label_probe(features, LABELS, features, LABELS, 4, **arguments)


@pytest.mark.parametrize(
    ("budget", "counts"),
    [
        ({"shots": 1}, [1, 1, 1, 1]),
        ({"shots": 5}, [5, 5, 3, 5]),
        ({"percent": 10.0}, [4, 2, 1, 15]),  # 2.5 rounds to even; 0.3 is raised to one
        ({"percent": 1.0}, [1, 1, 1, 2]),
        ({"percent": 100.0}, [40, 25, 3, 150]),
    ],
)
def test_draws_are_stratified(subsets, budget, counts):
    _few(**budget, draws=3, seed=0)
    assert len(subsets) == 3
    for subset in subsets:
        assert LABELS[subset].bincount().tolist() == counts
        assert len(subset.unique()) == len(subset)


def test_draws_are_seeded_differ_and_nest(subsets):
    first = _few(shots=5, draws=2, seed=0)
    assert _few(shots=5, draws=2, seed=0) == first
    _few(shots=5, draws=2, seed=1)
    _few(shots=20, draws=2, seed=0)
    sets = [frozenset(subset.tolist()) for subset in subsets]
    assert sets[0:2] == sets[2:4]
    assert len(set(sets[0:2] + sets[4:6])) == 4
    assert sets[0] < sets[6]
    assert sets[1] < sets[7]


def test_every_sample_of_a_class_is_drawn_equally_often(subsets):
    _few(shots=5, draws=60, seed=0)
    taken = torch.cat(subsets).bincount(minlength=218)
    for label, size in [(0, 40), (1, 25)]:
        expected = 60 * 5 / size
        deviation = (expected * (1 - 5 / size)) ** 0.5
        assert (taken[label == LABELS] - expected).abs().max() < 5 * deviation


def test_few_label_probe_equals_its_definition(subsets):
    train, labels = _data(200, 10, 4)
    train[:, 0] = torch.arange(200)
    test, targets = _data(300, 10, 4, seed=1)
    metrics = few_label_probe(train, labels, test, targets, 4, shots=4, draws=3, seed=5)
    accuracies = []
    for subset in list(subsets):
        standardise = Standardiser.fit(train[subset])
        reference = LogisticRegression(C=1.0, tol=1e-8).fit(standardise(train[subset]).numpy(), labels[subset].numpy())
        accuracies.append(float(reference.score(standardise(test).numpy(), targets.numpy())))
    assert len(set(accuracies)) > 1
    assert metrics == pytest.approx(
        {
            "linear_4shot/top1": statistics.mean(accuracies),
            "linear_4shot/top1_std": statistics.stdev(accuracies),
        },
        abs=1e-12,
    )


def test_one_draw_has_no_deviation():
    assert set(_few(shots=5, draws=1, seed=0)) == {"linear_5shot/top1"}


@pytest.mark.parametrize(("percent", "name"), [(1.0, "1pct"), (0.5, "0.5pct"), (10.0, "10pct")])
def test_percents_are_named_without_superfluous_digits(percent, name):
    assert set(_few(percent=percent, draws=2, seed=0)) == {f"linear_{name}/top1", f"linear_{name}/top1_std"}


@pytest.mark.parametrize("budget", [{}, {"shots": 1, "percent": 1.0}])
def test_shots_and_percent_exclude_each_other(budget):
    with pytest.raises(ValueError, match="exactly one of shots and percent"):
        _few(**budget, draws=1, seed=0)
