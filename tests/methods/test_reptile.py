"""Reptile against its definition."""

import pytest
import torch
from torch.func import functional_call

from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.contrastive import nt_xent
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.reptile import Reptile
from tests.methods.networks import batch_of, gradients, smooth_simclr, smooth_views, tiny_simclr, tiny_views
from tests.methods.test_gessl import flops, gradient_of


@pytest.mark.parametrize("steps", [1, 3])
def test_the_outer_gradient_is_where_the_inner_steps_lead(steps):
    views, lr = smooth_views(8), 0.3
    method = Reptile(smooth_simclr(), tasks=2, steps=steps, inner_lr=lr)
    gradient_of(method, views)
    base = smooth_simclr()
    start = {name: p.detach() for name, p in base.named_parameters()}
    expected = {name: torch.zeros_like(p) for name, p in start.items()}
    for part in (slice(0, 4), slice(4, 8)):
        weights = dict(start)
        for _ in range(steps):
            leaves = {name: p.clone().requires_grad_() for name, p in weights.items()}
            z = functional_call(base, leaves, (views[:, part].flatten(0, 1),)).unflatten(0, (2, 4))
            slopes = torch.autograd.grad(nt_xent(z, 0.5), list(leaves.values()))
            weights = {name: (p - lr * g).detach() for (name, p), g in zip(leaves.items(), slopes, strict=True)}
        for name in expected:
            expected[name] += (start[name] - weights[name]) / lr / 2
    torch.testing.assert_close(gradients(method), list(expected.values()))


def test_one_step_is_the_base_method():
    views = smooth_views(8)
    reptile, base = Reptile(smooth_simclr(), tasks=1, steps=1, inner_lr=0.1), smooth_simclr()
    gradient_of(reptile, views)
    gradient_of(base, views)
    torch.testing.assert_close(gradients(reptile), gradients(base))


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_its_cost_is_what_is_said(steps):
    method = Reptile(tiny_simclr(), tasks=1, steps=steps)
    assert method.gradient_evaluations == pytest.approx(steps)
    assert flops(method, tiny_views(8)) / flops(tiny_simclr(), tiny_views(8)) == pytest.approx(steps, rel=0.02)


def test_the_loss_is_half_the_squared_distance_over_the_rate():
    views, lr = smooth_views(8), 0.3
    method = Reptile(smooth_simclr(), tasks=1, steps=1, inner_lr=lr)
    objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
    base = smooth_simclr()
    gradient_of(base, views)
    squares = sum(float(g.square().sum()) for g in gradients(base))
    assert float(objective.loss) == pytest.approx(lr * squares / 2)
