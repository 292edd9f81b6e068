"""ResNets with a stem for the image size. Parameter names are torchvision's, so that its weights load."""

import typing
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import place_of
from ssl_lightning.ranges import Count

Stem = Literal["cifar", "stl", "imagenet"]


def stem_layers(stem: Stem, channels: int, width: int) -> tuple[nn.Conv2d, nn.Module]:
    """The first convolution and what pools after it: `cifar` 3×3 stride 1, no pooling; `stl` 3×3 stride 1 and
    max-pooling; `imagenet` 7×7 stride 2 and max-pooling."""
    kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, bias=False)
    return convolution, nn.Identity() if stem == "cifar" else nn.MaxPool2d(3, 2, 1)


class ResNet(nn.Module):
    """Residual network (arXiv 1512.03385) up to global average pooling.

    Args:
        block: residual block.
        layers: number of blocks of each stage; width doubles and resolution halves from stage to stage.
        width: channels of the first stage.
        stem: see `stem_layers`.
        channels: channels of the images.
        zero_init_residual: start every residual branch at zero (its last BatchNorm's weight).

    `num_features` is D, the length of a representation. `has_identity_shortcut` tells whether the last block adds
    its input unchanged, so that channels without a gradient of their own still carry it (DirectCLR needs this).
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        layers: Sequence[int],
        width: Count = 64,
        stem: Stem = "cifar",
        channels: Count = 3,
        zero_init_residual: bool = True,
    ) -> None:
        super().__init__()
        self.conv1, self.maxpool = stem_layers(stem, channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self._stages = [f"layer{i + 1}" for i in range(len(layers))]
        inputs, planes = width, width
        for i, (name, depth) in enumerate(zip(self._stages, layers, strict=True)):
            stage = nn.Sequential()
            for j in range(depth):
                stride, outputs = (2 if i > 0 and j == 0 else 1), planes * block.expansion
                downsample = None
                if stride != 1 or inputs != outputs:
                    downsample = nn.Sequential(
                        nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                    )
                last_block = block(inputs, planes, stride, downsample)
                stage.append(last_block)
                inputs = outputs
            self.add_module(name, stage)
            planes *= 2
        self.num_features = inputs
        self.has_identity_shortcut = last_block.downsample is None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                last = module.bn2 if isinstance(module, BasicBlock) else module.bn3
                nn.init.zeros_(last.weight)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for name in self._stages:
            x = self.get_submodule(name)(x)
        return torch.flatten(x.mean((2, 3)), 1)


def num_features_of(backbone: nn.Module) -> int:
    """D, the length of the representations of a backbone; any module that says its `num_features` will do."""
    if not isinstance(getattr(backbone, "num_features", None), int):
        raise UserError(
            f"backbone: {place_of(type(backbone))} does not say how long its representations are. "
            "Give it an attribute num_features, the D of its output [N, D]."
        )
    return typing.cast(int, backbone.num_features)


def resnet_tiny(
    stem: Stem = "cifar", channels: Count = 3, width: Count = 16, zero_init_residual: bool = True
) -> ResNet:
    """Three stages of 1, 1 and 2 blocks, D = 64 at width 16: trains on two CPU cores, and its last block has an
    identity shortcut, as DirectCLR needs."""
    return ResNet(BasicBlock, (1, 1, 2), width, stem, channels, zero_init_residual)


def resnet18(stem: Stem = "cifar", channels: Count = 3, zero_init_residual: bool = True) -> ResNet:
    """D = 512."""
    return ResNet(BasicBlock, (2, 2, 2, 2), 64, stem, channels, zero_init_residual)


def resnet34(stem: Stem = "cifar", channels: Count = 3, zero_init_residual: bool = True) -> ResNet:
    """D = 512."""
    return ResNet(BasicBlock, (3, 4, 6, 3), 64, stem, channels, zero_init_residual)


def resnet50(stem: Stem = "cifar", channels: Count = 3, zero_init_residual: bool = True) -> ResNet:
    """D = 2048."""
    return ResNet(Bottleneck, (3, 4, 6, 3), 64, stem, channels, zero_init_residual)


def crashes_in_channels_last(module: nn.Module) -> bool:
    """Whether a backward pass on a CPU may write beyond its memory: oneDNN's issue 6035, strided 1×1 convolutions of
    fewer than 16 channels. Wrong gradients are the least that follows."""
    return any(
        isinstance(layer, nn.Conv2d)
        and layer.kernel_size == (1, 1)
        and max(layer.stride) > 1
        and layer.in_channels < 16
        for layer in module.modules()
    )
