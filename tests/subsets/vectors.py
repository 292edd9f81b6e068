"""Vectors of which scores are made, and what their similarities are by definition."""

import numpy as np
import torch

from benchmarks.selection import cluster


def signs(n, d=4, seed=0):
    """Of ±1: with 4 or 16 of them, cosines are exact in every dtype, and many of them equal."""
    return torch.randint(0, 2, (n, d), generator=torch.Generator().manual_seed(seed)).double() * 2 - 1


def unit(n, d=8, seed=0, clusters=5):
    """Clustered unit vectors in float64."""
    return cluster(torch.empty(n, d, dtype=torch.float64), torch.Generator().manual_seed(seed), clusters)


# Exact cosines.
EXACT = {
    "signs": signs(41),
    "long signs": signs(33, 16),
    "duplicates": signs(9, 16, seed=1).repeat(3, 1),
    "of any length": signs(24) * torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64).repeat(8)[:, None],
    "all equal": torch.ones(12, 4, dtype=torch.float64),
    "no similarity": torch.eye(11, dtype=torch.float64),
    "some zero": torch.cat([signs(6), torch.zeros(3, 4, dtype=torch.float64), signs(5, seed=1)]),
    "zero vectors": torch.zeros(7, 4, dtype=torch.float64),
    "two": signs(2),
    "one": signs(1),
    "none": signs(0),
}
# Bytes for similarities: all of them, some rows, one row.
MEMORY = {"dense": 2**31, "blocks": 600, "rows": 1}


def cosines(features):
    x = features.double().numpy()
    lengths = np.linalg.norm(x, axis=1, keepdims=True)
    x = x / np.where(lengths > 0, lengths, 1)
    return x @ x.T


def first_largest(values):
    """The key of the largest, of equals the first key."""
    return min(key for key, value in values.items() if value == max(values.values()))
