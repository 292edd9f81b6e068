"""Wide residual networks."""

import pytest
import torch

from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.models.wide_resnet import WideResNet
from tests.methods.networks import batch_of, tiny_views


@pytest.mark.parametrize(("depth", "widening", "millions"), [(40, 4, 8.9), (16, 8, 11.0), (28, 10, 36.5)])
def test_as_many_parameters_as_the_paper_says(depth, widening, millions):
    """With a classifier of ten classes (arXiv 1605.07146, tables 3 and 4)."""
    with torch.device("meta"):
        network = WideResNet(depth, widening)
    classifier = 10 * network.num_features + 10
    assert round((sum(p.numel() for p in network.parameters()) + classifier) / 1e6, 1) == millions
    assert network.num_features == 64 * widening


def test_shape_stem_and_channels():
    assert WideResNet(10, 1, channels=1)(torch.randn(2, 1, 8, 8)).shape == (2, 64)
    assert WideResNet(10, 1, stem="imagenet")(torch.randn(2, 3, 64, 64)).shape == (2, 64)
    resolutions = {"cifar": 32, "stl": 16, "imagenet": 8}
    for stem, side in resolutions.items():
        network = WideResNet(10, 1, stem=stem)
        assert network.maxpool(network.conv1(torch.randn(1, 3, 32, 32))).shape[-1] == side


def test_a_block_is_that_of_the_paper():
    """BatchNorm, ReLU and convolution, twice; the changed shape is a convolution of what is activated."""
    network = WideResNet(10, 2, channels=1, zero_init_residual=False).double().eval()
    for block in network.stages:
        torch.nn.init.uniform_(block.bn1.running_mean)
        x = torch.randn(2, block.conv1.in_channels, 4, 4, dtype=torch.float64)
        activated = ((x - block.bn1.running_mean[:, None, None]) / (1 + block.bn1.eps) ** 0.5).clamp(min=0)
        hidden = (block.conv1(activated) / (1 + block.bn2.eps) ** 0.5).clamp(min=0)
        torch.testing.assert_close(block(x), block.shortcut(activated) + block.conv2(hidden))


@pytest.mark.parametrize(("depth", "identity"), [(10, False), (16, True), (28, True)])
def test_the_last_block_adds_its_input_from_depth_16_on(depth, identity):
    network = WideResNet(depth, 1)
    assert network.has_identity_shortcut is identity
    last = network.stages[-1]
    x = torch.rand(2, last.conv1.in_channels, 2, 2)
    assert torch.equal(last(x), x) is identity


def test_channels_beyond_directclrs_are_the_input_of_the_last_block_at_every_step():
    """Normalised, activated and pooled, bit for bit."""
    torch.manual_seed(0)
    method, inputs = DirectCLR(WideResNet(16, 1, channels=1), d0=6), []
    method.backbone.stages[-1].register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    norm = method.backbone.norm
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    for step in range(3):
        objective = method.ssl_loss(batch_of(tiny_views(8, seed=step)), LOCAL, Draw())
        pooled = torch.relu(norm(inputs.pop())).mean((2, 3))
        tail = objective.representations.flatten(0, 1)[:, 6:]
        assert torch.equal(tail, pooled[:, 6:])
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
    assert not torch.allclose(objective.representations.flatten(0, 1)[:, :6], pooled[:, :6])


@pytest.mark.parametrize("depth", [4, 18, 27, 50])
def test_a_depth_that_there_is_not(depth):
    with pytest.raises(UserError, match=rf"backbone.depth is {depth}, .*Choose 16, 22, 28, 34 or 40"):
        WideResNet(depth, 1)
