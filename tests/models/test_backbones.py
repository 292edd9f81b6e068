"""ResNets: torchvision's with a choice of stem."""

import pytest
import torch
import torchvision

from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models import backbones
from ssl_lightning.models.projectors import linear
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks.fitting import fit


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
def test_imagenet_stem_is_torchvisions_network(name):
    ours = getattr(backbones, name)(stem="imagenet").eval()
    theirs = getattr(torchvision.models, name)().eval()
    theirs.fc = torch.nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.allclose(ours(images), theirs(images), rtol=1e-4, atol=1e-5)
    assert ours.num_features == {"resnet18": 512, "resnet34": 512, "resnet50": 2048}[name]


def test_resnet_tiny():
    network = backbones.resnet_tiny(channels=1)
    assert network.num_features == 64
    assert [len(network.get_submodule(f"layer{i}")) for i in (1, 2, 3)] == [1, 1, 2]
    assert network(torch.randn(2, 1, 8, 8)).shape == (2, 64)


@pytest.mark.parametrize(("stem", "resolution"), [("cifar", 32), ("stl", 16), ("imagenet", 8)])
def test_stems(stem, resolution):
    network = backbones.resnet18(stem=stem)
    x = network.maxpool(network.bn1(network.conv1(torch.randn(1, 3, 32, 32))))
    assert x.shape[-1] == resolution


def test_cifar_stem_pads_by_one():
    assert backbones.resnet18().conv1.padding == (1, 1)


def test_zero_init_residual_makes_blocks_identities():
    network = backbones.resnet_tiny(channels=1).train()
    last = network.get_submodule("layer3")[-1]
    x = torch.rand(4, 64, 2, 2)
    assert torch.equal(last(x), x)
    random = backbones.resnet_tiny(channels=1, zero_init_residual=False).get_submodule("layer3")[-1]
    assert not torch.allclose(random(x), x)


@pytest.mark.parametrize(("layers", "identity"), [((1, 1, 2), True), ((1, 1, 1), False), ((2, 1), False)])
def test_identity_shortcut_of_the_last_block(layers, identity):
    assert backbones.ResNet(backbones.BasicBlock, layers, 8).has_identity_shortcut is identity


def test_narrow_strided_shortcuts_crash_in_channels_last():
    assert backbones.crashes_in_channels_last(backbones.resnet_tiny(width=8))
    assert not backbones.crashes_in_channels_last(backbones.resnet_tiny(width=16))
    assert not backbones.crashes_in_channels_last(backbones.resnet18())


def test_a_plain_network_of_timm_is_a_backbone():
    """Any module that says its `num_features`."""
    timm = pytest.importorskip("timm", reason="needs the extra `timm`")
    torch.manual_seed(0)
    network = timm.create_model("resnet10t", num_classes=0, in_chans=1)
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-3, batch_size=16)
    method = SimCLR(network, linear, optimizer=recipe)
    before = network.conv1[0].weight.detach().clone()
    fitted = fit(trained=method, max_epochs=1)
    assert fitted.global_step == 3
    assert not torch.equal(network.conv1[0].weight, before)
    assert method(torch.rand(2, 1, 8, 8)).shape == (2, network.num_features)
