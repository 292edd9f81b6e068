"""Metrics against plain transcriptions of their definitions, and as torchmetrics: batches and processes add up."""

import doctest
import importlib
import math
import pkgutil
from itertools import permutations

import pytest
import torch
from torch.nn.functional import normalize

import ssl_lightning
from ssl_lightning import metrics
from ssl_lightning.metrics import (
    Alignment,
    AlphaReQ,
    EffectiveRank,
    LiDAR,
    NESum,
    ParticipationRatio,
    RankMe,
    Spectrum,
    StableRank,
    Uniformity,
)
from ssl_lightning.metrics.accuracy import accuracy
from ssl_lightning.metrics.ranks import alpha_req, effective_rank, nesum, participation_ratio, rankme, stable_rank

D = 6
SPECTRAL = (RankMe, EffectiveRank, ParticipationRatio, StableRank, NESum)
OF_FEATURES = {kind.__name__: (lambda kind=kind: kind(D)) for kind in SPECTRAL} | {
    "Spectrum": lambda: Spectrum(D, centred=True),
    "AlphaReQ": lambda: AlphaReQ(D, first=1, last=D),
}
OF_VIEWS = {"Alignment": Alignment, "Uniformity": Uniformity, "LiDAR": lambda: LiDAR(D)}
EVERY = OF_FEATURES | OF_VIEWS


