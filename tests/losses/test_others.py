"""Losses without negatives, and with a queue: against plain transcriptions, their exact zeros, and over processes."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from ssl_lightning.losses.clustering import cross_entropy_of_pairs, sinkhorn
from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.prediction import cosine_to_targets
from ssl_lightning.losses.queue import info_nce_of_queue
from ssl_lightning.losses.redundancy import EPS, barlow_twins, vicreg
from ssl_lightning.losses.sigreg import KNOTS, LAST, agreement, sigreg

views = pytest.mark.parametrize("v", [2, 3, 4])


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def directions(e: int, m: int) -> torch.Tensor:
    return normalize(random(e, m, seed=9), dim=0)


QUEUE = random(11, 5, seed=8)
LOSSES = {
    "prediction": lambda z, gather=LOCAL: cosine_to_targets(z, random(2, *z.shape[1:], seed=3)[:, : z.shape[1]]).mean(),
    "barlow": lambda z, gather=LOCAL: barlow_twins(z, 0.0051, gather),
    "vicreg": lambda z, gather=LOCAL: sum(vicreg(z, 25.0, 25.0, 1.0, gather)),
    "sigreg": lambda z, gather=LOCAL: sigreg(z, directions(z.shape[-1], 20), gather),
    "agreement": lambda z, gather=LOCAL: agreement(z, 2),
    "queue": lambda z, gather=LOCAL: info_nce_of_queue(z, z.detach(), QUEUE, 0.2).mean(),
}


# Definitions


@views
@pytest.mark.parametrize("w", [1, 2])
def test_cosine_to_targets_is_a_double_loop(v, w):
    p, t = random(v, 6, 5), random(w, 6, 5, seed=1)
    pairs = [(a, b) for a in range(v) for b in range(w) if a != b]
    for i, ours in enumerate(cosine_to_targets(p, t)):
        cosines = [torch.cosine_similarity(p[a, i], t[b, i], dim=0).item() for a, b in pairs]
        assert ours.item() == pytest.approx(sum(cosines) / len(pairs), rel=1e-12)


@views
def test_barlow_twins_is_its_definition(v):
    z = random(v, 20, 4).numpy()
    losses = []
    for a, b in itertools.combinations(range(v), 2):
        x, y = ((u - u.mean(0)) / np.sqrt(u.var(0) + EPS) for u in (z[a], z[b]))
        c = x.T @ y / 20
        losses.append(sum((1 - c[i, j]) ** 2 if i == j else 0.0051 * c[i, j] ** 2 for i in range(4) for j in range(4)))
    assert barlow_twins(torch.from_numpy(z), 0.0051).item() == pytest.approx(np.mean(losses), rel=1e-12)


def test_barlow_twins_of_perfectly_correlated_and_decorrelated_embeddings_is_nothing():
    basis, _ = torch.linalg.qr(torch.cat((torch.ones(20, 1, dtype=torch.float64), random(20, 4)), 1))
    z = 20**0.5 * basis[:, 1:]  # of mean 0, variance 1, uncorrelated
    assert barlow_twins(torch.stack((z, z)), 0.0051).item() == pytest.approx(0, abs=4 * EPS**2)
    assert barlow_twins(torch.stack((z, -z)), 0.0051).item() == pytest.approx(4 * 2**2, rel=1e-3)


@views
def test_the_terms_of_vicreg_are_those_of_numpy(v):
    z = random(v, 20, 4).numpy() * 0.5
    pairs = list(itertools.combinations(range(v), 2))
    invariance = np.mean([((z[a] - z[b]) ** 2).mean() for a, b in pairs])
    variance = np.mean([np.maximum(0, 1 - np.sqrt(x.var(0, ddof=1) + 1e-4)).mean() for x in z])
    of_view = []
    for x in z:
        cov = np.cov(x.T)
        of_view.append((cov**2).sum() - (np.diag(cov) ** 2).sum())
    ours = [term.item() for term in vicreg(torch.from_numpy(z), 25.0, 20.0, 3.0)]
    assert ours == pytest.approx([25 * invariance, 20 * variance, 3 * 2 * np.mean(of_view) / 4], rel=1e-12)


def test_sigreg_is_its_definition():
    z, a = random(2, 30, 5), directions(5, 7)
    t = np.linspace(0, LAST, KNOTS)
    statistics = []
    for view in z.numpy():
        for direction in a.T.numpy():
            phi = np.exp(1j * np.outer(t, view @ direction)).mean(1)
            integrand = np.abs(phi - np.exp(-(t**2) / 2)) ** 2 * np.exp(-(t**2) / 2)
            statistics.append(30 * 2 * np.trapezoid(integrand, t))
    assert sigreg(z, a).item() == pytest.approx(np.mean(statistics), rel=1e-12)


def test_sigreg_of_a_point_mass_has_a_closed_form():
    """φ is 1 for all embeddings at the origin: N ∫ (1 − e^(−t²/2))² e^(−t²/2) dt over [−3, 3], by error functions."""

    def gauss(k: float) -> float:  # ∫ e^(−k t²/2) over [−3, 3]
        return math.sqrt(2 * math.pi / k) * math.erf(LAST * math.sqrt(k / 2))

    expected = 50 * (gauss(1) - 2 * gauss(2) + gauss(3))
    ours = sigreg(torch.zeros(2, 50, 6, dtype=torch.float64), directions(6, 4)).item()
    assert ours == pytest.approx(expected, rel=1e-3)  # the trapezoidal rule's error


def test_sigreg_is_lowest_for_a_gaussian():
    z, a = random(1, 4000, 8), directions(8, 64)
    collapsed = z.clone()
    collapsed[..., 4:] = 0
    sparse = z * (random(1, 4000, 8, seed=4) > 1) * 2.5
    others = [2 * z, z / 2, z + 0.5, collapsed, sparse, z[..., :1].expand_as(z)]
    assert all(sigreg(other, a) > 3 * sigreg(z, a) for other in others)
    assert sigreg(z, a) < 3  # about its expectation, which does not grow with N


@views
def test_agreement_is_the_distance_to_the_mean_of_global_views(v):
    z = random(v, 6, 5)
    expected = np.mean([((z[k] - (z[0] + z[1]) / 2) ** 2).mean() for k in range(v)])
    assert agreement(z, 2).item() == pytest.approx(expected, rel=1e-12)
    assert agreement(z[:1].expand(3, -1, -1), 2).item() == pytest.approx(0, abs=1e-30)


@views
@pytest.mark.parametrize("w", [1, 2])
def test_the_loss_of_a_queue_is_a_double_loop(v, w):
    q, k = random(v, 6, 5), random(w, 6, 5, seed=1)

    def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
        return torch.cosine_similarity(x, y, dim=0).item() / 0.2

    for i, ours in enumerate(info_nce_of_queue(q, k, QUEUE, 0.2)):
        losses = []
        for a, b in itertools.product(range(v), range(w)):
            if a != b:
                own = math.exp(cosine(q[a, i], k[b, i]))
                losses.append(-math.log(own / (own + sum(math.exp(cosine(q[a, i], other)) for other in QUEUE))))
        assert ours.item() == pytest.approx(sum(losses) / len(losses), rel=1e-12)


@pytest.mark.parametrize("temperature", [0.005, 0.2])
def test_the_loss_of_a_queue_is_finite_at_low_temperature(temperature):
    q = random(2, 6, 5).float().requires_grad_()
    loss = info_nce_of_queue(q, -q.detach(), QUEUE.float(), temperature).mean()
    loss.backward()
    assert loss.isfinite()
    assert q.grad.isfinite().all()


@views
@pytest.mark.parametrize("w", [1, 2])
def test_cross_entropy_of_pairs_is_a_double_loop(v, w):
    logits, targets = random(v, 6, 5), random(w, 6, 5, seed=1).softmax(-1)
    log_p = logits.log_softmax(-1)
    pairs = [(a, b) for a in range(v) for b in range(w) if a != b]
    for i, ours in enumerate(cross_entropy_of_pairs(targets, logits)):
        expected = -sum((targets[b, i] * log_p[a, i]).sum().item() for a, b in pairs) / len(pairs)
        assert ours.item() == pytest.approx(expected, rel=1e-12)


def test_codes_are_balanced():
    scores = normalize(random(400, 16), dim=1) @ normalize(random(16, 8, seed=1), dim=0)
    scores[:, 0] += 0.3  # a prototype that is nearest to most
    few, many = sinkhorn(scores.clamp(-1, 1)), sinkhorn(scores.clamp(-1, 1), iterations=200)
    for codes in (few, many):
        torch.testing.assert_close(codes.sum(1), torch.ones(400, dtype=torch.float64))
        assert (codes >= 0).all()
    torch.testing.assert_close(many.sum(0), torch.full((8,), 50.0, dtype=torch.float64), rtol=1e-3, atol=0)
    plain = (scores / 0.05).softmax(1).sum(0)
    assert (few.sum(0) - 50).abs().max() < 0.5 * (plain - 50).abs().max()
    # Sinkhorn's limit is a scaling of rows and columns of the kernel.
    kernel = many.double().log() - (scores.clamp(-1, 1) - 1) / 0.05
    assert (kernel - kernel[:1] - kernel[:, :1] + kernel[0, 0]).abs().max() < 1e-3


def test_codes_are_those_of_the_released_steps():
    """Rows and columns by turns from a matrix of sum 1: the order of the factors does not matter."""
    scores = normalize(random(40, 6), dim=1) @ normalize(random(6, 4, seed=1), dim=0)
    q = torch.exp(scores / 0.05).T
    q /= q.sum()
    for _ in range(3):
        q /= q.sum(1, keepdim=True) * 4
        q /= q.sum(0, keepdim=True) * 40
    torch.testing.assert_close(sinkhorn(scores).double(), (q * 40).T, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("epsilon", [0.05, 5e-3])
def test_codes_of_little_entropy_are_finite_and_those_of_float64(epsilon):
    """In float32, exp(s/ε) of whole columns is zero here."""
    scores = normalize(random(40, 6), dim=1) @ normalize(random(6, 4, seed=1), dim=0)
    q = ((scores - scores.max()) / epsilon).exp()  # within what float64 holds
    for _ in range(3):
        q /= q.sum(0)
        q /= q.sum(1, keepdim=True)
    codes = sinkhorn(scores.float(), epsilon)
    torch.testing.assert_close(codes.double(), q, rtol=1e-2, atol=2e-3)  # cosines of float32, over ε
    torch.testing.assert_close(sinkhorn(scores, epsilon), q, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(codes.sum(1), torch.ones(40))
    torch.testing.assert_close(sinkhorn(scores.float(), 1e-3).sum(1), torch.ones(40))


# Symmetries


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "prediction"])
def test_order_of_images_is_irrelevant(name):
    z = random(2, 6, 5)
    shuffled = z[:, torch.tensor([3, 0, 5, 1, 4, 2])]
    torch.testing.assert_close(LOSSES[name](shuffled), LOSSES[name](z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "prediction"])
def test_order_of_views_is_irrelevant(name):
    z = random(2, 6, 5)
    torch.testing.assert_close(LOSSES[name](z.flip(0)), LOSSES[name](z), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name):
    z = random(3, 4, 3, seed=2) if name != "queue" else random(3, 4, 5, seed=2)
    # Targets that are constants are no part of the gradient.
    keys = z.clone()
    loss = (lambda z: info_nce_of_queue(z, keys, QUEUE, 0.2).mean()) if name == "queue" else LOSSES[name]
    assert torch.autograd.gradcheck(loss, z.clone().requires_grad_())


# Processes


def value_and_gradient(rank: int, world_size: int, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """As DistributedDataParallel sees it: losses and gradients of ranks are averaged."""
    part = random(2, 8, 5)[:, rank * 8 // world_size : (rank + 1) * 8 // world_size].clone().requires_grad_()
    loss = LOSSES[name](part, Gather(rank, world_size))
    loss.backward()
    return loss.detach(), part.grad / world_size


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "prediction"])
def test_two_processes_are_one(pair, name):
    value, gradient = value_and_gradient(0, 1, name)
    parts = pair(value_and_gradient, 2, name)
    torch.testing.assert_close(torch.stack([loss for loss, _ in parts]).mean(), value, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(torch.cat([grad for _, grad in parts], 1), gradient, rtol=1e-9, atol=1e-12)


def codes_of(rank: int, world_size: int, epsilon: float) -> torch.Tensor:
    scores = normalize(random(40, 6), dim=1) @ normalize(random(6, 4, seed=1), dim=0)
    return sinkhorn(
        scores[rank * 40 // world_size : (rank + 1) * 40 // world_size], epsilon, 3, Gather(rank, world_size)
    )


@pytest.mark.parametrize("epsilon", [0.05, 1e-3])
def test_codes_of_two_processes_are_those_of_one(pair, epsilon):
    torch.testing.assert_close(torch.cat(pair(codes_of, 2, epsilon)), codes_of(0, 1, epsilon))
