"""Nearest neighbours and density against double loops, ties included."""

from functools import cache

import numpy as np
import pytest
import torch

from ssl_lightning.subsets.knn_density import density
from ssl_lightning.subsets.nearest import nearest
from tests.subsets.vectors import EXACT, MEMORY, cosines, unit

exact = pytest.mark.parametrize("features", EXACT.values(), ids=EXACT.keys())
memories = pytest.mark.parametrize("memory", MEMORY.values(), ids=MEMORY.keys())


@cache
def neighbours(features, k):
    """Of each member, positions of its k nearest others, of equals the first, in order of position."""
    s = cosines(features)
    found = []
    for i in range(len(s)):
        others = sorted((j for j in range(len(s)) if j != i), key=lambda j: (-s[i, j], j))
        found.append(sorted(others[:k]))
    return found


@exact
@memories
@pytest.mark.parametrize("k", [1, 3, 10, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_neighbours_are_those_of_the_definition(features, memory, k, dtype):
    expected, s = neighbours(features, k), cosines(features)
    values, index = nearest(features.to(dtype), k, memory)
    assert index.tolist() == expected
    np.testing.assert_array_equal(values, [s[i, some] for i, some in enumerate(expected)] or np.empty((0, 0)))


@pytest.mark.parametrize("seed", range(3))
@memories
def test_neighbours_of_unit_vectors(seed, memory):
    features = unit(60, seed=seed)
    values, index = nearest(features, 7, memory)
    assert index.tolist() == neighbours(features, 7)
    np.testing.assert_allclose(values, np.take_along_axis(cosines(features), index.numpy(), 1), rtol=0, atol=1e-14)


@exact
@memories
@pytest.mark.parametrize("k", [1, 4, 100])
def test_density_is_the_mean_cosine_with_them(features, memory, k):
    s = cosines(features)
    expected = [np.mean(s[i, some]) if some else 0.0 for i, some in enumerate(neighbours(features, k))]
    np.testing.assert_allclose(density(features, k, memory), expected, rtol=0, atol=1e-15)


def test_a_copy_is_as_close_as_can_be():
    features = unit(20)
    features[7] = 3 * features[2]
    found = density(features, 1)
    np.testing.assert_allclose(found[[2, 7]], 1, rtol=0, atol=1e-15)
    assert sorted(np.argsort(-found)[:2]) == [2, 7]