def views(v: int = 3, n: int = 40, d: int = D, noise: float = 0.3, seed: int = 0) -> torch.Tensor:
    """Views that scatter around their images, in dimensions of unequal length, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, d, generator=generator) * torch.logspace(0, -1, d) + 0.5
    return images + noise * torch.randn(v, n, d, generator=generator)


def updated(name: str, *batches: torch.Tensor):
    metric = EVERY[name]()
    for batch in batches:
        metric.update(batch.flatten(0, 1) if name in OF_FEATURES else batch)
    return metric


# Definitions


def covariance_spectrum(z: torch.Tensor) -> torch.Tensor:
    return torch.linalg.eigvalsh(z.double().T.cov(correction=0)).flip(0)


def expected_of_features(name: str, z: torch.Tensor) -> float:
    z = z.double()
    sigma, centred = torch.linalg.svdvals(z), torch.linalg.svdvals(z - z.mean(0))
    lam = covariance_spectrum(z)
    p, q = sigma / sigma.sum() + 1e-7, centred / centred.sum()
    j = torch.arange(1, D + 1, dtype=torch.float64)
    design = torch.stack((torch.ones(D, dtype=torch.float64), j.log()), 1)
    return {
        "RankMe": lambda: math.exp(-sum(x * math.log(x) for x in p.tolist())),
        "EffectiveRank": lambda: math.exp(-sum(x * math.log(x) for x in q.tolist())),
        "ParticipationRatio": lambda: lam.sum().item() ** 2 / sum(x * x for x in lam.tolist()),
        "StableRank": lambda: (z.norm() ** 2 / torch.linalg.matrix_norm(z, 2) ** 2).item(),
        "NESum": lambda: (lam / lam[0]).sum().item(),
        "AlphaReQ": lambda: -torch.linalg.lstsq(design, lam.log()[:, None]).solution[1].item(),
    }[name]()


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if name != "Spectrum"])
def test_a_number_of_features_is_its_definition(name):
    z = views()
    assert updated(name, z).compute().item() == pytest.approx(expected_of_features(name, z.flatten(0, 1)), rel=1e-9)


def test_alignment_and_uniformity_are_double_loops():
    z = views(v=3, n=7)
    unit = normalize(z.double(), dim=-1)
    pairs = [(unit[a, i] - unit[b, i]).norm() for i in range(7) for a, b in permutations(range(3), 2)]
    for power in (1.0, 2.0, 3.0):
        metric = Alignment(power)
        metric.update(z)
        assert metric.compute().item() == pytest.approx(sum(p.item() ** power for p in pairs) / len(pairs), rel=1e-9)
    kernel = [
        math.exp(-2.0 * (unit[v, i] - unit[v, j]).norm().item() ** 2)
        for v in range(3)
        for i, j in permutations(range(7), 2)
    ]
    metric = Uniformity()
    metric.update(z)
    assert metric.compute().item() == pytest.approx(math.log(sum(kernel) / len(kernel)), rel=1e-9)


def test_lidar_is_its_definition():
    z = views(v=4, n=30).double()
    means = z.mean(0)
    between = sum(torch.outer(m - means.mean(0), m - means.mean(0)) for m in means) / len(means)
    within = sum(torch.outer(x - means[i], x - means[i]) for view in z for i, x in enumerate(view)) / (4 * 30)
    values, axes = torch.linalg.eigh(within + 1e-4 * torch.eye(D, dtype=torch.float64))
    root = axes @ torch.diag(values**-0.5) @ axes.T
    lam = torch.linalg.eigvalsh(root @ between @ root)
    p = lam / lam.sum() + 1e-7
    assert updated("LiDAR", z).compute().item() == pytest.approx(torch.exp(-(p * p.log()).sum()).item(), rel=1e-9)


def test_lidar_counts_the_dimensions_in_which_images_differ():
    generator = torch.Generator().manual_seed(0)
    images, noise = torch.randn(500, D, generator=generator), torch.randn(4, 500, D, generator=generator)
    assert updated("LiDAR", images + 0.1 * noise).compute() > D - 0.2
    # Images differ in one dimension, and are collapsed in the others, in which only views differ.
    one = images.clone()
    one[:, 1:] = 0
    assert updated("LiDAR", one + 0.1 * noise).compute() < 1.3
    # In the last three dimensions, views of an image differ more than images do.
    loud = torch.tensor([0.1, 0.1, 0.1, 10.0, 10.0, 10.0])
    assert 3 <= updated("LiDAR", images + loud * noise).compute() < 3.4


def test_known_spectra():
    flat = torch.ones(D)
    assert rankme(flat) == pytest.approx(D, rel=1e-5)
    assert [effective_rank(flat), participation_ratio(flat), stable_rank(flat), nesum(flat)] == pytest.approx([D] * 4)
    line = torch.tensor([3.0, 0.0, 0.0])
    assert [f(line) for f in (effective_rank, participation_ratio, stable_rank, nesum)] == [1.0] * 4
    nothing = torch.zeros(3)
    assert [f(nothing) for f in (rankme, effective_rank, participation_ratio, stable_rank, nesum)] == [0.0] * 5
    power_law = torch.arange(1.0, 201.0, dtype=torch.float64) ** -0.7
    assert alpha_req(power_law) == pytest.approx(0.7, rel=1e-9)
    assert alpha_req(power_law[:40]) == pytest.approx(0.7, rel=1e-9)
    assert math.isnan(alpha_req(power_law[:11]))
    assert math.isnan(alpha_req(nothing))


@pytest.mark.parametrize("name", [name for name in OF_FEATURES if name != "Spectrum"])
def test_scale_does_not_matter(name):
    z = views()
    assert updated(name, 1000 * z).compute().item() == pytest.approx(updated(name, z).compute().item(), rel=1e-6)


# As torchmetrics


@pytest.mark.parametrize("name", EVERY)
def test_batches_add_up(name):
    z = views(n=40)
    parts = z.split(20, dim=1)
    one, several = updated(name, z), updated(name, *parts)
    if name == "Uniformity":  # of pairs within a batch
        of_parts = torch.stack([updated(name, part).compute().exp() for part in parts])
        torch.testing.assert_close(several.compute(), of_parts.mean().log())
    else:
        torch.testing.assert_close(several.compute(), one.compute(), rtol=1e-9, atol=1e-9)
    assert one.compute().dtype == torch.float64
    one.reset()
    one.update(parts[0].flatten(0, 1) if name in OF_FEATURES else parts[0])
    torch.testing.assert_close(one.compute(), updated(name, parts[0]).compute())


def of_rank(rank: int) -> dict[str, torch.Tensor]:
    z = views(n=40)
    part = z.split([25, 15], dim=1)[rank]
    return {name: updated(name, part).compute() for name in EVERY}


def test_processes_add_up(pair):
    z = views(n=40)
    parts = z.split([25, 15], dim=1)
    for of_one in pair(of_rank):
        for name, value in of_one.items():
            torch.testing.assert_close(value, updated(name, *parts).compute(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", EVERY)
def test_half_precision_and_gradients_are_accepted(name):
    z = views().bfloat16().requires_grad_()
    metric = updated(name, z)
    assert not metric.compute().requires_grad
    torch.testing.assert_close(metric.compute(), updated(name, z.detach().double()).compute(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("classes", [2, 11])
@pytest.mark.parametrize("k", [1, 2, 5])
def test_accuracy_counts(classes, k):
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(301, classes, generator=generator)
    labels = torch.randint(classes, (301,), generator=generator)
    right = sum(int(label in row.argsort(descending=True)[:k]) for row, label in zip(scores, labels, strict=True))
    assert accuracy(scores, labels, min(k, classes)) == right / 301


def test_all_of_the_public_names_are_there():
    assert set(metrics.__all__) == set(EVERY)


MODULES = [
    module.name
    for module in pkgutil.walk_packages(ssl_lightning.__path__, "ssl_lightning.")
    if ">>> " in (importlib.util.find_spec(module.name).loader.get_source(module.name) or "")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_docstrings(name):
    """Of the whole package."""
    done = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert done.attempted > 0
    assert done.failed == 0
