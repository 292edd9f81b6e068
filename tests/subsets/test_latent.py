"""Latent classes: what each kind recovers, what it may not look at, and the files that it reads."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from ssl_lightning.config.identity import described
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.linear import draw_labels
from ssl_lightning.subsets import latent
from ssl_lightning.subsets.latent import FewLabels, KMeans, Labels, cluster, purity
from tests.data.synthetic import in_memory

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [5, 20, 35, 60]))


HADAMARD = np.array([[(-1) ** (i & j).bit_count() for j in range(8)] for i in range(8)]) / 8**0.5


def blobs(labels=LABELS, spread=0.03, seed=0):
    """Directions around orthogonal ones, each of which all coordinates tell apart."""
    generator = np.random.default_rng([seed, 1])
    return (HADAMARD[labels + 3] + spread * generator.standard_normal((len(labels), 8))).astype(np.float32)


@pytest.fixture
def dataset():
    data = in_memory(LABELS)
    data.train()  # as whoever has made features did: now the number of classes is known
    return data


def same_partition(a, b):
    """Equal up to the numbers of the groups."""
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_labels_are_the_dataset_s(dataset):
    np.testing.assert_array_equal(Labels().assign(dataset, blobs(), 0), LABELS)


# k-means


@pytest.mark.parametrize("seed", range(5))
def test_kmeans_recovers_separated_blobs(dataset, seed):
    assert same_partition(KMeans(clusters=4).assign(dataset, blobs(), seed), LABELS)


def test_kmeans_makes_as_many_clusters_as_there_are_classes(dataset):
    assert len(np.unique(KMeans().assign(dataset, blobs(), 0))) == 4
    for clusters in (1, 2, 7, len(LABELS)):
        assert len(np.unique(KMeans(clusters=clusters).assign(dataset, blobs(), 0))) == clusters


def test_kmeans_follows_its_seed(dataset):
    scattered = blobs(spread=0.5)
    made = [KMeans(clusters=9).assign(dataset, scattered, seed) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(made[0], made[2])
    assert not same_partition(made[0], made[1])
    np.random.seed(5)  # noqa: NPY002
    np.testing.assert_array_equal(KMeans(clusters=9).assign(dataset, scattered, 0), made[0])


def test_kmeans_sees_directions_alone(dataset):
    scattered = blobs(spread=0.5)
    lengths = 2.0 ** np.random.default_rng(2).integers(-20, 20, (len(LABELS), 1))
    np.testing.assert_array_equal(
        KMeans(clusters=9).assign(dataset, (scattered * lengths).astype(np.float32), 3),
        KMeans(clusters=9).assign(dataset, scattered, 3),
    )


def test_clusters_have_nearest_centroids_which_are_means():
    vectors = blobs(spread=0.6)
    vectors[7] = 0
    before = vectors.copy()
    assigned, found = cluster(vectors, 6, 0)
    np.testing.assert_array_equal(vectors, before)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    centroids = np.stack([unit[assigned == k].mean(0) for k in range(6)])
    distances = np.linalg.norm(unit[:, None] - centroids, axis=2)
    np.testing.assert_array_equal(distances.argmin(1), assigned)
    np.testing.assert_allclose(found, centroids, rtol=0, atol=1e-5)


def test_more_clusters_than_images(dataset):
    with pytest.raises(UserError, match=r"121 clusters are asked for, but .* only 120 images.*latent\.clusters"):
        KMeans(clusters=121).assign(dataset, blobs(), 0)


# Few labels


def known(percent, seed, labels=LABELS):
    return draw_labels(torch.from_numpy(labels), percent, torch.Generator().manual_seed(seed)).numpy()


@pytest.mark.parametrize(("percent", "right"), [(1.0, 0.9), (10.0, 1.0), (100.0, 1.0)])
def test_few_labels_are_enough_for_classes_that_can_be_separated(dataset, percent, right):
    assigned = FewLabels(percent=percent).assign(dataset, blobs(), 0)
    assert assigned.dtype == np.int64
    assert (assigned == LABELS).mean() >= right


@pytest.mark.parametrize("percent", [0.01, 10.0, 50.0])
def test_known_labels_are_kept(dataset, percent):
    """Vectors say nothing, so guesses are wrong; what was shown is right: a share of each class, at least one."""
    nothing = np.random.default_rng(3).standard_normal((len(LABELS), 3)).astype(np.float32)
    shown = known(percent, 1)
    np.testing.assert_array_equal(
        np.bincount(LABELS[shown]), np.maximum(1, np.round(np.array([5, 20, 35, 60]) * percent / 100))
    )
    assigned = FewLabels(percent=percent).assign(dataset, nothing, 1)
    np.testing.assert_array_equal(assigned[shown], LABELS[shown])
    others = np.setdiff1d(np.arange(len(LABELS)), shown)
    assert (assigned[others] == LABELS[others]).mean() < 0.8


def test_no_label_is_read_that_was_not_drawn(monkeypatch):
    shown, seen = known(10.0, 0), []

    def draw(labels, percent, generator):
        seen.append(percent)
        return torch.from_numpy(shown)

    monkeypatch.setattr(latent, "draw_labels", draw)
    others = np.setdiff1d(np.arange(len(LABELS)), shown)
    results = []
    for seed in range(3):
        labels = LABELS.copy()
        labels[others] = np.random.default_rng(seed).permutation(labels[others])
        results.append(FewLabels(percent=10.0).assign(in_memory(labels), blobs(spread=1.0), 0))
    assert (results[0][others] != LABELS[others]).any()
    np.testing.assert_array_equal(results[1], results[0])
    np.testing.assert_array_equal(results[2], results[0])
    assert seen == [10.0] * 3


def test_few_labels_follow_their_seed(dataset):
    vectors = blobs(spread=1.5)
    made = [FewLabels(percent=5.0).assign(dataset, vectors, seed) for seed in (0, 1, 0)]
    np.testing.assert_array_equal(made[0], made[2])
    assert (made[0] != made[1]).any()


# Vectors from a file

OF_FILES = [KMeans(clusters=4), FewLabels(percent=10.0)]


@pytest.mark.parametrize("kind", OF_FILES, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_vectors_of_a_file_take_the_place_of_features(dataset, tmp_path, kind, dtype):
    file = tmp_path / "vectors.npy"
    np.save(file, blobs().astype(dtype))
    from_file = replace(kind, file=str(file))
    nothing = np.zeros((len(LABELS), 3), np.float32)
    found = from_file.assign(dataset, nothing, 0)
    np.testing.assert_array_equal(found, kind.assign(dataset, blobs().astype(dtype), 0))
    assert same_partition(found, LABELS)


@pytest.mark.parametrize("kind", OF_FILES, ids=lambda kind: type(kind).__name__)
def test_the_content_of_a_file_counts_and_not_its_name(tmp_path, kind):
    np.save(tmp_path / "a.npy", blobs())
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    changed = blobs()
    changed[3, 2] += 1
    np.save(tmp_path / "c.npy", changed)
    a, b, c = (replace(kind, file=str(tmp_path / f"{name}.npy")) for name in "abc")
    assert kind.content_digest() == ""
    assert a.content_digest() == b.content_digest() != c.content_digest()
    assert len(a.content_digest()) == 16
    assert described(a) == described(b) == described(c) == described(kind)


def test_parameters_tell_kinds_apart():
    assert described(Labels()) == {"name": "Labels"}
    assert described(KMeans(clusters=3)) == {"name": "KMeans", "clusters": 3}
    assert described(FewLabels(percent=2.0)) == {"name": "FewLabels", "percent": 2.0}


def write_npy(values):
    return lambda file: np.save(file, values, allow_pickle=True)


def write_npz(file):
    with open(file, "wb") as opened:
        np.savez(opened, vectors=blobs())


def infinite(value):
    vectors = blobs()
    vectors[2, 3] = value
    return vectors


BAD = {
    "too few rows": write_npy(blobs()[:-1]),
    "too many rows": write_npy(np.concatenate([blobs(), blobs()])),
    "integers": write_npy(blobs().astype(np.int64)),
    "complex numbers": write_npy(blobs().astype(complex)),
    "one dimension": write_npy(blobs()[:, 0]),
    "three dimensions": write_npy(blobs()[:, :, None]),
    "a pickle": write_npy(np.full((len(LABELS), 2), {}, object)),
    "an archive": write_npz,
    "NaN": write_npy(infinite(np.nan)),
    "infinity": write_npy(infinite(np.inf)),
    "text": lambda file: file.write_text("0.1 0.2\n"),
    "nothing": lambda file: file.write_bytes(b""),
    "half of it": lambda file: file.write_bytes(b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', "),
}


@pytest.mark.parametrize("kind", OF_FILES, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("write", BAD.values(), ids=BAD.keys())
def test_a_wrong_file_is_one_message(dataset, tmp_path, kind, write):
    file = tmp_path / "vectors.npy"
    write(file)
    with pytest.raises(UserError) as caught:
        replace(kind, file=str(file)).assign(dataset, np.zeros((len(LABELS), 3), np.float32), 0)
    assert str(caught.value).startswith(f"latent.file={file} is no .npy file of floats [120, d]")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", OF_FILES, ids=lambda kind: type(kind).__name__)
def test_a_file_that_is_not_there_is_named_before_anything_is_computed(tmp_path, kind):
    for file in (tmp_path / "absent.npy", tmp_path):
        with pytest.raises(UserError, match=r"latent\.file: there is no .*Give a \.npy file"):
            replace(kind, file=str(file)).content_digest()


# Purity


def test_purity_is_a_count():
    generator = np.random.default_rng(4)
    for groups in (1, 3, 40):
        latent_class = generator.integers(0, groups, len(LABELS)) * 5 - 7  # any numbers
        right = 0
        for group in set(latent_class.tolist()):
            members = LABELS[latent_class == group].tolist()
            right += max(members.count(label) for label in members)
        assert purity(latent_class, LABELS) == right / len(LABELS)
    assert purity(LABELS * 3, LABELS) == purity(np.arange(len(LABELS)), LABELS) == 1
    assert purity(np.zeros(len(LABELS), np.int64), LABELS) == 60 / 120
