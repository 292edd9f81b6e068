"""Near duplicates: as the paper finds them, in blocks of any size, and those that were planted."""

import numpy as np
import pytest
import torch

from ssl_lightning.subsets import redundancy as module
from ssl_lightning.subsets.redundancy import SemDeDup


def naive(features, epsilon):
    """Sorted by the cosine to the centroid, the least first; each is compared with all before it."""
    features = features.astype(np.float64)
    unit = [row / max(np.linalg.norm(row), 1e-12) for row in features]
    centroid = sum(unit) / len(unit)
    order = sorted(range(len(unit)), key=lambda i: unit[i] @ centroid)
    redundant = np.zeros(len(unit), bool)
    for place, i in enumerate(order):
        redundant[i] = any(unit[j] @ unit[i] > 1 - epsilon for j in order[:place])
    return redundant


def found(features, epsilon):
    return SemDeDup(epsilon=epsilon).redundant(torch.from_numpy(features))


@pytest.mark.parametrize("n", [1, 2, 5, 64, 200])
@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.3, 1.0, 1.99])
@pytest.mark.parametrize("block", [4096, 7, 1])
def test_it_is_that_of_the_definition(monkeypatch, n, epsilon, block):
    monkeypatch.setattr(module, "BLOCK", block)
    rng = np.random.default_rng(n)
    features = rng.standard_normal((n, 4)) + 2 * rng.standard_normal((9, 4))[np.arange(n) % 9]
    features[n // 2 :: 5] = features[: len(features[n // 2 :: 5])] * 2  # the length of a vector does not count
    np.testing.assert_array_equal(found(features, epsilon), naive(features, epsilon))


def test_ties_and_degenerate_groups():
    """Vectors whose products are exact; copies have the same distance from the centroid: the first position stays."""
    corners = np.array([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [-1, 1, 1, -1]], float)
    features = corners[np.random.default_rng(0).integers(0, 4, 50)]
    redundant = found(features, 0.5)
    _, first = np.unique(features, axis=0, return_index=True)
    assert np.flatnonzero(~redundant).tolist() == sorted(first.tolist())
    assert found(np.ones((6, 3)), 0.01).tolist() == [False] + [True] * 5
    assert found(np.zeros((6, 3)), 0.01).tolist() == [False] * 6  # no direction, no likeness
    assert found(np.ones((1, 3)), 0.01).tolist() == [False]
    assert found(np.eye(5), 0.01).tolist() == [False] * 5


def test_a_chain_is_followed_through_what_is_redundant_itself():
    """a ~ b ~ c, though a and c differ: after a, which is farthest from the centroid, both others go."""
    angles = np.radians([0, 10, 20, *[60] * 5])  # the last draw the centroid to their end
    features = np.stack([np.cos(angles), np.sin(angles)], 1)
    redundant = found(features, 1 - np.cos(np.radians(11)))
    assert (
        redundant.tolist()
        == naive(features, 1 - np.cos(np.radians(11))).tolist()
        == [False, True, True, False, *[True] * 4]
    )


def test_planted_duplicates_are_found():
    rng = np.random.default_rng(5)
    originals = rng.standard_normal((80, 64)).astype(np.float32)  # in 64 dimensions, far from one another
    copied = rng.choice(80, 25, replace=False)
    copies = originals[copied] + 0.01 * rng.standard_normal((25, 64)).astype(np.float32)
    order = rng.permutation(105)
    redundant = found(np.concatenate([originals, copies])[order], 0.05)
    source = np.concatenate([np.arange(80), copied])[order]
    assert redundant.sum() == 25
    assert sorted(source[~redundant].tolist()) == list(range(80))  # one of each is kept
    assert set(source[redundant].tolist()) == set(copied.tolist())
