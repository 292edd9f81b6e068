"""Random subsets: seeded, nested, of exact size, and balanced where they say so."""

from itertools import pairwise

import numpy as np
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.subsets.random import Full, Random, RandomBalanced
from ssl_lightning.subsets.rule import Subset
from tests.data.synthetic import in_memory
from tests.subsets.cutting import deviation, mask_of

RULES = [Random, RandomBalanced]


@pytest.fixture
def dataset():
    labels = np.repeat(np.arange(4), [10, 20, 30, 140])
    return in_memory(labels[np.random.default_rng(0).permutation(200)])


def positions(rule, dataset, fraction):
    return set(mask_of(rule, dataset, fraction).positions.tolist())


def test_full_is_everything(dataset):
    mask = mask_of(Full(), dataset)
    assert mask.positions.tolist() == list(range(200))
    assert (mask.rule, mask.fraction, deviation(mask, np.zeros(200))) == ("full", 1.0, 0.0)
    assert mask.digest == mask_of(Random(), dataset).digest
    np.testing.assert_array_equal(Full().rank(dataset).order, np.arange(200))


def test_full_takes_no_fraction():
    with pytest.raises(UserError, match="subset=random"):
        Subset(Full(), 0.5)
    assert Subset(Full(), None).fraction is None


@pytest.mark.parametrize("rule", RULES)
def test_the_seed_decides(dataset, rule):
    assert mask_of(rule(seed=1), dataset, 0.3).digest == mask_of(rule(seed=1), dataset, 0.3).digest
    assert len({mask_of(rule(seed=seed), dataset, 0.3).digest for seed in range(10)}) == 10


@pytest.mark.parametrize("rule", RULES)
def test_fractions_of_one_seed_are_nested(dataset, rule):
    masks = [positions(rule(seed=2), dataset, fraction) for fraction in (0.005, 0.1, 0.25, 0.5, 0.9, 1.0)]
    assert [len(mask) for mask in masks] == [1, 20, 50, 100, 180, 200]
    for smaller, larger in pairwise(masks):
        assert smaller < larger


def test_balanced_keeps_the_proportions_of_the_labels(dataset):
    labels = dataset.train().labels.numpy()
    mask = mask_of(RandomBalanced(), dataset, 0.3)
    assert np.bincount(labels[mask.positions]).tolist() == [3, 6, 9, 42]
    assert deviation(mask, labels) == pytest.approx(0)


def test_random_ignores_the_labels(dataset):
    labels = dataset.train().labels.numpy()
    counts = [np.bincount(labels[mask_of(Random(seed=seed), dataset, 0.3).positions]) for seed in range(300)]
    assert np.std(counts, axis=0).min() > 0.5  # hypergeometric: at least 1.4
    np.testing.assert_allclose(np.mean(counts, axis=0), [3, 6, 9, 42], atol=0.7)


@pytest.mark.nightly
def test_every_position_is_drawn_equally_often(dataset):
    for rule in RULES:
        taken = np.zeros(200)
        for seed in range(300):
            taken[mask_of(rule(seed=seed), dataset, 0.5).positions] += 1
        assert np.abs(taken - 150).max() < 45  # five standard deviations of a fair draw


def test_the_order_does_not_depend_on_global_generators(dataset):
    first = mask_of(Random(), dataset, 0.5).digest
    np.random.seed(123)  # noqa: NPY002
    assert mask_of(Random(), dataset, 0.5).digest == first


def test_floor_is_per_label(dataset):
    mask = mask_of(RandomBalanced(), dataset, 0.05, "floor")
    assert np.bincount(dataset.train().labels[mask.positions], minlength=4).tolist() == [0, 1, 1, 7]


def test_cheap_rules_are_not_cached(dataset, tmp_path):
    mask_of(Random(cache=str(tmp_path / "cache")), dataset, 0.5)
    assert list(tmp_path.iterdir()) == []


def test_classes_of_which_a_floor_takes_nothing_are_told():
    dataset = in_memory(np.repeat([0, 1, 2], [2, 1, 10]))
    rule = RandomBalanced()
    ranking = rule.ranking(dataset)
    notice = Subset(rule, 0.4, "floor").notice(ranking)
    assert notice is not None
    assert notice.startswith("subset.budget=floor takes no image of 2 latent classes of at most 2 images.")
    assert Subset(rule, 0.4, "exact").notice(ranking) is None
    assert Subset(rule, 1.0, "floor").notice(ranking) is None
