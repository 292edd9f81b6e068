"""The classification of a mini-batch by similarity, and KL between two of them."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_lightning.losses.matching import log_assignments, matching_kl


def embeddings(seed: int, num_views: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_views, 5, 4, generator=generator, dtype=torch.float64)


def naive(z: torch.Tensor, target: torch.Tensor, temperature: float) -> float:
    def assignment(x: torch.Tensor, v: int, w: int, i: int) -> list[float]:
        row = [math.exp(F.cosine_similarity(x[v, i], x[w, m], dim=0).item() / temperature) for m in range(len(x[w]))]
        return [value / sum(row) for value in row]

    num_views, num_images, _ = z.shape
    pairs = [(v, w) for v in range(num_views) for w in range(num_views) if v != w]
    total = 0.0
    for v, w in pairs:
        for i in range(num_images):
            p, q = assignment(target, v, w, i), assignment(z, v, w, i)
            total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / (len(pairs) * num_images)


@pytest.mark.parametrize("num_views", [2, 3])
def test_equals_a_naive_loop(num_views):
    z, target = embeddings(0, num_views), embeddings(1, num_views)
    assert matching_kl((z, z), (target, target), 0.3).item() == pytest.approx(naive(z, target, 0.3), rel=1e-10)


def test_zero_where_equal_and_positive_elsewhere():
    z, target = embeddings(0).requires_grad_(), embeddings(1)
    same = matching_kl((z, z), (z, z), 0.2)
    (gradient,) = torch.autograd.grad(same, z)
    assert same.item() == pytest.approx(0, abs=1e-14)
    assert gradient.abs().max() < 1e-13
    assert matching_kl((z, z), (target, target), 0.2).item() > 0.01


def test_no_gradient_into_the_target():
    z, target = embeddings(0).requires_grad_(), embeddings(1).requires_grad_()
    matching_kl((z, z), (target, target), 0.2).backward()
    assert z.grad is not None
    assert target.grad is None


def test_assignments_are_distributions():
    z = embeddings(0)
    assert torch.allclose(log_assignments((z, z), 0.1).exp().sum(-1), torch.ones(2, 2, 5, dtype=torch.float64))
