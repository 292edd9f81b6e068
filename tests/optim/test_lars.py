"""LARS against its formula, tensor by tensor."""

import copy

import pytest
import torch

from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.optim.lars import LARS


def parameters(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.nn.Parameter(torch.randn(s, generator=generator, dtype=torch.float64)) for s in [(3, 4), (5,), (2, 2, 2)]
    ]


def naive(params, gradients, steps, *, lr, momentum, weight_decay, eta, clip):
    params = [p.detach().clone() for p in params]
    velocity = [torch.zeros_like(p) for p in params]
    for step in range(steps):
        for i, p in enumerate(params):
            g = gradients[step][i]
            ratio = eta * p.norm() / (g.norm() + weight_decay * p.norm() + 1e-8)
            if p.norm() == 0:
                ratio = torch.tensor(1.0, dtype=p.dtype)
            if clip:
                ratio = min(ratio / lr, torch.tensor(1.0, dtype=p.dtype))
            if g.norm() == 0:
                ratio = torch.tensor(0.0, dtype=p.dtype)
            velocity[i] = momentum * velocity[i] + (g + weight_decay * p) * ratio
            params[i] = p - lr * velocity[i]
    return params


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_equals_the_formula(clip, weight_decay):
    params = parameters()
    gradients = [[torch.randn_like(p) for p in params] for _ in range(4)]
    gradients[0][0].zero_()
    gradients[2][1].zero_()
    settings = {"lr": 0.3, "momentum": 0.9, "weight_decay": weight_decay}
    expected = naive(params, gradients, 4, eta=0.02, clip=clip, **settings)
    optimizer = LARS(params, trust_coefficient=0.02, clip=clip, **settings)
    for step in gradients:
        for p, g in zip(params, step, strict=True):
            p.grad = g.clone()
        optimizer.step()
    for p, e in zip(params, expected, strict=True):
        assert torch.allclose(p, e, rtol=1e-12, atol=0)


@pytest.mark.parametrize("clip", [False, True])
def test_weights_of_zero_take_plain_steps_and_those_without_gradient_none(clip):
    """As at the start of residual branches whose last BatchNorm is 0: the layers before it must not decay."""
    zero, still = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.ones(3))
    optimizer = LARS([zero, still], lr=0.1, momentum=0.0, weight_decay=0.1, clip=clip)
    zero.grad, still.grad = torch.ones(3), torch.zeros(3)
    optimizer.step()
    assert torch.equal(zero, torch.full((3,), -0.1))
    assert torch.equal(still, torch.ones(3))


def test_residual_branches_that_start_at_zero_are_left_alone():
    torch.manual_seed(0)
    network = resnet_tiny(channels=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(torch.rand(8, 1, 8, 8)).square().sum().backward()
    weights = {name: p for name, p in network.named_parameters() if p.ndim > 1}
    LARS(weights.values(), lr=0.4, weight_decay=1e-4, trust_coefficient=0.02, clip=True).step()
    still = [name for name, p in weights.items() if p.grad.abs().max() == 0]
    assert still
    for name, p in weights.items():
        assert torch.equal(p, before[name]) == (name in still)


def test_unadapted_groups_are_sgd_with_momentum():
    ours, theirs = parameters(), parameters()
    lars = LARS([{"params": ours, "adapt": False}], lr=0.1, momentum=0.9, weight_decay=0.01)
    sgd = torch.optim.SGD(theirs, lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(3):
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        lars.step()
        sgd.step()
    for p, q in zip(ours, theirs, strict=True):
        assert torch.allclose(p, q, rtol=1e-12)


def test_scaling_a_gradient_changes_nothing():
    ours, scaled = parameters(), parameters()
    for factor, params in ((1.0, ours), (1000.0, scaled)):
        optimizer = LARS(params, lr=0.1)
        for p in params:
            p.grad = factor * torch.ones_like(p)
        optimizer.step()
    for p, q in zip(ours, scaled, strict=True):
        assert torch.allclose(p, q, rtol=1e-7)


def test_state_survives_a_checkpoint():
    first, second = parameters(), parameters()
    a, b = LARS(first, lr=0.1), LARS(second, lr=0.1)
    for p in first:
        p.grad = torch.ones_like(p)
    a.step()
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p.data)
        q.grad = torch.ones_like(q)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    a.step()
    b.step()
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match="weight_decay is -1"):
        LARS(parameters(), lr=0.1, weight_decay=-1)
