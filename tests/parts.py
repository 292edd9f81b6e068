"""Components that a config may name in order to go wrong."""

from typing import Any, ClassVar

import lightning as L
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import ResNet, Stem, resnet_tiny


def resnet_without_shortcut(
    stem: Stem = "cifar", channels: int = 3, width: int = 16, zero_init_residual: bool = True
) -> ResNet:
    """Its last block halves the resolution, so it cannot add its input unchanged."""
    return ResNet(BasicBlock, (1, 1, 1), width, stem, channels, zero_init_residual)


def small_resnet(stem: Stem = "cifar", channels: int = 3, width: int = 16, zero_init_residual: bool = True) -> ResNet:
    """A network of the package, from a function outside of it."""
    return resnet_tiny(stem=stem, channels=channels, width=width, zero_init_residual=zero_init_residual)


def unannotated(stem="cifar", channels=3, width=16, zero_init_residual=True):  # type: ignore[no-untyped-def]
    return resnet_tiny(stem=stem, channels=channels, width=width, zero_init_residual=zero_init_residual)


class Unfinished(L.Callback):
    """Takes anything, and cannot be made."""

    def __init__(self, thing=None):  # type: ignore[no-untyped-def]
        self.thing = {}["nothing"]


class FaultyLoss(SimCLR):
    """Fails in torch, in its loss."""

    def ssl_loss(self, batch: Any, gather: Any, draw: Any) -> Any:
        return torch.zeros(3) @ torch.zeros(4)


class Poison(L.Callback):
    """Puts a NaN into the first convolution before the optimizer step of this number, counted from 1."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step + 1 == self.step:
            with torch.no_grad():
                pl_module.get_parameter("backbone.conv1.weight").view(-1)[0] = torch.nan


class Stop(L.Callback):
    """Ends training after the optimizer step of this number, as Lightning's own callbacks do."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.should_stop = True


class SeenTypes(L.Callback):
    """Keeps what types of numbers the first convolution makes in training, and of what type its weights are."""

    seen: ClassVar[set[tuple[torch.dtype, torch.dtype]]] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        def look(convolution: Any, inputs: Any, output: torch.Tensor) -> None:
            self.seen.add((output.dtype, convolution.weight.dtype))

        self.hook = pl_module.get_submodule("backbone.conv1").register_forward_hook(look)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.hook.remove()


class Faulty(nn.Module):
    """Cannot be made: by an error of its own, or `deep` in torch."""

    def __init__(self, deep: bool) -> None:
        super().__init__()
        if deep:
            torch.zeros(3) @ torch.zeros(4)
        self.value = {}["nothing"]
