"""NT-Xent and cross-view InfoNCE against naive loops, and their symmetries."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from ssl_lightning.losses.contrastive import info_nce, info_nce_terms, nt_xent, nt_xent_terms
from ssl_lightning.losses.gather import Gather

LOSSES = (nt_xent, info_nce)


def embeddings(num_views: int, num_images: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num_views, num_images, 4, generator=generator, dtype=torch.float64)


def naive_nt_xent(z: torch.Tensor, temperature: float) -> float:
    num_views, num_images, _ = z.shape
    samples = [(v, n) for v in range(num_views) for n in range(num_images)]

    def similarity(a: tuple[int, int], b: tuple[int, int]) -> float:
        return F.cosine_similarity(z[a], z[b], dim=0).item() / temperature

    losses = []
    for anchor in samples:
        denominator = sum(math.exp(similarity(anchor, other)) for other in samples if other != anchor)
        positives = [(view, anchor[1]) for view in range(num_views) if view != anchor[0]]
        losses += [math.log(denominator) - similarity(anchor, positive) for positive in positives]
    return sum(losses) / len(losses)


def naive_info_nce(z: torch.Tensor, temperature: float) -> float:
    num_views, num_images, _ = z.shape
    losses = []
    for v in range(num_views):
        for w in range(num_views):
            for n in range(num_images):
                if v != w:
                    row = [F.cosine_similarity(z[v, n], z[w, m], dim=0).item() / temperature for m in range(num_images)]
                    losses.append(math.log(sum(map(math.exp, row))) - row[n])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("num_views", [2, 3, 4])
@pytest.mark.parametrize(("loss", "naive"), [(nt_xent, naive_nt_xent), (info_nce, naive_info_nce)])
def test_equals_a_naive_loop(loss, naive, num_views):
    z = embeddings(num_views)
    assert loss(z, 0.3).item() == pytest.approx(naive(z, 0.3), rel=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_order_of_images_and_views_is_irrelevant(loss):
    z = embeddings(3)
    reference = loss(z, 0.2)
    assert torch.allclose(loss(z[:, torch.tensor([3, 0, 4, 1, 2])], 0.2), reference, rtol=1e-12)
    assert torch.allclose(loss(z[torch.tensor([2, 0, 1])], 0.2), reference, rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_length_of_embeddings_is_irrelevant(loss):
    z = embeddings(2)
    scale = torch.rand(2, 5, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    assert torch.allclose(loss(z * scale, 0.2), loss(z, 0.2), rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_that_of_finite_differences(loss):
    z = embeddings(3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, 0.5), z)


@pytest.mark.parametrize("loss", LOSSES)
def test_small_temperature_under_bf16_autocast(loss):
    z = embeddings(2, 64).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(z, 0.005)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(loss(z.double(), 0.005).item(), rel=1e-5)


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("terms", [nt_xent_terms, info_nce_terms])
def test_the_loss_of_an_image_is_the_mean_over_its_anchors(terms, num_views):
    z = embeddings(num_views, 6)
    unit = torch.nn.functional.normalize(z, dim=-1)
    expected = []
    for i in range(6):
        anchors = []
        for v, w in itertools.permutations(range(num_views), 2):
            if terms is nt_xent_terms:
                others = [unit[u, j] for u in range(num_views) for j in range(6) if (u, j) != (v, i)]
            else:
                others = [unit[w, j] for j in range(6)]
            logits = torch.stack([unit[v, i] @ other for other in others]) / 0.2
            anchors.append(logits.logsumexp(0) - unit[v, i] @ unit[w, i] / 0.2)
        expected.append(torch.stack(anchors).mean())
    found = terms(z, 0.2)
    torch.testing.assert_close(found.of_images(), torch.stack(expected), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.mean(), found.of_images().mean(), rtol=1e-12, atol=1e-12)


def test_known_values():
    same = torch.ones(2, 4, 3, dtype=torch.float64)
    assert nt_xent(same, 0.1).item() == pytest.approx(math.log(7))  # 2·4 − 1 equal candidates
    assert info_nce(same, 0.1).item() == pytest.approx(math.log(4))


def _loss_of_rank(rank, name, z, temperature):
    """Value and gradient on one rank, the gradient averaged over ranks as DistributedDataParallel does."""
    import torch.distributed as dist

    loss = {"nt_xent": nt_xent, "info_nce": info_nce}[name]
    share = z.shape[1] // 2
    weight = torch.eye(z.shape[2], dtype=torch.float64).requires_grad_()
    value = loss(z[:, rank * share : (rank + 1) * share] @ weight, temperature, Gather(rank, 2))
    value.backward()
    assert weight.grad is not None
    gradient, total = weight.grad, value.detach()
    dist.all_reduce(gradient)
    dist.all_reduce(total)
    return total / 2, gradient / 2


@pytest.mark.one_in(2)
@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("name", ["nt_xent", "info_nce"])
def test_two_processes_equal_one(pair, name, num_views):
    z = embeddings(num_views, 6)
    weight = torch.eye(4, dtype=torch.float64).requires_grad_()
    value = {"nt_xent": nt_xent, "info_nce": info_nce}[name](z @ weight, 0.2)
    value.backward()
    for total, gradient in pair(_loss_of_rank, name, z, 0.2):
        assert torch.allclose(total, value.detach(), rtol=1e-12)
        assert torch.allclose(gradient, weight.grad, rtol=1e-10, atol=1e-14)
