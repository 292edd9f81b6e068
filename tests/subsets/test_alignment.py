"""Alignment by its identity, against the double loop over looks."""

import numpy as np
import pytest

from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.alignment import Alignment, alignment
from ssl_lightning.subsets.latent import One
from tests.callbacks import fitting
from tests.subsets.proxies import Toy, given


def unit_looks(n, looks, d=5, seed=0):
    z = np.random.default_rng(seed).standard_normal((n, looks, d))
    return z / np.linalg.norm(z, axis=2, keepdims=True)


def naive(z):
    looks = z.shape[1]
    pairs = [(v, w) for v in range(looks) for w in range(looks) if v != w]
    return [np.mean([image[v] @ image[w] for v, w in pairs]) for image in z]


@pytest.mark.parametrize("looks", [2, 3, 8])
@pytest.mark.parametrize("n", [1, 2, 50])
def test_it_follows_from_the_mean_of_the_looks(n, looks):
    z = unit_looks(n, looks)
    np.testing.assert_allclose(alignment(z.mean(1), looks), naive(z), rtol=0, atol=1e-14)
    np.testing.assert_allclose(alignment(z.mean(1).astype(np.float32), looks), naive(z), rtol=0, atol=1e-6)


def test_its_bounds():
    same, opposite = np.ones((1, 4, 1)), np.array([[[1.0], [-1.0]]])
    assert alignment(same.mean(1), 4) == 1
    assert alignment(opposite.mean(1), 2) == -1
    around = np.array([[[1, 0], [-0.5, np.sqrt(3) / 2], [-0.5, -np.sqrt(3) / 2]]])  # −1/(A − 1) is the least
    np.testing.assert_allclose(alignment(around.mean(1), 3), -0.5)


def make(**options):
    jitter = Augment([View(jitter_probability=1.0, brightness=0.6, contrast=0.6)])
    return Alignment(augment=jitter, latent=One(), accelerator="cpu", **options)


def test_the_rule_ranks_by_it():
    data, proxies = fitting.dataset(), [given(Toy(lambda images: images.flatten(1)))]
    easiest, hardest = (make(looks=3, keep=keep).rank(data, proxies) for keep in ("easiest", "hardest"))
    features = make(looks=3).features(data, proxies[0])
    np.testing.assert_array_equal(easiest.score, alignment(features, 3))
    np.testing.assert_array_equal(hardest.score, -easiest.score)
    assert len(np.unique(easiest.score)) > 40
    np.testing.assert_array_equal(hardest.order, easiest.order[::-1])


def test_one_look_has_nothing_to_agree_with():
    with pytest.raises(UserError, match=r"subset\.looks is 1, .* at least 2"):
        make(looks=1)
    assert make(looks=8).for_fast_dev_run().looks == 2
