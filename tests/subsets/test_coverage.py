"""Facility location and farthest first against their definitions, evaluated naively, whatever memory there is."""

from functools import cache

import numpy as np
import pytest
import torch

from ssl_lightning.subsets.coverage import facility_location
from ssl_lightning.subsets.k_center import k_center
from tests.subsets.vectors import EXACT, MEMORY, cosines, first_largest, unit

exact = pytest.mark.parametrize("features", EXACT.values(), ids=EXACT.keys())
memories = pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY.keys())
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def coverage(s, subset):
    """F(S) = Σ_i max_{j∈S} s_ij, 0 of none."""
    return s[:, subset].max(1, initial=0.0).sum()


@cache
def covering(features):
    s = np.maximum(cosines(features), 0)
    members, scores = [], []
    while len(members) < len(s):
        gains = {e: coverage(s, [*members, e]) - coverage(s, members) for e in range(len(s)) if e not in members}
        members.append(first_largest(gains))
        scores.append(gains[members[-1]])
    return members, scores


@cache
def farthest(features):
    s = cosines(features)
    members, scores = [], []
    while len(members) < len(s):
        left = [e for e in range(len(s)) if e not in members]
        of_the_first = {e: s[e].sum() for e in left}  # n ⟨x, mean⟩ of unit vectors
        distances = {e: min(1 - s[e, j] for j in members) for e in left} if members else of_the_first
        members.append(first_largest(distances))
        scores.append(distances[members[-1]] if len(members) > 1 else 2)
    return members, scores


DEFINITIONS = {facility_location: covering, k_center: farthest}
rules = pytest.mark.parametrize("rule", DEFINITIONS, ids=lambda rule: rule.__name__)


@rules
@exact
@memories
@dtypes
def test_orders_are_exactly_those_of_the_definition(rule, features, memory, dtype):
    members, scores = DEFINITIONS[rule](features)
    given = features.to(dtype)
    order = rule(given, memory)
    np.testing.assert_array_equal(order.members, members)
    np.testing.assert_array_equal(order.scores, scores)
    assert torch.equal(given, features.to(dtype))


@rules
@memories
@pytest.mark.parametrize("seed", range(3))
def test_unit_vectors_follow_the_definition(rule, memory, seed):
    """But for ties that rounding breaks: two members that cover nothing but one another gain as much by either."""
    features = unit(40, seed=seed)
    s = cosines(features)
    order = rule(features, memory)
    np.testing.assert_allclose(order.scores, DEFINITIONS[rule](features)[1], rtol=0, atol=1e-12)
    assert sorted(order.members) == list(range(40))
    for k in range(1, 40):
        taken, pick = order.members[:k].tolist(), [order.members[k]]
        if rule is k_center:
            gain = 1 - s[pick[0], taken].max()
        else:
            gain = coverage(np.maximum(s, 0), taken + pick) - coverage(np.maximum(s, 0), taken)
        assert abs(order.scores[k] - gain) < 1e-12


@pytest.mark.one_in(3)
@rules
@pytest.mark.parametrize("clusters", [1, 5, 300])
def test_gains_never_increase_and_memory_changes_nothing(rule, clusters):
    features = unit(600, 16, clusters=clusters)
    dense, blocks = rule(features), rule(features, 600 * 300 * 8)
    np.testing.assert_allclose(blocks.scores, dense.scores, rtol=0, atol=1e-10)
    same = blocks.members == dense.members
    assert same.mean() > 0.9  # others are ties, which rounding breaks
    assert sorted(dense.members) == list(range(600))
    assert (np.diff(dense.scores) <= 0).all()
    assert (np.diff(blocks.scores) <= 0).all()


@rules
def test_single_precision_takes_the_same_where_it_can_tell(rule):
    features = unit(300, 16)
    double, single = rule(features), rule(features.float())
    np.testing.assert_allclose(single.scores, double.scores, rtol=1e-5, atol=1e-5)
    assert (single.members == double.members).mean() > 0.9


def test_a_group_is_covered_cluster_by_cluster():
    features = torch.eye(3, dtype=torch.float64).repeat_interleave(torch.tensor([4, 2, 3]), 0)
    order = facility_location(features)
    np.testing.assert_array_equal(order.members, [0, 6, 4, 1, 2, 3, 5, 7, 8])
    np.testing.assert_array_equal(order.scores, [4, 3, 2, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(k_center(features).members, [0, 4, 6, 1, 2, 3, 5, 7, 8])
    np.testing.assert_array_equal(k_center(features).scores, [2, 1, 1, 0, 0, 0, 0, 0, 0])


@pytest.mark.nightly
def test_apricot_covers_as_well_at_each_pick():
    apricot = pytest.importorskip("apricot", reason="needs the extra `oracles`")
    features = unit(80)
    similarities = np.maximum(cosines(features), 0)
    theirs = apricot.FacilityLocationSelection(80, metric="precomputed", optimizer="naive").fit(similarities)
    for memory in (2**31, 2**14):
        order = facility_location(features, memory)
        np.testing.assert_allclose(order.scores, theirs.gains, rtol=0, atol=1e-11)
        assert (order.members == theirs.ranking).mean() > 0.8  # others are ties, which rounding breaks
