"""Networks of every kind leave as ONNX graphs that give what the encoder gives, for any number of images."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.export.onnx import write_onnx
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.models.of_timm import timm_network
from ssl_lightning.models.vit import VisionTransformer
from ssl_lightning.models.wide_resnet import WideResNet

SIDE = 32

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vit": lambda: VisionTransformer(image_size=SIDE, channels=3, depth=2),
    "wide_resnet": lambda: WideResNet(depth=16, widening=1, stem="cifar", channels=3),
    "convnext of timm": lambda: timm_network("convnext_atto", SIDE, 3),
    "vit of timm": lambda: timm_network("vit_tiny_patch16_224", SIDE, 3, {"patch_size": 4}),
}


def encoder(name: str) -> Encoder:
    """With weights at which every part of the network counts: those that begin at zero do not."""
    if "timm" in name:
        pytest.importorskip("timm", reason="the extra timm is not installed")
    torch.manual_seed(0)
    network = NETWORKS[name]()
    for values in network.parameters():
        nn.init.normal_(values, std=0.2)
    return Encoder(network, [0.4, 0.5, 0.6], [0.2, 0.3, 0.4])


@pytest.mark.nightly
@pytest.mark.parametrize("name", NETWORKS)
def test_graphs_give_the_representations(tmp_path: Path, name: str):
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    made = encoder(name)
    write_onnx(made, SIDE, tmp_path / "model.onnx")
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"))
    for n in (1, 5):
        images = torch.rand(n, 3, SIDE, SIDE)
        (found,) = session.run(None, {"images": images.numpy()})
        assert found.std() > 0.01
        torch.testing.assert_close(torch.from_numpy(found), made(images), rtol=1e-3, atol=1e-3)


@pytest.mark.nightly
def test_a_graph_that_gives_something_else_is_not_written(tmp_path: Path):
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

    class Changing(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3)) + float(torch.compiler.is_exporting())

    with pytest.raises(UserError, match="The exported graph differs from the encoder"):
        write_onnx(Encoder(Changing(), [0.5] * 3, [0.5] * 3), SIDE, tmp_path / "model.onnx")
    assert not [*tmp_path.iterdir()]
