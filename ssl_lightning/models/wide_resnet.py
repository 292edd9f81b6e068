"""Wide residual networks (arXiv 1605.07146)."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import relu

from ssl_lightning.errors import UserError
from ssl_lightning.models.backbones import Stem, stem_layers
from ssl_lightning.ranges import Count


class WideBlock(nn.Module):
    """Two 3×3 convolutions, each after BatchNorm and ReLU, added to the input. Where the shape changes, the shortcut is
    a 1×1 convolution of the activated input."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d s t"]:
        activated = relu(self.bn1(x))
        branch = self.conv2(relu(self.bn2(self.conv1(activated))))
        return branch + (x if self.shortcut is None else self.shortcut(activated))


class WideResNet(nn.Module):
    """WRN-`depth`-`widening` up to global average pooling: D = 64 · widening. (torchvision's `wide_resnet50_2` is
    another network.)

    Args:
        depth: number of convolutions of the paper's count, 6n + 4: n blocks in each of three stages.
        widening: k, by which each stage is wider than the thinnest: 16k, 32k, 64k channels.
        stem: as of a ResNet; `cifar` is the paper's.
        channels: channels of the images.
        zero_init_residual: start every residual branch at zero (its last convolution).

    `has_identity_shortcut`: the last block adds its input unchanged; the BatchNorm and ReLU that follow act on each
    channel alone. True from depth 16 on.

    Raises:
        UserError: there is no network of this depth.
    """

    def __init__(
        self,
        depth: Count = 28,
        widening: Count = 10,
        stem: Stem = "cifar",
        channels: Count = 3,
        zero_init_residual: bool = True,
    ) -> None:
        super().__init__()
        if depth < 10 or depth % 6 != 4:
            raise UserError(
                f"backbone.depth is {depth}, but a wide ResNet has 6n + 4 layers, n blocks in each of its three "
                "stages. Choose 16, 22, 28, 34 or 40."
            )
        self.conv1, self.maxpool = stem_layers(stem, channels, 16)
        self.stages = nn.Sequential()
        inputs = 16
        for i in range(3):
            outputs = 16 * widening * 2**i
            for j in range((depth - 4) // 6):
                last = WideBlock(inputs, outputs, 2 if i > 0 and j == 0 else 1)
                self.stages.append(last)
                inputs = outputs
        self.norm = nn.BatchNorm2d(inputs)
        self.num_features = inputs
        self.has_identity_shortcut = last.shortcut is None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for module in self.modules():
            if zero_init_residual and isinstance(module, WideBlock):
                nn.init.zeros_(module.conv2.weight)

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        x = self.stages(self.maxpool(self.conv1(images)))
        return torch.flatten(relu(self.norm(x)).mean((2, 3)), 1)
