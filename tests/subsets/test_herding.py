"""Herding against its definition: each pick is tried."""

import numpy as np
import pytest
import torch

from ssl_lightning.subsets.herding import herding
from tests.subsets.vectors import EXACT, unit


def naive(features):
    """Members, and how far from the mean those before each have left; of equals, up to rounding, the first."""
    x = torch.nn.functional.normalize(features.double()).numpy()
    mean, members, scores = x.mean(0), [], []
    while len(members) < len(x):
        left = [e for e in range(len(x)) if e not in members]
        distances = [np.linalg.norm(mean - x[[*members, e]].mean(0)) for e in left]
        scores.append(np.linalg.norm(mean - x[members].mean(0)) if members else np.linalg.norm(mean))
        members.append(next(e for e, d in zip(left, distances, strict=True) if d < min(distances) + 1e-12))
    return members, scores


# Means of powers of two of exact vectors are exact; so no rounding breaks ties.
TIED = {name: features for name, features in EXACT.items() if len(features) in (1, 2)} | {
    "signs": EXACT["signs"][:32],
    "duplicates": EXACT["long signs"][:8].repeat(4, 1),
    "all equal": torch.ones(16, 4, dtype=torch.float64),
    "some zero": torch.cat([EXACT["signs"][:13], torch.zeros(3, 4, dtype=torch.float64)]),
    "no similarity": torch.eye(8, dtype=torch.float64),
    "zero vectors": torch.zeros(8, 4, dtype=torch.float64),
}


@pytest.mark.parametrize("features", TIED.values(), ids=TIED.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ties_are_those_of_the_definition(features, dtype):
    members, scores = naive(features)
    order = herding(features.to(dtype))
    np.testing.assert_array_equal(order.members, members)
    np.testing.assert_allclose(order.scores, scores, rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_unit_vectors_follow_the_definition(seed):
    members, scores = naive(unit(50, seed=seed))
    order = herding(unit(50, seed=seed))
    np.testing.assert_array_equal(order.members, members)
    np.testing.assert_allclose(order.scores, scores, rtol=0, atol=1e-12)


def test_the_mean_of_few_is_closer_than_that_of_as_many_at_random():
    features = unit(500, 16)
    herded = features[herding(features).members[:20]].mean(0)
    drawn = features[np.random.default_rng(0).permutation(500)[:20]].mean(0)
    assert (herded - features.mean(0)).norm() < (drawn - features.mean(0)).norm() / 3
