"""DirectCLR's exact properties (arXiv 2110.09348)."""

import functools

import pytest
import torch

from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import BasicBlock, ResNet, resnet_tiny
from ssl_lightning.models.projectors import FixedLowRankDiagonal
from tests.methods.networks import batch_of, gradients, tiny_views

D0 = 6


def directclr() -> DirectCLR:
    torch.manual_seed(0)
    return DirectCLR(resnet_tiny(channels=1, width=8), d0=D0)


def last_block_input(method: DirectCLR, store: list[torch.Tensor]) -> None:
    block = method.backbone.get_submodule("layer3")[-1]
    block.register_forward_pre_hook(lambda _, args: store.append(args[0]))


def test_channels_outside_the_sub_vector_get_no_gradient():
    method, outputs = directclr(), []
    method.backbone.register_forward_hook(lambda _, __, output: outputs.append(output))
    objective = method.ssl_loss(batch_of(tiny_views(8)), LOCAL, Draw())
    (gradient,) = torch.autograd.grad(objective.loss, outputs[0])
    assert not gradient[:, D0:].any()
    assert gradient[:, :D0].abs().min() > 0


def test_equals_simclr_with_a_fixed_low_rank_diagonal_projector():
    ours = directclr()
    torch.manual_seed(0)
    projector = functools.partial(FixedLowRankDiagonal, rank=D0)
    theirs = SimCLR(resnet_tiny(channels=1, width=8), projector, temperature=0.1, loss="info_nce")
    for method in (ours.double(), theirs.double()):
        method.ssl_loss(batch_of(tiny_views(8).double()), LOCAL, Draw()).loss.backward()
    for a, b in zip(gradients(ours), gradients(theirs), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("algorithm", [torch.optim.SGD, torch.optim.Adam])
def test_other_channels_are_the_pooled_input_of_the_last_block_at_every_step(algorithm):
    method, inputs = directclr(), []
    last_block_input(method, inputs)
    optimizer = algorithm(method.parameters(), lr=0.01)
    for step in range(5):
        objective = method.ssl_loss(batch_of(tiny_views(8, seed=step)), LOCAL, Draw())
        pooled = inputs.pop().mean((2, 3))
        tail = objective.representations.flatten(0, 1)[:, D0:]
        assert torch.equal(tail, pooled[:, D0:])
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
    head = objective.representations.flatten(0, 1)[:, :D0]
    assert not torch.allclose(head, pooled[:, :D0])  # whereas the sub-vector has moved away from it


def test_from_the_second_step_on_gradient_reaches_every_channel_before_the_last_block():
    method, inputs = directclr(), []
    last_block_input(method, inputs)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    reached = []
    for step in range(3):
        objective = method.ssl_loss(batch_of(tiny_views(8, seed=step)), LOCAL, Draw())
        (gradient,) = torch.autograd.grad(objective.loss, inputs.pop(), retain_graph=True)
        reached.append(gradient.abs().amax((0, 2, 3)) > 0)
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
    assert not reached[0][D0:].any()
    assert reached[1].all()
    assert reached[2].all()


def test_default_length():
    assert DirectCLR(resnet_tiny(channels=1)).d0 == 11


def test_backbone_without_identity_shortcut_is_refused():
    with pytest.raises(UserError, match="identity shortcut"):
        DirectCLR(ResNet(BasicBlock, (1, 1, 1), 8, channels=1))


@pytest.mark.parametrize("d0", [0, 65])
def test_impossible_length_is_refused(d0):
    with pytest.raises(UserError, match="between 1 and 64"):
        DirectCLR(resnet_tiny(channels=1), d0=d0)
