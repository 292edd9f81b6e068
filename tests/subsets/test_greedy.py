"""The greedy order of SAS against its definition, evaluated naively, in every way in which it can be computed.

Features of small integers have exact similarities, so that even ties must agree in every dtype and block size. Other
features are compared in float64, and in float32 up to gains that float32 cannot tell apart.
"""

import numpy as np
import pytest
import torch

from benchmarks.selection import cluster, textbook
from ssl_lightning.subsets.candidates import fits
from ssl_lightning.subsets.greedy import graph_cut, row_sum, similarity_sums

ATOL = 1e-11  # of sums of some hundred similarities in float64


def grid(n, d, low, high, seed=0):
    return torch.randint(low, high + 1, (n, d), generator=torch.Generator().manual_seed(seed)).double()


def unit(n, d=16, seed=0, clusters=7):
    """Clustered unit vectors in float64."""
    return cluster(torch.empty(n, d, dtype=torch.float64), torch.Generator().manual_seed(seed), clusters)


# Exact similarities, most with many ties.
EXACT = {
    "both signs": grid(23, 3, -2, 2),
    "few values": grid(31, 2, -1, 1),
    "all positive": grid(20, 4, 1, 3),
    "duplicates": grid(9, 3, -2, 2).repeat(3, 1),
    "all equal": torch.ones(12, 2, dtype=torch.float64),
    "no similarity": torch.eye(11, dtype=torch.float64),
    "zero vectors": torch.zeros(7, 3, dtype=torch.float64),
    "two": grid(2, 3, 1, 2),
    "one": grid(1, 3, 1, 2),
}
exact = pytest.mark.parametrize("features", EXACT.values(), ids=EXACT.keys())
# Memory for everything, for all but one byte of it, for a few rows, and for none.
MEMORY = {"dense": 1.0, "almost dense": -1.0, "blocks": 0.3, "rows": 0.0}
memories = pytest.mark.parametrize("share", MEMORY.values(), ids=MEMORY.keys())


def bytes_for(share, features):
    whole = len(features) ** 2 * features.itemsize
    return whole - 1 if share < 0 else max(1, int(share * whole))


def similarities(features, threshold=0.0):
    products = features.double().numpy() @ features.double().numpy().T
    kept = np.where(products > threshold, products, 0.0)
    np.fill_diagonal(kept, 0.0)
    return kept


def cut(s, subset):
    """F(S) = Σ_{i∉S} Σ_{j∈S} s_ij."""
    inside = np.zeros(len(s), bool)
    inside[list(subset)] = True
    return s[np.ix_(~inside, inside)].sum()


def gains_of(s, subset):
    """F(S + e) − F(S) of all e that are left, by e."""
    return {e: cut(s, [*subset, e]) - cut(s, subset) for e in range(len(s)) if e not in subset}


def naive(s, budget=None):
    """Members and scores of the greedy order; those behind the budget by their gains after it."""
    members, scores = [], []
    for _ in range(len(s) if budget is None else budget):
        gains = gains_of(s, members)
        scores.append(max(gains.values()))
        members.append(min(e for e, gain in gains.items() if gain == scores[-1]))
    gains = gains_of(s, members)
    rest = sorted(gains, key=lambda e: (-gains[e], e))
    return members + rest, scores + [gains[e] for e in rest]


def equal(order, expected):
    np.testing.assert_array_equal(order.members, expected[0])
    np.testing.assert_array_equal(order.scores, expected[1])


# The definition


@exact
@memories
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [0.0, 2.0])  # 2 is a similarity of many: it does not exceed itself
def test_orders_are_exactly_those_of_the_definition(features, share, dtype, threshold):
    s = similarities(features, threshold)
    features, memory = features.to(dtype), bytes_for(share, features.to(dtype))
    before = features.clone()

    equal(graph_cut(features, threshold, memory=memory), naive(s))
    sums = s.sum(1)
    members = sorted(range(len(s)), key=lambda i: (-sums[i], i))
    equal(row_sum(features, threshold, memory), (members, sums[members]))
    np.testing.assert_array_equal(similarity_sums(features, threshold, memory), sums)
    assert torch.equal(features, before)


@pytest.mark.parametrize("seed", range(5))
@memories
@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_unit_vectors_follow_the_definition(seed, share, threshold):
    features = unit(25, 4, seed)
    s = similarities(features, threshold)
    assert 0 < (s == 0).mean() < 1
    order = graph_cut(features, threshold, memory=bytes_for(share, features))
    members, scores = naive(s)
    np.testing.assert_array_equal(order.members, members)
    np.testing.assert_allclose(order.scores, scores, rtol=0, atol=ATOL)


