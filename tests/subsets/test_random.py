"""Random subsets: seeded, nested, of exact size, and balanced where they say so."""

from itertools import pairwise

import numpy as np
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.subsets.random import Full, Random, RandomBalanced
from tests.data.synthetic import in_memory

RULES = [Random, RandomBalanced]


@pytest.fixture
def dataset():
    labels = np.repeat(np.arange(4), [10, 20, 30, 140])
    return in_memory(labels[np.random.default_rng(0).permutation(200)])


def positions(rule, dataset):
    return set(rule.mask(dataset).positions.tolist())


def test_full_is_everything(dataset):
    mask = Full().mask(dataset)
    assert mask.positions.tolist() == list(range(200))
    assert (mask.rule, mask.fraction, mask.deviation) == ("full", 1.0, 0.0)
    assert mask.hash == Random().mask(dataset).hash
    np.testing.assert_array_equal(Full().rank(dataset).order, np.arange(200))


def test_full_takes_no_fraction():
    with pytest.raises(UserError, match="subset=random"):
        Full(fraction=0.5)


@pytest.mark.parametrize("rule", RULES)
def test_the_seed_decides(dataset, rule):
    assert rule(fraction=0.3, seed=1).mask(dataset).hash == rule(fraction=0.3, seed=1).mask(dataset).hash
    assert len({rule(fraction=0.3, seed=seed).mask(dataset).hash for seed in range(10)}) == 10


@pytest.mark.parametrize("rule", RULES)
def test_fractions_of_one_seed_are_nested(dataset, rule):
    masks = [positions(rule(fraction=fraction, seed=2), dataset) for fraction in (0.005, 0.1, 0.25, 0.5, 0.9, 1.0)]
    assert [len(mask) for mask in masks] == [1, 20, 50, 100, 180, 200]
    for smaller, larger in pairwise(masks):
        assert smaller < larger


def test_balanced_keeps_the_proportions_of_the_labels(dataset):
    labels = dataset.train().labels.numpy()
    mask = RandomBalanced(fraction=0.3).mask(dataset)
    assert np.bincount(labels[mask.positions]).tolist() == [3, 6, 9, 42]
    assert mask.deviation == 0


def test_random_ignores_the_labels(dataset):
    labels = dataset.train().labels.numpy()
    counts = [np.bincount(labels[Random(fraction=0.3, seed=seed).mask(dataset).positions]) for seed in range(300)]
    assert np.std(counts, axis=0).min() > 0.5  # hypergeometric: at least 1.4
    np.testing.assert_allclose(np.mean(counts, axis=0), [3, 6, 9, 42], atol=0.7)


def test_every_position_is_drawn_equally_often(dataset):
    for rule in RULES:
        taken = np.zeros(200)
        for seed in range(300):
            taken[rule(fraction=0.5, seed=seed).mask(dataset).positions] += 1
        assert np.abs(taken - 150).max() < 45  # five standard deviations of a fair draw


def test_the_order_does_not_depend_on_global_generators(dataset):
    first = Random(fraction=0.5).mask(dataset).hash
    np.random.seed(123)  # noqa: NPY002
    assert Random(fraction=0.5).mask(dataset).hash == first


def test_floor_is_per_label(dataset):
    mask = RandomBalanced(fraction=0.05, budget="floor").mask(dataset)
    assert np.bincount(dataset.train().labels[mask.positions], minlength=4).tolist() == [0, 1, 1, 7]


def test_cheap_rules_are_not_cached(dataset, tmp_path):
    Random(fraction=0.5, cache=str(tmp_path / "cache")).mask(dataset)
    assert list(tmp_path.iterdir()) == []
