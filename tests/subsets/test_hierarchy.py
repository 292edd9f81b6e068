"""Groups that form a tree: every level is k-means of what is below, resampled as by definition."""

import numpy as np
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.subsets.hierarchy import HierarchicalKMeans, nearest
from ssl_lightning.subsets.latent import KMeans, cluster, unit_vectors
from tests.data.synthetic import in_memory

N = 150
DATA = in_memory(np.arange(N) % 5)


def blobs(spread=0.3, sizes=(100, 20, 20, 5, 5), seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((len(sizes), 8))
    return (np.repeat(centres, sizes, 0) + spread * rng.standard_normal((sum(sizes), 8))).astype(np.float32)


def naive(vectors, clusters, resamplings, seed):
    """The labels of each level, a loop over images at a time."""
    levels, points = [], unit_vectors(vectors)
    for k in clusters:
        points = unit_vectors(points)
        labels, centroids = cluster(points, k, seed)
        for _ in range(resamplings):
            chosen = []
            for j in range(k):
                members = [i for i in range(len(points)) if labels[i] == j]
                members.sort(key=lambda i: (np.linalg.norm(points[i] - centroids[labels[i]]), i))
                chosen += members[: max(1, len(points) // (2 * k))]
            if len(chosen) < k:
                break
            _, centroids = cluster(points[sorted(chosen)], k, seed)
            labels = np.array([np.linalg.norm(point - centroids, axis=1).argmin() for point in points])
        levels.append(labels if not levels else labels[levels[-1]])
        points = centroids
    return np.stack(levels, 1)


@pytest.mark.parametrize("clusters", [[12], [12, 4], [30, 9, 2]], ids=str)
@pytest.mark.parametrize("resamplings", [0, 1, 4])
@pytest.mark.parametrize("spread", [0.3, 2.0])
def test_levels_are_those_of_the_definition(clusters, resamplings, spread):
    vectors = blobs(spread)
    made = HierarchicalKMeans(clusters=clusters, resamplings=resamplings)
    levels, centroids = made.group(DATA, vectors, 3)
    np.testing.assert_array_equal(levels, naive(vectors, clusters, resamplings, 3))
    np.testing.assert_array_equal(made.assign(DATA, vectors, 3), levels[:, 0])
    assert levels.shape == (N, made.depth)
    assert centroids.shape == (clusters[0], 8)


def test_it_is_a_tree():
    levels = HierarchicalKMeans(clusters=[30, 9, 2]).group(DATA, blobs(2.0), 0).levels
    for level in range(2):
        for k in np.unique(levels[:, level]):
            assert len(np.unique(levels[levels[:, level] == k, level + 1])) == 1
    assert (levels.max(0) < [30, 9, 2]).all()


def test_without_resampling_the_finest_level_is_k_means():
    vectors = blobs(2.0)
    np.testing.assert_array_equal(
        HierarchicalKMeans(clusters=[7, 2], resamplings=0).assign(DATA, vectors, 1),
        KMeans(clusters=7).assign(DATA, vectors, 1),
    )


def test_resampling_gives_dense_regions_fewer_clusters():
    """Of one dense blob beside a wide one, k-means alone spends more clusters on where the images are."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, 3)).astype(np.float32) * np.where(np.arange(N) < 110, 0.25, 1.0)[:, None]
    vectors += np.array([1, 0, 0], np.float32)
    of_dense = [
        len(np.unique(HierarchicalKMeans(clusters=[20], resamplings=number).assign(DATA, vectors, 0)[:110]))
        for number in (0, 10)
    ]
    assert of_dense[1] < of_dense[0]


def test_the_nearest_of_each_cluster():
    vectors = np.array([[0.0], [3], [1], [2], [10], [11]], np.float32)
    assigned, centroids = np.array([0, 0, 0, 0, 1, 1]), np.array([[0.0], [11]], np.float32)
    assert nearest(vectors, assigned, centroids, 2).tolist() == [0, 2, 4, 5]
    assert nearest(vectors, assigned, centroids, 1).tolist() == [0, 5]


@pytest.mark.parametrize("clusters", [[], [3, 3], [3, 4]])
def test_levels_grow_coarser(clusters):
    with pytest.raises(UserError, match=r"subset\.latent\.clusters is .* each smaller than the one before"):
        HierarchicalKMeans(clusters=clusters)


def test_more_clusters_than_images():
    with pytest.raises(UserError, match=r"151 clusters are asked for, but there are only 150 images"):
        HierarchicalKMeans(clusters=[151, 3]).check_dataset(DATA)
