"""Scores of difficulty: closed forms, and a loop of ordinary backward passes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.subsets.difficulty import el2n, grand


def test_el2n_is_its_definition():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.arange(20) % 5
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        error = [math.exp(z) / total - (k == label) for k, z in enumerate(row)]
        expected.append(math.sqrt(sum(e * e for e in error)))
    score = el2n(logits, labels)
    assert score.dtype == torch.float64
    torch.testing.assert_close(score, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_el2n_lies_between_sure_and_right_and_sure_and_wrong():
    logits = torch.tensor([[900.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 900.0, 0.0, 0.0]])
    score = el2n(logits, torch.zeros(3, dtype=torch.int64))
    assert score.tolist() == pytest.approx([0, math.sqrt(1 - 1 / 4), math.sqrt(2)], rel=1e-15)


class Flat(nn.Module):
    """No parameters: the representation is the image."""

    num_features = 12

    def forward(self, images):
        return images.flatten(1)


def images_of(n, channels, size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, size, size, generator=generator, dtype=torch.float64), torch.arange(n) % 4


def test_grand_of_a_linear_model_is_el2n_times_the_length_of_its_input():
    """The gradient is (p − onehot)(x, 1)ᵀ."""
    torch.manual_seed(0)
    method = Supervised(Flat(), 4).double()
    images, labels = images_of(9, 3, 2)
    logits = method.project(method(images)).detach()
    expected = el2n(logits, labels) * (images.flatten(1).square().sum(1) + 1).sqrt()
    torch.testing.assert_close(grand(method, images, labels, chunk=4), expected, rtol=1e-12, atol=0)


@pytest.fixture(scope="module")
def network():
    """With running statistics of its own, a part that is not trained, and gradients left over."""
    torch.manual_seed(0)
    method = Supervised(resnet_tiny(channels=1, width=4, zero_init_residual=False), 4).double()
    images, labels = images_of(6, 1, 8)
    method.train()
    F.cross_entropy(method.project(method(3 * images + 1)), labels).backward()
    method.backbone.conv1.requires_grad_(False)
    return method, images, labels


def test_grand_is_the_norm_of_each_sample_s_gradient(network):
    method, images, labels = network
    scores = grand(method, images, labels, chunk=6)
    single = copy.deepcopy(method).eval()
    for score, image, label in zip(scores, images, labels, strict=True):
        single.zero_grad()
        F.cross_entropy(single.project(single(image[None])), label[None]).backward()
        squares = [p.grad.square().sum() for p in single.parameters() if p.requires_grad]
        torch.testing.assert_close(score, sum(squares).sqrt(), rtol=1e-10, atol=0)
    assert scores.std() > 0.01 * scores.mean()
    for chunk in (1, 4, 100):
        torch.testing.assert_close(grand(method, images, labels, chunk), scores, rtol=1e-10, atol=0)
    whole = copy.deepcopy(method).requires_grad_(True)
    assert (grand(whole, images, labels, chunk=6) > scores).all()


def test_grand_leaves_everything_as_it_was(network):
    method, images, labels = network

    def state():
        gradients = [torch.zeros(0) if p.grad is None else p.grad for p in method.parameters()]
        trained = torch.tensor([p.requires_grad for p in method.parameters()])
        return [x.clone() for x in (*method.state_dict().values(), *gradients, trained, torch.get_rng_state())]

    before = state()
    grand(method, images, labels, chunk=4)
    assert all(torch.equal(a, b) for a, b in zip(state(), before, strict=True))
    assert any(p.grad is not None for p in method.parameters())
