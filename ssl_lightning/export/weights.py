"""Weights by the names that a library loads, and the Python that loads them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing
from ssl_lightning.models.backbones import ResNet, Stem
from ssl_lightning.models.vit import VisionTransformer

FILE = "model.safetensors"
RESNETS: dict[tuple[type[nn.Module], tuple[int, ...]], str] = {
    (BasicBlock, (2, 2, 2, 2)): "resnet18",
    (BasicBlock, (3, 4, 6, 3)): "resnet34",
    (Bottleneck, (3, 4, 6, 3)): "resnet50",
}
"""Networks of torchvision and timm, of 64 channels in the first stage, by block and depths of the stages."""


class Known(NamedTuple):
    """A ResNet as other libraries name it."""

    name: str
    stem: Stem
    channels: int


def known(backbone: nn.Module, library: str) -> Known:
    """
    Raises:
        UserError: the library has no such network.
    """
    found = None
    if isinstance(backbone, ResNet):
        stages = [stage for name, stage in backbone.named_children() if name.startswith("layer")]
        depths = tuple(len(stage) for stage in stages if isinstance(stage, nn.Sequential))
        width, block = backbone.conv1.out_channels, type(next(iter(stages[0].children())))
        found = RESNETS.get((block, depths)) if width == 64 else None
        what = f"a ResNet of stages of {', '.join(map(str, depths))} blocks, {width} channels in the first"
    else:
        what = f"{type(backbone).__module__}.{type(backbone).__qualname__}"
    if found is None or not isinstance(backbone, ResNet):
        names = [*RESNETS.values(), *(["vit_tiny", "its own"] if library == "timm" else [])]
        raise UserError(
            f"format is {library}, but the backbone is {what}, and {library} gets only {', '.join(names)}. "
            "Choose format=safetensors, whose names are this package's, or format=onnx."
        )
    stem: Stem = "imagenet" if backbone.conv1.kernel_size == (7, 7) else "stl"
    return Known(found, "cifar" if isinstance(backbone.maxpool, nn.Identity) else stem, backbone.conv1.in_channels)


def lines_for_torchvision(backbone: nn.Module) -> list[str]:
    """Make torchvision's network of this backbone's names and shapes, which ends before the classifier."""
    found = known(backbone, "torchvision")
    return [
        "import torch",
        "import torchvision",
        f"network = torchvision.models.{found.name}()",
        *_stem(found),
        "network.fc = torch.nn.Identity()  # there is no classifier",
    ]


def lines_for_timm(backbone: nn.Module) -> list[str]:
    """Make timm's."""
    if isinstance(arguments := getattr(backbone, "timm_arguments", None), dict):
        return ["import timm", f"network = timm.create_model(**{arguments!r})"]
    if isinstance(backbone, VisionTransformer):
        blocks = backbone.blocks
        own = {
            "img_size": backbone.image_size,
            "patch_size": backbone.patch_size,
            "in_chans": backbone.patch_embed.proj.in_channels,
            "embed_dim": backbone.num_features,
            "depth": len(blocks),
            "num_heads": backbone.heads,
        }
        fixed = {"num_classes": 0, "class_token": False, "global_pool": "avg", "fc_norm": False}
        return ["import timm", f"network = timm.models.VisionTransformer(**{own | fixed!r})"]
    found = known(backbone, "timm")
    made = f'network = timm.create_model("{found.name}", num_classes=0)  # there is no classifier'
    return ["import timm", "import torch", made, *_stem(found)]


def loading(made: Sequence[str]) -> list[str]:
    """Lines that make a network, and load into it what `write_weights` has written."""
    return [
        "from safetensors.torch import load_file",
        *made,
        f'network.load_state_dict(load_file("{FILE}"))  # strict: every name and shape fits',
        "network.eval()  # normalised images [N, C, H, W] -> representations [N, D]",
    ]


def _stem(found: Known) -> list[str]:
    """What both libraries' ResNets begin with, where it is not what they are made with."""
    lines = []
    if found.stem != "imagenet" or found.channels != 3:
        shape = "7, stride=2, padding=3" if found.stem == "imagenet" else "3, padding=1"
        lines.append(f"network.conv1 = torch.nn.Conv2d({found.channels}, 64, {shape}, bias=False)")
    if found.stem == "cifar":
        lines.append("network.maxpool = torch.nn.Identity()")
    return lines


def lines_for_us(described: Any) -> list[str]:
    """Make the backbone of a run's config again.

    Args:
        described: its node in the config, whose target was looked at; it may be somebody else's all the same.
    """
    node = described if isinstance(described, Mapping) else {}
    module, _, name = str(node.get("_target_", "")).rpartition(".")
    given = {str(key): value for key, value in node.items() if not str(key).startswith("_")}
    if not (
        module
        and all(_plain(value) for value in given.values())
        and all(part.isidentifier() for part in [*module.split("."), name, *given])
    ):
        return ["network = ...  # the backbone, made as the run's config.yaml says"]
    return [f"from {module} import {name}", f"network = {name}({', '.join(f'{k}={v!r}' for k, v in given.items())})"]


def _plain(value: Any) -> bool:
    """Whether its `repr` makes it again: words, numbers, and lists and mappings of these that are no components."""
    if isinstance(value, Mapping):
        return "_target_" not in value and all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return type(value) in (bool, int, float, str, type(None))


def write_weights(state: Mapping[str, Tensor], file: Path, metadata: Mapping[str, str]) -> None:
    """On the CPU, in rows; tensors that share memory are written once each. The same weights make the same bytes:
    safetensors writes metadata in any order."""
    from safetensors.torch import save

    own = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    with replacing(file) as temporary:
        content = save(own, dict(metadata))
        end = 8 + int.from_bytes(content[:8], "little")  # of the header, JSON behind its length
        header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        encoded = header.encode()
        encoded += b" " * (-len(encoded) % 8)
        temporary.write_bytes(len(encoded).to_bytes(8, "little") + encoded + content[end:])
