"""Losses beside lightly's, where that has them: values and gradients, on one process."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.losses.clustering import cross_entropy_of_pairs, sinkhorn
from ssl_lightning.losses.contrastive import info_nce, nt_xent
from ssl_lightning.losses.prediction import cosine_to_targets
from ssl_lightning.losses.queue import info_nce_of_queue
from ssl_lightning.losses.redundancy import barlow_twins, vicreg
from ssl_lightning.losses.sigreg import agreement, sigreg

theirs = pytest.importorskip(
    "lightly.loss", reason="lightly is not installed: pip install 'ssl-lightning[bench]'", exc_type=ImportError
)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def queue_of_lightly(z: Tensor) -> Tensor:
    """Of one view against the keys of the other, which are constants; then of the other."""
    loss = theirs.NTXentLoss(temperature=0.2, memory_bank_size=(11, 8))
    losses = []
    for a, b in ((0, 1), (1, 0)):
        loss.memory_bank.bank = normalize(random(11, 8, seed=8), dim=1)  # each call adds its keys
        losses.append(loss(z[a], z[b].detach()))
    return (losses[0] + losses[1]) / 2


def lejepa(z: Tensor) -> Tensor:
    """Of the directions that lightly draws from the same seed."""
    directions = normalize(random(8, 20, seed=5), dim=0)
    return 0.05 * sigreg(z, directions) + 0.95 * agreement(z, 2)


def lejepa_of_lightly(z: Tensor) -> Tensor:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        loss = theirs.LeJEPALoss(lambda_param=0.05, sigreg_num_vectors=20)
        return loss(global_proj=z[:2], local_proj=z[2:])


def dino(z: Tensor) -> Tensor:
    targets = (random(2, 16, 8, seed=1) / 0.04).softmax(-1)
    return cross_entropy_of_pairs(targets, z / 0.1).mean()


def swav(z: Tensor) -> Tensor:
    codes = torch.stack([sinkhorn(view.detach()) for view in z[:2]])
    return cross_entropy_of_pairs(codes, z / 0.1).mean()


LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], int]] = {
    "nt_xent": (lambda z: nt_xent(z, 0.5), lambda z: theirs.NTXentLoss(0.5)(z[0], z[1]), 2),
    "directclr": (lambda z: nt_xent(z[..., :5], 0.1), lambda z: theirs.DirectCLRLoss(5, 0.1)(z[0], z[1]), 2),
    "queue": (
        lambda z: info_nce_of_queue(z, z.detach(), random(11, 8, seed=8), 0.2).mean(),
        queue_of_lightly,
        2,
    ),
    "cosine": (
        lambda z: -cosine_to_targets(z, random(2, 16, 8, seed=1)).mean(),
        lambda z: sum(
            theirs.NegativeCosineSimilarity()(z[a], random(2, 16, 8, seed=1)[b]) / 2 for a, b in ((0, 1), (1, 0))
        ),
        2,
    ),
    "barlow_twins": (
        lambda z: barlow_twins(z, 0.0051),
        lambda z: theirs.BarlowTwinsLoss(lambda_param=0.0051)(z[0], z[1]),
        2,
    ),
    "vicreg": (lambda z: sum(vicreg(z, 25.0, 25.0, 1.0)), lambda z: theirs.VICRegLoss()(z[0], z[1]), 2),
    "swav": (swav, lambda z: theirs.SwaVLoss()([z[0], z[1]], [z[2]]), 3),
    "lejepa": (lejepa, lejepa_of_lightly, 3),
    "dino": (dino, lambda z: theirs.DINOLoss(8)(list(random(2, 16, 8, seed=1)), list(z)), 3),
}


def test_that_of_directclr_is_another():
    """Theirs is NT-Xent of the sub-vector; the released code of the paper contrasts each view with the other alone."""
    z = random(2, 16, 8)
    assert nt_xent(z[..., :5], 0.1) - info_nce(z[..., :5], 0.1) > 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient(name):
    ours, other, views = LOSSES[name]
    a, b = (normalize(random(views, 16, 8), dim=-1).requires_grad_() for _ in range(2))
    if name not in ("swav", "dino"):
        a, b = (random(views, 16, 8).requires_grad_() for _ in range(2))
    values = ours(a), other(b)
    for value in values:
        value.backward()
    torch.testing.assert_close(values[0], values[1].reshape(()), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-6)
