"""Networks of timm as backbones."""

import sys

import pytest
import torch

from ssl_lightning.errors import UserError
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.of_timm import timm_network
from ssl_lightning.models.projectors import linear
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks.fitting import fit

timm = pytest.importorskip("timm", reason="needs the extra `timm`")

VIT = {"patch_size": 4, "depth": 2, "embed_dim": 24}


@pytest.mark.parametrize(
    ("architecture", "arguments", "length", "identity"),
    [
        ("vit_tiny_patch16_224", VIT, 24, True),
        ("resnet10t", {}, 512, False),
        ("resnet18", {}, 512, True),
        ("mobilenetv3_small_050", {}, 1024, False),  # of which timm says num_features = 288
    ],
)
def test_any_network(architecture, arguments, length, identity):
    network = timm_network(architecture, 16, 1, arguments)
    assert network.training
    assert network(torch.randn(2, 1, 16, 16)).shape == (2, network.num_features) == (2, length)
    assert network.has_identity_shortcut is identity
    same = timm.create_model(**network.timm_arguments)
    assert [(n, p.shape) for n, p in same.named_parameters()] == [(n, p.shape) for n, p in network.named_parameters()]
    if identity:
        assert DirectCLR(network).d0 == round(0.176 * length)
    else:
        with pytest.raises(UserError, match=r"identity shortcut\. .*none that is known"):
            DirectCLR(network)


def test_its_statistics_are_those_that_it_begins_with():
    network = timm_network("resnet10t", 16, 1)
    assert not any(buffer.any() for name, buffer in network.named_buffers() if name.endswith("running_mean"))


def test_it_trains():
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-3, batch_size=16)
    method = SimCLR(timm_network("vit_tiny_patch16_224", 8, 1, VIT), linear, optimizer=recipe)
    before = method.backbone.pos_embed.detach().clone()
    assert fit(trained=method, max_epochs=1).global_step == 3
    assert not torch.equal(method.backbone.pos_embed, before)


@pytest.mark.parametrize(
    ("architecture", "arguments", "said"),
    [
        (
            "resnt18",
            {},
            "backbone.architecture is 'resnt18', which is no network of timm's, .* Choose resnet18",
        ),
        ("resnet18.a1_in1k", {}, "named without a tag of weights. Choose resnet18"),
        ("hf-hub:somebody/network", {}, "which is no network of timm's, .* Choose one that timm.list_models"),
        ("resnet18", {"pretrained": True}, "backbone.arguments.pretrained would read weights"),
        ("resnet18", {"checkpoint_path": "x.pth"}, "backbone.arguments.checkpoint_path would read weights"),
        ("resnet18", {"in_chans": 1}, "in_chans is set already. Remove it, and set backbone.channels"),
        ("resnet18", {"norm_layer": {"_target_": "torch.nn.Identity"}}, "Give a number, a word"),
        ("resnet18", {"patches": 3}, "resnet18 cannot be made .*patches.* Choose another"),
        ("resnet18", {"global_pool": ""}, r"of an image it gives \[1, 512, 1, 1\], and not \[1, D\]"),
        ("vit_tiny_patch16_224", {}, "cannot be made for 3 channels of 8×8 pixels .*smaller patch_size"),
    ],
)
def test_what_cannot_be_made(architecture, arguments, said):
    with pytest.raises(UserError, match=said):
        timm_network(architecture, 8, 3, arguments)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-lightning\[timm\]'"):
        timm_network("resnet18")
