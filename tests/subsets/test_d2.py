"""D2 against a transcription of its two passes in dictionaries."""

import math
from functools import cache

import numpy as np
import pytest
import torch

from ssl_lightning.data.views import Augment, View
from ssl_lightning.subsets.d2 import D2, d2, graph_of
from ssl_lightning.subsets.latent import One
from ssl_lightning.subsets.ranking import Ranking
from tests.subsets.test_nearest import neighbours
from tests.subsets.vectors import EXACT, MEMORY, cosines, first_largest, unit

exact = pytest.mark.parametrize("features", EXACT.values(), ids=EXACT.keys())
memories = pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY.keys())


@cache
def joined(features, k):
    """Neighbours of each: those that are near to it, and those that it is near to; with the distances."""
    near, s = neighbours(features, k), cosines(features)
    graph = {i: {} for i in range(len(near))}
    for i, some in enumerate(near):
        for j in some:
            graph[i][j] = graph[j][i] = math.sqrt(max(2 - 2 * s[i, j], 0))
    return graph


def naive(features, start, k, forward, reverse):
    graph = joined(features, k)
    received = {i: sum(math.exp(-forward * d) * start[j] for j, d in sorted(near.items())) for i, near in graph.items()}
    left = {i: float(start[i]) + received[i] for i in graph}
    members, scores = [], []
    while left:
        pick = first_largest(left)
        members.append(pick)
        scores.append(left.pop(pick))
        for j, d in graph[pick].items():
            if j in left:
                left[j] -= math.exp(-reverse * d) * scores[-1]
    return members, scores


@exact
@memories
@pytest.mark.parametrize("k", [1, 3, 50])
def test_the_graph_joins_nearest_neighbours_both_ways(features, memory, k):
    graph, expected = graph_of(features, k, memory), joined(features, k)
    for i, near in expected.items():
        edges = slice(graph.first[i], graph.first[i + 1])
        assert graph.neighbours[edges].tolist() == sorted(near)
        np.testing.assert_allclose(graph.distances[edges], [near[j] for j in sorted(near)], rtol=1e-15)


@exact
@memories
@pytest.mark.parametrize(("forward", "reverse"), [(1.0, 1.0), (0.0, 0.0), (0.3, 2.0)])
@pytest.mark.parametrize("start", ["equal", "whole numbers"])
def test_the_order_is_that_of_the_two_passes(features, memory, forward, reverse, start):
    n = len(features)
    begin = np.ones(n) if start == "equal" else np.random.default_rng(n).integers(0, 3, n).astype(float)
    members, scores = naive(features, begin, 3, forward, reverse)
    order = d2(features, begin, 3, forward, reverse, memory)
    np.testing.assert_allclose(order.scores, scores, rtol=0, atol=1e-9)
    if not reverse:  # sums of whole numbers: ties are ties
        np.testing.assert_array_equal(order.members, members)
    assert sorted(order.members) == list(range(n))


@pytest.mark.parametrize("seed", range(3))
@memories
def test_unit_vectors_follow_the_definition(seed, memory):
    features, start = unit(120, seed=seed), np.random.default_rng(seed).random(120)
    members, scores = naive(features, start, 10, 0.8, 0.4)
    order = d2(features, start, 10, 0.8, 0.4, memory)
    np.testing.assert_array_equal(order.members, members)
    np.testing.assert_allclose(order.scores, scores, rtol=0, atol=1e-10)


def test_without_messages_the_start_decides():
    start = np.random.default_rng(0).random(30)
    order = d2(unit(30), start, forward=1e6, reverse=1e6)
    np.testing.assert_array_equal(order.members, np.argsort(-start))


def test_the_second_pick_is_no_neighbour_of_the_first():
    """Of two tight clusters, the better one gives first, and then the other."""
    features = torch.eye(2, dtype=torch.float64).repeat_interleave(torch.tensor([4, 3]), 0)
    order = d2(features, np.array([3.0, 2, 2, 2, 1, 1, 1]), k=2)
    assert order.members[0] == 0
    assert order.members[1] in (4, 5, 6)


def test_a_cut_beyond_the_turn_is_told():
    scores = np.array([3.0, 1.0, 0.5, -0.1, -0.4, -0.2, -0.3, -0.5, -0.6, -0.7])
    ranking = Ranking(np.arange(10), np.zeros(10, np.int64), scores, {"rule": "d2"})
    rule = D2(augment=Augment([View()]), latent=One(), accelerator="cpu")
    assert rule.notice(ranking, 0.3) is None
    said = rule.notice(ranking, 0.5)
    assert said is not None
    assert "subset.fraction=0.5 reaches beyond 0.30, where D2's scores turn negative" in said
    assert "fraction=1 " in str(rule.notice(ranking, None))
