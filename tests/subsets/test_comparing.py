"""Agreement of rankings, beside naive transcriptions and SciPy."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy, spearmanr

from ssl_lightning.subsets.comparing import balance, disputed, kept, overlap, shares, spearman_within, typicality
from ssl_lightning.subsets.ranking import Ranking
from tests.subsets.vectors import EXACT, cosines

LENGTH = 60
LABELS = np.repeat([3, 0, -1, 7], [30, 17, 12, 1])  # the last is alone
ONE = np.zeros(LENGTH, np.int64)


def ranking(order, **provenance) -> Ranking:
    return Ranking(np.array(order), np.zeros(len(order), np.int64), np.zeros(len(order)), provenance)


def drawn(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(LENGTH)


def test_shares_are_places_of_what_is_ranked():
    order = drawn(0)
    found = shares(ranking(order, max_fraction=0.25))
    for place, position in enumerate(order):
        expected = (place + 0.5) / LENGTH if place < 15 else math.nan
        np.testing.assert_equal(found[position], expected)


@pytest.mark.parametrize("reach", [1.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_spearman_is_that_of_scipy_in_each_group(seed, reach):
    one, other = shares(ranking(drawn(seed))), shares(ranking(drawn(seed + 10), max_fraction=reach))
    both = np.isfinite(other)
    assert spearman_within(one, other, ONE) == pytest.approx(spearmanr(one[both], other[both]).statistic)
    total = weight = 0.0
    for label in np.unique(LABELS):
        members = both & (label == LABELS)
        if (m := members.sum()) > 1:
            total += (m - 1 / m) * spearmanr(one[members], other[members]).statistic
            weight += m - 1 / m
    assert spearman_within(one, other, LABELS) == pytest.approx(total / weight)
    assert spearman_within(other, one, LABELS) == pytest.approx(total / weight)


@pytest.mark.parametrize("groups", [ONE, LABELS], ids=["one", "labels"])
def test_spearman_of_the_same_order_is_1_and_of_its_reverse_minus_1(groups):
    one, reverse = shares(ranking(drawn(1))), shares(ranking(drawn(1)[::-1]))
    assert spearman_within(one, one, groups) == pytest.approx(1)
    assert spearman_within(one, reverse, groups) == pytest.approx(-1)


def test_an_order_of_groups_alone_is_no_agreement_within_them():
    """Both take the first label first, and reverse each other within labels."""
    labels = np.repeat([0, 1], LENGTH // 2)
    halves = [np.arange(30), np.arange(30, 60)]
    one = shares(ranking(np.concatenate(halves)))
    other = shares(ranking(np.concatenate([half[::-1] for half in halves])))
    assert spearman_within(one, other, ONE) > 0.4
    assert spearman_within(one, other, labels) == pytest.approx(-1)


def test_spearman_is_unknown_where_nothing_can_be_compared():
    one = shares(ranking(drawn(0)))
    assert math.isnan(spearman_within(one, one, np.arange(LENGTH)))
    assert math.isnan(spearman_within(one, np.full(LENGTH, np.nan), ONE))


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.295, 0.5, 0.9, 1.0])
def test_overlap_is_that_of_the_masks(fraction):
    one, other = ranking(drawn(2)), ranking(drawn(3))
    masks = [set(each.mask(fraction).positions.tolist()) for each in (one, other)]
    assert overlap(kept(one, fraction), kept(other, fraction)) == len(masks[0] & masks[1]) / len(masks[0])
    assert set(np.flatnonzero(kept(one, fraction)).tolist()) == masks[0]
    assert overlap(kept(one, fraction), kept(one, fraction)) == 1
    left = [set(range(LENGTH)) - mask for mask in masks]
    found = overlap(~kept(one, fraction), ~kept(other, fraction))
    np.testing.assert_equal(found, len(left[0] & left[1]) / len(left[0]) if left[0] else math.nan)


def test_a_reversed_ranking_keeps_what_the_other_drops():
    one, reverse = ranking(drawn(4)), ranking(drawn(4)[::-1])
    assert overlap(kept(one, 0.5), kept(reverse, 0.5)) == 0
    assert overlap(kept(one, 0.7), kept(reverse, 0.7)) == pytest.approx(24 / 42)


def test_what_a_list_does_not_name_is_not_known():
    part = ranking(drawn(5), max_fraction=0.3)
    assert kept(part, 0.31) is None
    assert kept(part, 0.3).sum() == 18
    assert math.isnan(overlap(kept(part, 0.5), kept(part, 0.5)))


def test_independent_rankings_agree_by_chance():
    """Means over 400 pairs, whose standard errors are 1/√(400 · 59), and less than √(0.3 · 0.7/(400 · 18))."""
    pairs = [(ranking(drawn(2 * i)), ranking(drawn(2 * i + 1))) for i in range(400)]
    rho = np.mean([spearman_within(shares(one), shares(other), ONE) for one, other in pairs])
    both = np.mean([overlap(kept(one, 0.3), kept(other, 0.3)) for one, other in pairs])
    assert abs(rho) < 4 / math.sqrt(400 * 59)
    assert abs(both - 0.3) < 4 * math.sqrt(0.3 * 0.7 / 18 / 400)


def test_balance_is_the_entropy_and_the_shares_of_labels():
    mask = kept(ranking(drawn(6)), 0.4)
    found = balance(mask, LABELS)
    sizes = {label: (label == LABELS).sum() for label in (0, 3, 7)}
    counts = {label: (mask & (label == LABELS)).sum() for label in sizes}
    assert found.effective == pytest.approx(np.exp(entropy(list(counts.values()))))
    assert found.least == min(counts[label] / sizes[label] for label in sizes)
    assert found.most == max(counts[label] / sizes[label] for label in sizes)
    assert balance(np.ones(40, bool), np.arange(40) % 4) == (pytest.approx(4), 1, 1)
    assert balance(LABELS == 7, LABELS) == (1, 0, 1)
    assert balance(LABELS == -1, LABELS) is None
    assert balance(None, LABELS) is None


def test_the_most_disputed_are_those_of_largest_variance_that_all_rank():
    places = [shares(ranking(drawn(i), max_fraction=reach)) for i, reach in enumerate((1.0, 1.0, 0.5))]
    variance = [np.var([each[i] for each in places]) for i in range(LENGTH)]
    expected = sorted((i for i in range(LENGTH) if np.isfinite(variance[i])), key=lambda i: -variance[i])
    np.testing.assert_allclose(np.array(variance)[disputed(places)], np.array(variance)[expected])
    assert sorted(disputed(places)) == sorted(expected)
    assert disputed([places[0]] * 2).tolist() == list(range(LENGTH))


@pytest.mark.parametrize("grouped", [False, True], ids=["one", "groups"])
@pytest.mark.parametrize("features", EXACT.values(), ids=EXACT.keys())
def test_typicality_is_the_share_of_the_group_with_looser_neighbours(features, grouped):
    groups = np.arange(len(features)) % 3 if grouped else np.zeros(len(features), np.int64)
    s, mean = cosines(features), {}
    for i in range(len(features)):
        others = sorted((s[i, j] for j in range(len(s)) if j != i and groups[j] == groups[i]), reverse=True)[:10]
        mean[i] = sum(others) / max(1, len(others))
    expected = []
    for i in mean:
        fellows = [mean[j] for j in mean if groups[j] == groups[i]]
        looser = sum(value < mean[i] for value in fellows) + sum(value == mean[i] for value in fellows) / 2
        expected.append(looser / len(fellows))
    found = typicality(features.float().numpy(), groups, torch.device("cpu"))
    np.testing.assert_allclose(found, expected)
    for group in np.unique(groups):
        assert found[groups == group].mean() == pytest.approx(0.5)
