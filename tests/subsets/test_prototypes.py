"""Prototypes: the order is that of distances to centroids."""

import numpy as np
import pytest

from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE
from ssl_lightning.subsets.latent import Labels, cluster, unit_vectors
from ssl_lightning.subsets.prototypes import Prototypes
from tests.data.synthetic import in_memory
from tests.subsets.proxies import Toy, given

FEATURES = np.random.default_rng(0).standard_normal((60, 5)).astype(np.float32)
LABELS = np.arange(60) % 4


@pytest.fixture(autouse=True)
def features(monkeypatch):
    def give(self, dataset, proxy, processes=ALONE):
        dataset.train()
        return FEATURES

    monkeypatch.setattr(Prototypes, "features", give)


PROXIES = [given(Toy(None))]


def make(**options):
    return Prototypes(augment=Augment([View()]), accelerator="cpu", **options)


@pytest.mark.parametrize("clusters", [None, 1, 7])
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize("keep", ["easiest", "hardest"])
def test_order_is_that_of_distances(clusters, balanced, keep):
    ranking = make(clusters=clusters, balanced=balanced, keep=keep, seed=3).rank(in_memory(LABELS), PROXIES)
    assigned, centroids = cluster(FEATURES, clusters or 4, 3)
    distance = np.linalg.norm(unit_vectors(FEATURES) - centroids[assigned], axis=1)
    sign = -1 if keep == "easiest" else 1
    np.testing.assert_array_equal(ranking.score, sign * distance.astype(np.float64))
    np.testing.assert_array_equal(ranking.latent_class, assigned if balanced else np.zeros(60))
    for k in np.unique(ranking.latent_class):
        members = ranking.order[ranking.latent_class[ranking.order] == k]
        assert (np.diff(distance[members]) * sign < 0).all()


@pytest.mark.parametrize("latent", [None, Labels()], ids=["clusters", "labels"])
def test_the_middle_is_nearest_to_the_median_distance_of_its_group(latent):
    ranking = make(keep="middle", clusters=5, latent=latent).rank(in_memory(LABELS), PROXIES)
    groups = LABELS if latent else cluster(FEATURES, 5, 0)[0]
    np.testing.assert_array_equal(ranking.latent_class, groups)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    for k in np.unique(groups):
        members = np.flatnonzero(groups == k)
        distance = np.array([np.linalg.norm(unit[i] - unit[members].mean(0)) for i in members])
        middle = np.sort(distance)[[(len(members) - 1) // 2, len(members) // 2]].mean()
        np.testing.assert_allclose(ranking.score[members], -np.abs(distance - middle), atol=1e-5)
        of_group = ranking.order[groups[ranking.order] == k]
        assert (np.diff(ranking.score[of_group]) <= 0).all()


def test_the_hardest_are_the_easiest_backwards():
    easiest, hardest = (
        make(keep=keep, balanced=False).rank(in_memory(LABELS), PROXIES) for keep in ("easiest", "hardest")
    )
    np.testing.assert_array_equal(hardest.order, easiest.order[::-1])


def test_the_closest_to_its_centroid_is_the_easiest():
    ranking = make(clusters=1).rank(in_memory(LABELS), PROXIES)
    unit = FEATURES / np.linalg.norm(FEATURES, axis=1, keepdims=True)
    centroid = unit.mean(0)
    assert ranking.order[0] == np.linalg.norm(unit - centroid, axis=1).argmin()
    assert ranking.order[-1] == np.linalg.norm(unit - centroid, axis=1).argmax()


def test_what_identifies_a_ranking():
    data = in_memory(LABELS)
    default = make(cache="cache").ranking_file(data, ["a"])
    for options in ({"clusters": 5}, {"keep": "hardest"}, {"balanced": False}, {"looks": 3}, {"seed": 1}):
        assert make(cache="cache", **options).ranking_file(data, ["a"]) != default
    assert make(cache="cache").ranking_file(data, ["b"]) != default
    assert make(cache="cache").ranking_file(data, ["a"]) == default


def test_more_clusters_than_images():
    with pytest.raises(UserError, match=r"61 clusters are asked for, but .* only 60 images.*subset\.clusters"):
        make(clusters=61).rank(in_memory(LABELS), PROXIES)