@memories
@pytest.mark.parametrize("features", [EXACT["both signs"], EXACT["duplicates"]], ids=["both signs", "duplicates"])
def test_behind_the_budget_the_last_gains_decide(features, share):
    s, n = similarities(features), len(features)
    memory = bytes_for(share, features)
    full = graph_cut(features, memory=memory)
    for budget in (0, 1, 2, n // 4, n // 2, n - 1, n):
        order = graph_cut(features, budget=budget, memory=memory)
        equal(order, naive(s, budget))
        np.testing.assert_array_equal(order.members[:budget], full.members[:budget])
        assert sorted(order.members) == list(range(n))
        assert (np.diff(order.scores) <= 0).all()
    equal(graph_cut(features, budget=n + 5, memory=memory), (full.members, full.scores))
    equal(graph_cut(features, budget=0, memory=memory), row_sum(features, memory=memory))


def test_copies_of_one_vector_lose_two_at_each_pick():
    order = graph_cut(torch.ones(9, 1))
    equal(order, (range(9), [8, 6, 4, 2, 0, -2, -4, -6, -8]))


def test_the_cut_turns_to_the_next_cluster_and_the_row_sum_does_not():
    features = torch.eye(2, dtype=torch.float64).repeat_interleave(torch.tensor([5, 4]), 0)
    equal(graph_cut(features), ([0, 5, 1, 6, 2, 7, 3, 8, 4], [4, 3, 2, 1, 0, -1, -2, -3, -4]))
    equal(row_sum(features), (range(9), [4] * 5 + [3] * 4))


@pytest.mark.parametrize("select", [graph_cut, row_sum])
@pytest.mark.parametrize("memory", [1, 2**31])
def test_classes_of_none_and_of_one(select, memory):
    equal(select(torch.ones(0, 3), memory=memory), ([], []))
    equal(select(torch.ones(1, 3), memory=memory), ([0], [0]))


# What holds for every greedy maximisation of a cut


def test_what_must_hold_of_a_cut():
    features = unit(300)
    s, order = similarities(features), graph_cut(features)
    n, total = len(s), s.sum()
    assert sorted(order.members) == list(range(n))
    assert (np.diff(order.scores) <= 0).all()  # submodular
    assert abs(order.scores.sum()) < 1e-12 * total  # F(V) = F(∅)
    turn = int(np.argmax(order.scores < 0))
    assert 0.4 * n < turn < 0.6 * n
    values = np.cumsum(order.scores)
    assert np.argmax(values) == turn - 1  # not monotone
    for k in (1, 7, turn, n - 2):
        head, tail = order.members[:k], order.members[k:]
        np.testing.assert_allclose(values[k - 1], cut(s, head), rtol=1e-12)
        np.testing.assert_allclose(cut(s, tail), cut(s, head), rtol=1e-12)
    assert values[turn - 1] >= total / 4  # half of the greatest cut, at least: a random half has that on average
    assert not np.array_equal(order.members, row_sum(features).members)


def test_members_have_no_numbers():
    features = unit(120)
    shuffled = np.random.default_rng(0).permutation(120)
    for select in (graph_cut, row_sum):
        whole, moved = select(features), select(features[torch.from_numpy(shuffled)])
        np.testing.assert_array_equal(shuffled[moved.members], whole.members)
        np.testing.assert_allclose(moved.scores, whole.scores, rtol=0, atol=ATOL)


# Ways of computing


@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_memory_changes_nothing_in_float64(threshold):
    features = unit(700)
    whole, sums = graph_cut(features, threshold), similarity_sums(features, threshold)
    assert fits(700, 8, 700 * 700 * 8)
    assert not fits(700, 8, 700 * 700 * 8 - 1)
    for memory in (700 * 700 * 8 - 1, 700 * 8 * 64, 700 * 8 * 3.5, 1):
        order = graph_cut(features, threshold, memory=memory)
        np.testing.assert_array_equal(order.members, whole.members)
        np.testing.assert_allclose(order.scores, whole.scores, rtol=0, atol=ATOL)
        np.testing.assert_allclose(similarity_sums(features, threshold, memory), sums, rtol=1e-12)


@pytest.mark.parametrize("memory", [2**31, 700 * 700 * 4 - 1, 700 * 4 * 64, 1])
def test_float32_is_greedy_up_to_what_it_can_tell_apart(memory):
    features = unit(700)
    s, order = similarities(features), graph_cut(features.float(), memory=memory)
    gains = s.sum(1)
    tolerance = 1e-5 * gains.max()
    for member, score in zip(order.members, order.scores, strict=True):
        assert gains[member] > gains.max() - tolerance
        assert abs(gains[member] - score) < tolerance
        gains -= 2 * s[member]
        gains[member] = -np.inf
    sums = s.sum(1)
    rows = row_sum(features.float(), memory=memory)
    np.testing.assert_allclose(rows.scores, sums[rows.members], rtol=1e-5)
    assert (np.diff(sums[rows.members]) < tolerance).all()


@pytest.mark.parametrize("rows", [1, 5, 64, 299])
def test_no_more_similarities_than_memory(rows, monkeypatch):
    features, memory = unit(300).float(), rows * 300 * 4
    multiply, made = torch.mm, []

    def recorded(*arguments, **options):
        product = multiply(*arguments, **options)
        made.append(product.untyped_storage())
        return product

    monkeypatch.setattr(torch, "mm", recorded)
    similarity_sums(features, memory=memory)
    blocks = len(made)
    graph_cut(features, memory=memory)
    for passes in (made[:blocks], made[2 * blocks :]):
        assert len(passes) > 1
        assert len({storage.data_ptr() for storage in passes}) == 1  # later products overwrite earlier ones
        assert passes[0].nbytes() <= memory
    assert len(made) - 2 * blocks < 300 * 5 / rows  # a fifth of the rows is used, at least


def test_the_textbook_does_the_same():
    features = unit(150)
    picks, seconds = textbook(features, limit=60)
    assert seconds > 0
    np.testing.assert_array_equal(picks, graph_cut(features).members)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that torch can use")
@pytest.mark.parametrize("memory", [2**31, 700 * 8 * 64])
def test_a_gpu_finds_the_same_order(memory):
    features = unit(700)
    for select in (graph_cut, row_sum):
        ours, theirs = select(features, memory=memory), select(features.cuda(), memory=memory)
        np.testing.assert_array_equal(theirs.members, ours.members)
        np.testing.assert_allclose(theirs.scores, ours.scores, rtol=0, atol=ATOL)
    for integers in EXACT.values():
        equal(graph_cut(integers.cuda(), memory=memory), graph_cut(integers))
