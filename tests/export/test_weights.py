"""Other libraries load the weights under their own names, and compute the same."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.export.weights import (
    FILE,
    lines_for_timm,
    lines_for_torchvision,
    lines_for_us,
    loading,
    write_weights,
)
from ssl_lightning.models import backbones
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.of_timm import timm_network
from ssl_lightning.models.vit import VisionTransformer
from ssl_lightning.models.wide_resnet import WideResNet

LIBRARIES = {"torchvision": lines_for_torchvision, "timm": lines_for_timm}
STEMS = [
    *((name, "imagenet", 3) for name in ("resnet18", "resnet34", "resnet50")),
    *((name, "cifar", 3) for name in ("resnet34", "resnet50")),
    *(("resnet18", stem, channels) for stem, channels in (("cifar", 1), ("stl", 3), ("imagenet", 1))),
]


def loaded(lines: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """The network of the lines, which are typed where the weights lie."""
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec("\n".join(lines), names)
    network = names["network"]
    assert isinstance(network, nn.Module)
    assert not network.training
    return network


def trained(network: nn.Module) -> nn.Module:
    """As if: no statistic and no weight is what it begins with."""
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        if value.is_floating_point() and value.ndim == 1:
            value.copy_(torch.rand(value.shape, generator=generator) / 2 + 0.5)
    return network.eval()


@pytest.mark.one_in(8)
@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize(("name", "stem", "channels"), STEMS)
def test_a_strict_load_gives_the_same_network(library, name, stem, channels, tmp_path, monkeypatch):
    pytest.importorskip(library)
    backbone = trained(getattr(backbones, name)(stem=stem, channels=channels))
    backbone.to(memory_format=torch.channels_last)
    write_weights(backbone.state_dict(), tmp_path / FILE, {})
    other = loaded(loading(LIBRARIES[library](backbone)), tmp_path, monkeypatch)
    images = torch.randn(2, channels, 40, 40, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(other(images), backbone(images), rtol=1e-4, atol=1e-5)
    assert type(other).__module__.startswith(library)


@pytest.mark.parametrize(
    "make",
    [
        lambda: VisionTransformer(16, 1, patch_size=4, width=12, depth=2),
        lambda: timm_network("vit_tiny_patch16_224", 16, 1, {"patch_size": 4, "depth": 1}),
        lambda: timm_network("resnet10t", 16, 1),
    ],
    ids=["vit_tiny", "vit of timm", "resnet of timm"],
)
def test_networks_of_timm(make, tmp_path, monkeypatch):
    pytest.importorskip("timm")
    backbone = trained(make())
    write_weights(backbone.state_dict(), tmp_path / FILE, {})
    other = loaded(loading(lines_for_timm(backbone)), tmp_path, monkeypatch)
    images = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(other(images), backbone(images), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match=r"format is torchvision, but the backbone is .* and torchvision gets only"):
        lines_for_torchvision(backbone)


@pytest.mark.parametrize(
    "backbone", [resnet_tiny(), resnet_tiny(width=64), WideResNet(10, 1), nn.Sequential(OrderedDict(a=nn.Flatten()))]
)
@pytest.mark.parametrize("library", LIBRARIES)
def test_what_other_libraries_do_not_have(library, backbone):
    with pytest.raises(UserError, match=rf"format is {library}, but the backbone is .*Choose format=safetensors"):
        LIBRARIES[library](backbone)


def test_our_own_names(tmp_path, monkeypatch):
    backbone = trained(resnet_tiny(width=8, channels=1))
    write_weights(backbone.state_dict(), tmp_path / FILE, {})
    described = {"_target_": "ssl_lightning.models.backbones.resnet_tiny", "width": 8, "channels": 1, "stem": "cifar"}
    other = loaded(loading(lines_for_us(described)), tmp_path, monkeypatch)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(other(images), backbone(images))


@pytest.mark.parametrize(
    "described",
    [
        {"_target_": "torch.nn.Identity", "a=print(1)\nb": 1},
        {"_target_": "torch.nn.Identity()\nx.y", "a": 1},
        {"_target_": "torch.nn.Sequential", "a": {"_target_": "torch.nn.Identity"}},
        {"_target_": "torch.nn.Sequential", "a": {"b": [{"_target_": "torch.nn.Identity"}]}},
        {},
        None,
    ],
)
def test_a_foreign_config_writes_no_code_of_its_own(described):
    assert lines_for_us(described) == ["network = ...  # the backbone, made as the run's config.yaml says"]


def test_text_in_a_foreign_config_stays_text():
    (_, line) = lines_for_us({"_target_": "torch.nn.Identity", "a": "'); print(1) #\n"})
    assert line == """network = Identity(a="'); print(1) #\\n")"""


def test_weights_of_shared_memory(tmp_path):
    from safetensors.torch import load_file

    value = torch.arange(3.0)
    write_weights({"a": value, "b": value[1:]}, tmp_path / FILE, {"run": "x"})
    found = load_file(tmp_path / FILE)
    assert torch.equal(found["a"], value)
    assert torch.equal(found["b"], value[1:])


def test_the_same_weights_make_the_same_bytes(tmp_path):
    state = {f"{name}é": torch.randn(3, 2) for name in "bac"}
    metadata = {"format": "pt", "run": "é, mine", "of": "x"}
    for number in range(9):
        write_weights(state, tmp_path / f"{number}.safetensors", metadata)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    with safe_open(tmp_path / "0.safetensors", "pt") as file:
        assert file.metadata() == metadata
        assert all(torch.equal(file.get_tensor(name), value) for name, value in state.items())
