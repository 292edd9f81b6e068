"""Weights of other frameworks fit, or are refused with what to give."""

import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.sources import TimmEncoder, TorchvisionEncoder


def encoder(weights: str, architecture: str = "resnet18") -> nn.Module:
    settings = {"size": 32, "mean": [0.5] * 3, "std": [0.2] * 3}
    return TorchvisionEncoder(architecture=architecture, weights=weights, **settings).load().network


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return resnet18(num_classes=7).state_dict()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("wrap", [None, "state_dict", "model"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "model.encoder."])
def test_weights_under_a_prefix(tmp_path, state, prefix, wrap):
    file = tmp_path / "epoch=9.ckpt"
    prefixed = {prefix + name: value for name, value in state.items()} | {"projector.0.weight": torch.zeros(3, 3)}
    torch.save(prefixed if wrap is None else {wrap: prefixed, "epoch": 9}, file)
    assert torch.equal(encoder(str(file)).conv1.weight, state["conv1.weight"])


def test_of_two_encoders_the_first_is_taken_and_said_to_be(tmp_path, state, capsys):
    both = {f"module.{side}.{name}": value + k for k, side in enumerate("qk") for name, value in state.items()}
    torch.save(both, tmp_path / "moco.pth")
    assert torch.equal(encoder(str(tmp_path / "moco.pth")).conv1.weight, state["conv1.weight"])
    assert "the weights under 'module.q.' are taken, and not those under ['module.k.']" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "architecture", "said"),
    [
        (b"PK\3\4", "resnet18", "cannot be read as weights: A file of weights or arrays is damaged"),
        (nn.Linear(2, 2), "resnet18", "holds more than weights, or none; nothing in it was executed"),
        ([1, 2], "resnet18", "holds no bn1.bias, and so on: 120 of 122 do not fit. Give the encoder.architecture"),
        (None, "resnet50", "layer1.0.conv1.weight of shape [64, 64, 3, 3] and not [64, 64, 1, 1], and so on: 221"),
    ],
    ids=["a part", "a module", "a list", "another network"],
)
def test_other_files_are_refused(tmp_path, state, content, architecture, said):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(state if content is None else content, file)
    with pytest.raises(UserError) as refused:
        encoder(str(file), architecture)
    assert str(refused.value).startswith(f"{file} ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_vision_transformers_for_images_of_another_size(tmp_path):
    timm = pytest.importorskip("timm", reason="timm is not installed: pip install 'ssl-lightning[timm]'")
    name, file = "vit_tiny_patch16_224", str(tmp_path / "vit.pth")
    torch.save({"backbone." + k: v for k, v in timm.create_model(name, img_size=96).state_dict().items()}, file)
    settings = {"architecture": name, "pretrained": False}
    with pytest.raises(UserError, match=r"pos_embed of shape \[1, 37, 192\] and not \[1, 197, 192\]"):
        TimmEncoder(**settings, checkpoint=file, size=224).load()
    with pytest.raises(UserError, match=rf"encoder.size is 32, but {name} cannot .*224.* Give the encoder.size that"):
        TimmEncoder(**settings, checkpoint=None, size=32).load()
