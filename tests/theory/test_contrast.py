"""The loss, its weights, and the identity of its gradient, in float64 against loops over images."""

import doctest

import pytest
import torch

from ssl_lightning.theory import contrast
from tests.theory import naive

close = torch.testing.assert_close


def test_doctests():
    assert doctest.testmod(contrast).failed == 0


def test_the_loss_and_its_weights_are_the_paper_s():
    z, other = naive.views()
    close(contrast.loss(z, other), naive.loss(z, other))
    alpha = contrast.weights(z, other)
    close(alpha, torch.tensor(naive.weights(z, other), dtype=torch.float64))
    close(alpha.sum(1), torch.ones(len(z), dtype=torch.float64))


def test_the_second_moments_are_sums_over_pairs():
    x, other = naive.views()
    w = naive.matrix(3, 4, seed=1)
    z, z_other = x @ w.T, other @ w.T
    found = contrast.second_moments(contrast.weights(z, z_other), x, other)
    for moment, expected in zip(found, naive.second_moments(naive.weights(z, z_other), x, other), strict=True):
        close(moment, expected)
        assert torch.linalg.eigvalsh(moment).min() > -1e-12


@pytest.mark.parametrize(("rows", "seed"), [(4, 1), (2, 2), (6, 3)])
def test_the_gradient_of_a_linear_encoder_is_minus_w_times_the_difference(rows, seed):
    x, other = naive.views()
    w = naive.matrix(rows, 4, seed).requires_grad_()
    (slope,) = torch.autograd.grad(naive.loss(x @ w.T, other @ w.T), w)
    between, within = contrast.second_moments(contrast.weights(x @ w.T, other @ w.T), x, other)
    close(slope, -w @ (between - within))


def test_the_gradient_by_embeddings_is_the_paper_s():
    z, other = (part.requires_grad_() for part in naive.views())
    by_z, by_other = torch.autograd.grad(contrast.loss(z, other), (z, other))
    alpha, n = naive.weights(z.detach(), other.detach()), len(z)
    for i in range(n):
        rest = [j for j in range(n) if j != i]
        expected = sum(alpha[i][j] * (z[j] - other[i]) + alpha[j][i] * (z[j] - z[i]) for j in rest) / n
        close(by_z[i], expected)
        close(by_other[i], sum(alpha[i][j] * (other[i] - z[i]) for j in rest) / n)


def test_encoders_side_by_side_are_each_alone():
    pairs = [naive.views(seed=seed) for seed in range(3)]
    x, other = (torch.stack(parts) for parts in zip(*pairs, strict=True))
    alpha = contrast.weights(x, other)
    together = [contrast.loss(x, other), alpha, *contrast.second_moments(alpha, x, other)]
    for i, pair in enumerate(pairs):
        own = contrast.weights(*pair)
        alone = [contrast.loss(*pair), own, *contrast.second_moments(own, *pair)]
        for found, expected in zip(together, alone, strict=True):
            close(found[i], expected)


def test_one_image_alone_has_nothing_to_learn():
    x, other = naive.views(n=1)
    alpha = contrast.weights(x, other)
    assert contrast.loss(x, other).item() == 0
    assert not any(moment.any() for moment in contrast.second_moments(alpha, x, other))
