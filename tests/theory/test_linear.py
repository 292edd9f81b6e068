"""Gradients of layers, what their flow keeps, its closed form at small weights, and singular values along it."""

import pytest
import torch
from torch import Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.theory.linear import descend, gaussian, gradients, orthogonal, product, views
from tests.theory import naive

close = torch.testing.assert_close


def layers_of(depth: int, scale: float = 0.5) -> list[Tensor]:
    return [naive.matrix(4, 4, seed, scale) for seed in range(depth)]


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_gradients_are_those_of_autograd(depth):
    x, other = naive.views()
    layers = [layer.requires_grad_() for layer in layers_of(depth)]
    z, z_other = x, other
    for layer in layers:
        z, z_other = z @ layer.T, z_other @ layer.T
    expected = torch.autograd.grad(naive.loss(z, z_other), layers)
    close(product(layers), torch.linalg.multi_dot(layers[::-1]) if depth > 1 else layers[0])
    for found, slope in zip(gradients(layers, x, other), expected, strict=True):
        close(found, slope)


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_the_flow_keeps_what_neighbouring_layers_differ_in(depth):
    """d/dt(W_l W_lᵀ − W_{l+1}ᵀ W_{l+1}) = 0, with Ẇ = −∂loss/∂W."""
    layers = layers_of(depth)
    flow = [-slope for slope in gradients(layers, *naive.views())]
    for i in range(depth - 1):
        lower, upper = flow[i] @ layers[i].T, layers[i + 1].T @ flow[i + 1]
        assert lower.abs().max() > 1e-4
        close(lower + lower.T, upper + upper.T, rtol=0, atol=1e-15)


def flown(layers: list[Tensor], lr: float, time: float) -> list[Tensor]:
    """By Euler's steps, on the same images."""
    for _ in range(round(time / lr)):
        layers = [w - lr * slope for w, slope in zip(layers, gradients(layers, *naive.views()), strict=True)]
    return layers


def test_steps_lose_it_in_proportion_to_their_size():
    def kept(first: Tensor, second: Tensor) -> Tensor:
        return first @ first.T - second.T @ second

    layers = layers_of(2)
    coarse, fine = ((kept(*flown(layers, lr, 2.0)) - kept(*layers)).norm() for lr in (0.02, 0.01))
    assert (flown(layers, 0.02, 2.0)[0] - layers[0]).norm() > 0.1
    assert (coarse / fine).item() == pytest.approx(2, rel=0.05)


def uniform_difference(x: Tensor, other: Tensor) -> Tensor:
    """X = Σ̂₀ − Σ̂₁ where all α are 1/n, as at W = 0."""
    n = len(x)
    between, within = naive.second_moments([[torch.tensor(1 / n)] * n] * n, x, other)
    return between - within


def test_small_weights_have_the_gradient_of_uniform_weights():
    x, other = naive.views()
    w = naive.matrix(4, 4, seed=1)
    expected = -w @ uniform_difference(x, other)
    coarse, fine = ((gradients([e * w], x, other)[0] / e - expected).norm().item() for e in (0.02, 0.01))
    assert coarse / fine == pytest.approx(4, rel=0.05)  # α leaves 1/n by the square of the weights


def test_the_flow_of_small_weights_is_an_exponential():
    """W(t) = W(0) exp(X t), as X does not change: directions grow, or shrink, by their eigenvalue."""
    start = 1e-6 * naive.matrix(4, 4, seed=1)
    expected = start @ torch.linalg.matrix_exp(uniform_difference(*naive.views()))
    coarse, fine = (((flown([start], lr, 1.0)[0] - expected).norm() / expected.norm()).item() for lr in (0.002, 0.001))
    assert fine < 0.02
    assert coarse / fine == pytest.approx(2, rel=0.05)


def test_singular_values_of_aligned_layers_grow_by_those_of_the_other():
    """d/dt σ₁ᵏ = σ₁ᵏ (σ₂ᵏ)² ⟨v₁ᵏ, X v₁ᵏ⟩ and d/dt σ₂ᵏ = σ₂ᵏ (σ₁ᵏ)² ⟨v₁ᵏ, X v₁ᵏ⟩, where V₂ = U₁."""
    x, other = naive.views()
    u, v, q = (orthogonal(4, 1.0, torch.Generator().manual_seed(seed)) for seed in range(3))
    first, second = torch.tensor([[0.9, 0.7, 0.4, 0.2], [0.8, 0.5, 0.3, 0.1]], dtype=torch.float64)
    layers = [u @ first.diag() @ v.T, q @ second.diag() @ u.T]
    whole = product(layers)
    between, within = naive.second_moments(naive.weights(x @ whole.T, other @ whole.T), x, other)
    pull = (v.T @ (between - within) @ v).diagonal()
    by_first, by_second = gradients(layers, x, other)
    close(-(u.T @ by_first @ v).diagonal(), first * second**2 * pull)
    close(-(q.T @ by_second @ u).diagonal(), second * first**2 * pull)


def test_starts():
    generator = torch.Generator().manual_seed(0)
    close(torch.linalg.svdvals(orthogonal(16, 0.3, generator)), torch.full((16,), 0.3, dtype=torch.float64))
    assert gaussian(300, 0.1, generator).std().item() == pytest.approx(0.1, rel=0.02)


def test_views_differ_by_their_noise_alone():
    variances = torch.tensor([4.0, 1.0, 0.0], dtype=torch.float64)
    noise = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    first, second = views(variances, noise, 20_000, torch.Generator().manual_seed(0))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1, :, 0], second[0, :, 0])  # all strengths see the same images
    close(first[0].var(0), variances, rtol=0.05, atol=0)
    close((second - first)[1].var(0), 2 * noise[1].square(), rtol=0.05, atol=0)


def run(**changes: float) -> list[Tensor]:
    ones = torch.ones(4, dtype=torch.float64)
    how = {"batch_size": 8, "lr": 0.1, "steps": 3} | changes
    return [w for (w,) in descend([ones.diag()], ones, ones, generator=torch.Generator().manual_seed(0), **how)]


def test_descent_is_a_step_a_batch_of_new_images():
    found, generator = run(), torch.Generator().manual_seed(0)
    ones = torch.ones(4, dtype=torch.float64)
    w = ones.diag()
    assert len(found) == 4
    for at in found:
        close(at, w)
        w = w - 0.1 * gradients([w], *views(ones, ones, 8, generator))[0]


def test_what_diverges_says_so():
    with pytest.raises(UserError, match=r"training of 1 layer diverges at step \d+, with lr 1e\+200: lower lr"):
        run(lr=1e200)
