"""Mean embeddings: their definition, what they estimate without bias, and what must not change them."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ssl_lightning.data.draw import Draw
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import mlp
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.subsets.embedding import GROUP, MeanEmbedding, embed
from ssl_lightning.subsets.latent import KMeans, Labels
from ssl_lightning.subsets.prototypes import Prototypes
from ssl_lightning.subsets.sas import SAS
from tests.callbacks import fitting
from tests.data.synthetic import synthetic_images
from tests.subsets.proxies import Toy, given

CPU = torch.device("cpu")
CROPS = Augment([View(copies=2, crop_scale=(0.3, 1.0), flip_probability=0.5)])
UNLIKE = Augment(
    [View(crop_scale=(0.3, 0.6)), View(flip_probability=0.5), View(brightness=0.8, jitter_probability=0.7)]
)


def network():
    """A trained-looking encoder: statistics of BatchNorm that are not those of its start."""
    torch.manual_seed(0)
    method = SimCLR(resnet_tiny(channels=1, width=4, zero_init_residual=False), mlp)
    method.train()
    for _ in range(3):
        method.encode((torch.randn(2, 32, 1, 8, 8) * 2 + 1,), Draw())
    return method


def images_of(n, seed=0):
    return torch.from_numpy(synthetic_images(n, 5, 1, 8, seed)[0])


def embedding_of(proxy, augment=CROPS, looks=3, layer="representation", seed=7):
    return MeanEmbedding(proxy, augment, looks, layer, seed, CPU)


# The definition


@pytest.mark.parametrize("layer", ["representation", "embedding"])
@pytest.mark.parametrize(
    ("augment", "views"),
    [(CROPS, 1), (CROPS, 2), (CROPS, 5), (UNLIKE, 3), (UNLIKE, 7)],
    ids=["1 of 2", "2 of 2", "5 of 2", "3 of 3", "7 of 3"],
)
def test_the_mean_of_unit_vectors_of_independent_views(augment, views, layer):
    proxy, images = given(network(), mean=(0.3,), std=(0.7,)), images_of(GROUP + 9)
    method, mean, std = proxy.method, torch.tensor([0.3]), torch.tensor([0.7])
    total, made = 0, 0
    for draw in itertools.count():
        if made == views:
            break
        parts = []
        for group, start in enumerate(range(0, len(images), GROUP)):
            generator = torch.Generator().manual_seed(seed_of("views", 7, draw, group))
            (of_one_size,) = augment(images[start : start + GROUP], mean, std, generator)
            parts.append(of_one_size)
        for view in torch.cat(parts, 1)[: views - made]:
            with torch.no_grad():
                z = method(view) if layer == "representation" else method.project(method(view))
            total = total + z.double() / z.double().square().sum(1, keepdim=True).sqrt()
            made += 1
    found = embedding_of(proxy, augment, views, layer)(images, 0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), total / views, rtol=0, atol=2e-6)
    lengths = found.norm(dim=1)
    if views == 1:
        torch.testing.assert_close(lengths, torch.ones(len(images)))
    else:
        assert (lengths < 1 - 1e-4).float().mean() > 0.5  # the mean of unit vectors that differ, not normalised again


def test_every_image_has_views_of_its_own():
    """Copies of one image, in one group and in others, are seen differently; so are the draws of one image."""
    copies = images_of(1).expand(3 * GROUP, -1, -1, -1)
    proxy, augment = given(Toy(nn.Flatten())), Augment([View(jitter_probability=1.0, brightness=0.5, contrast=0.5)])
    found = embedding_of(proxy, augment, 1)(copies, 0)
    assert len(found.unique(dim=0)) == len(copies)
    twice = embedding_of(proxy, augment, 2)(copies, 0)
    assert (twice.norm(dim=1) < 1 - 1e-6).all()


def test_the_zero_vector_has_no_direction():
    found = embedding_of(given(Toy(lambda images: images.flatten(1) * 0)))(images_of(3), 0)
    assert (found == 0).all()


# What it estimates


MIRROR = Augment([View(flip_probability=0.5)])
PAIR = torch.tensor([[[[255, 81], [178, 32]]], [[[248, 55], [216, 6]]]], dtype=torch.uint8)


def signed(images):
    """Vectors of both signs that a mirror changes."""
    return (images.flatten(1) - 0.5) * torch.tensor([1.0, -1.0, 1.0, 1.0])


def directions(image):
    """The two unit vectors that an image has under `MIRROR`, equally often."""
    return nn.functional.normalize(signed(torch.stack([image, image.flip(-1)]).double() / 255))


def variance(products, views):
    """Of ⟨z̄_i, z̄_j⟩, where each image is mirrored in Binomial(A, ½) of A views."""
    chances = np.array([math.comb(views, k) for k in range(views + 1)]) / 2**views
    shares = np.array([[1 - k / views, k / views] for k in range(views + 1)])
    values = shares @ products.numpy() @ shares.T
    weights = np.outer(chances, chances)
    return (weights * values**2).sum() - (weights * values).sum() ** 2


@pytest.mark.one_in(3)
@pytest.mark.parametrize("views", [1, 2, 5])
def test_products_of_different_images_are_unbiased(views):
    """The expectation is that of products of unit vectors: the mean over mirrored and not of both. It is not that of
    products that were clipped before the mean, nor is it found where an image is multiplied with itself."""
    products = directions(PAIR[0]) @ directions(PAIR[1]).T
    expected, clipped = products.mean().item(), products.clamp(min=0).mean().item()
    assert products.min() < 0 < expected

    pairs = 4096
    proxy = given(Toy(signed), mean=(0.0,), std=(1.0,))
    found = embedding_of(proxy, MIRROR, views)(PAIR.repeat(pairs, 1, 1, 1), 0).double()
    estimates = (found[0::2] * found[1::2]).sum(1)
    error = 5 * (variance(products, views) / pairs) ** 0.5
    assert abs(estimates.mean().item() - expected) < error
    assert clipped - expected > 2 * error
    assert estimates.var().item() == pytest.approx(variance(products, views), rel=0.15)

    unlike_itself = (directions(PAIR[0]) @ directions(PAIR[0]).T).mean().item()
    squares = found[0::2].square().sum(1).mean().item()
    assert squares == pytest.approx(1 / views + (1 - 1 / views) * unlike_itself, abs=0.05)
    assert squares > unlike_itself + 0.05


# What must not change it


def reweighted(images):
    """Treats pixel by pixel, so that it cannot depend on what else is in a batch."""
    return images.flatten(1) * torch.linspace(-1, 1.5, 64)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("num_images", [1, GROUP - 1, GROUP, 5 * GROUP + 17])
def test_neither_batches_nor_processes_change_a_bit(num_images, tmp_path):
    images = images_of(num_images)
    embedding = embedding_of(given(Toy(reweighted)), UNLIKE, 4)
    whole = embed(embedding, images, batch_size=2**20)
    np.testing.assert_array_equal(whole, embedding(images, 0).numpy())
    for batch_size in (GROUP, 2 * GROUP, 3 * GROUP):
        np.testing.assert_array_equal(embed(embedding, images, batch_size=batch_size), whole)
    for size in (1, 2, 3, 7):
        path = tmp_path / f"{size}.npy"
        for rank in range(size):  # rank 0 makes the file
            made = embed(embedding, images, path, ProcessGroup(rank, size, broadcast=answer), batch_size=GROUP)
        np.testing.assert_array_equal(made, whole)
        np.testing.assert_array_equal(np.load(path), whole)


def answer(told):
    """What the first process has told, where it has been at it before."""
    return ("done", None)


def test_no_process_embeds_what_another_does(tmp_path):
    """Of 3, one has nothing to do with 2 groups."""
    images = images_of(2 * GROUP)
    embedding = embedding_of(given(Toy(reweighted)))
    done = []
    for rank in range(3):
        before = np.load(tmp_path / "a.npy") if rank else 0
        after = np.array(embed(embedding, images, tmp_path / "a.npy", ProcessGroup(rank, 3, broadcast=answer)))
        done.append(np.flatnonzero((after != before).any(1)))
    assert sorted(len(rows) for rows in done) == [0, GROUP, GROUP]
    np.testing.assert_array_equal(np.sort(np.concatenate(done)), np.arange(2 * GROUP))


def test_a_network_gives_the_same_up_to_rounding():
    embedding, images = embedding_of(given(network()), CROPS, 4, "embedding"), images_of(2 * GROUP + 5)
    whole = embed(embedding, images)
    np.testing.assert_allclose(embed(embedding, images, batch_size=GROUP), whole, rtol=0, atol=1e-5)
    other = embed(embedding_of(given(network()), CROPS, 4, "embedding", seed=8), images)
    assert np.abs(other - whole).max() > 0.01


def test_neither_the_proxy_nor_any_generator_notices():
    proxy = given(network())
    method = proxy.method
    before = {name: value.clone() for name, value in method.state_dict().items()}
    states = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for layer in ("representation", "embedding"):
        embed(embedding_of(proxy, CROPS, 3, layer), images_of(GROUP + 1))
    after = method.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not any(p.requires_grad or p.grad is not None for p in method.parameters())
    assert not any(module.training for module in method.modules())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    torch.manual_seed(1)
    again = embed(embedding_of(proxy), images_of(4))
    torch.manual_seed(2)
    np.testing.assert_array_equal(embed(embedding_of(proxy), images_of(4)), again)


def test_images_are_normalised_as_the_proxy_saw_them():
    data = fitting.dataset()
    images = data.train().images
    plain = Augment([View()])
    for mean, std in ((0.2, 0.5), (0.7, 0.1)):
        assert (mean, std) != (data.mean[0], data.std[0])
        proxy, rule = given(Toy(nn.Flatten()), mean=(mean,), std=(std,)), sas(augment=plain)
        expected = nn.functional.normalize((images.double().flatten(1) / 255 - mean) / std)
        np.testing.assert_allclose(rule.features(data, proxy), expected, rtol=0, atol=1e-6)


def test_a_proxy_of_images_of_another_kind_is_refused():
    rule = sas()
    with pytest.raises(UserError, match=r"trained on images of 3 channels, but those of tiny have 1\. Choose a run"):
        rule.features(fitting.dataset(), given(Toy(nn.Flatten()), channels=3))


# Kept on disk


PROXY = given(Toy(reweighted))


def sas(**options):
    return SAS(**({"augment": CROPS, "looks": 2, "latent": Labels(), "accelerator": "cpu"} | options))


@pytest.fixture
def kept(tmp_path):
    """A rule whose features are on disk."""
    rule = sas(cache=str(tmp_path / "cache"))
    rule.features(fitting.dataset(), PROXY)
    return rule


def files(rule):
    return sorted(file.name for file in Path(rule.cache, "features").iterdir() if not file.name.endswith(".lock"))


def test_features_are_computed_once(kept, monkeypatch):
    (name,) = files(kept)
    expected = sas().features(fitting.dataset(), PROXY)
    assert isinstance(expected, np.ndarray)
    monkeypatch.setattr("ssl_lightning.subsets.embedding.embed", None)
    found = kept.features(fitting.dataset(), PROXY)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    assert files(kept) == [name]
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "row_sum"},
        {"threshold": 0.3},
        {"latent": KMeans(clusters=2)},
        {"tie_break": "largest"},
        {"max_fraction": 0.5},
        {"memory_gib": 1.0},
    ],
    ids=str,
)
def test_one_file_serves_all_rules(kept, monkeypatch, changes):
    monkeypatch.setattr("ssl_lightning.subsets.embedding.embed", None)
    replace(kept, **changes).features(fitting.dataset(), PROXY)


def test_another_class_of_rule_shares_them(kept, monkeypatch):
    monkeypatch.setattr("ssl_lightning.subsets.embedding.embed", None)
    rule = Prototypes(augment=CROPS, looks=2, accelerator="cpu", cache=kept.cache)
    np.testing.assert_array_equal(rule.features(fitting.dataset(), PROXY), kept.features(fitting.dataset(), PROXY))


@pytest.mark.parametrize(
    "changes",
    [
        {"looks": 3},
        {"layer": "embedding"},
        {"seed": 1},
        {"augment": Augment([View(copies=2, crop_scale=(0.3, 1.0), flip_probability=0.4)])},
        {"augment": Augment([View(copies=1, crop_scale=(0.3, 1.0), flip_probability=0.5)])},
        {"proxy": given(Toy(reweighted), "other")},
    ],
    ids=["looks", "layer", "seed", "a probability", "copies", "proxy"],
)
def test_what_changes_features_changes_their_file(kept, changes):
    (first,) = files(kept)
    changes = dict(changes)
    proxy = changes.pop("proxy", PROXY)
    replace(kept, **changes).features(fitting.dataset(), proxy)
    assert len(files(kept)) == 2
    assert first in files(kept)


@pytest.mark.parametrize("change", ["an image", "a label", "the name"])
def test_other_data_have_other_features(kept, change):
    data = fitting.dataset()
    if change == "an image":
        data.images = data.images.copy()
        data.images[5, 0, 3, 3] ^= 1
    elif change == "a label":
        data.labels = data.labels.copy()
        data.labels[5] = (data.labels[5] + 1) % 3
    else:
        data.name = "other"
    kept.features(data, PROXY)
    assert len(files(kept)) == 2


def test_an_interrupted_embedding_leaves_nothing(kept, monkeypatch):
    """The next one removes what a killed process could not."""
    (name,) = files(kept)
    folder = Path(kept.cache, "features")
    expected = np.load(folder / name)
    (folder / name).rename(folder / f".{name}.2.part")
    np.testing.assert_array_equal(kept.features(fitting.dataset(), PROXY), expected)
    assert files(kept) == [name]


def test_a_fast_dev_run_is_quick_and_keeps_nothing(kept):
    rule = kept.for_fast_dev_run()
    assert (rule.looks, rule.cache) == (1, None)
    before = files(kept)
    assert rule.features(fitting.dataset(), PROXY).shape == (48, 64)
    assert files(kept) == before
