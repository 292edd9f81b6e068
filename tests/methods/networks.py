"""Small backbones and batches for tests of methods."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.methods.barlow_twins import BarlowTwins
from ssl_lightning.methods.byol import BYOL
from ssl_lightning.methods.dino import DINO
from ssl_lightning.methods.lejepa import LeJEPA
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.methods.moco import MoCo
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.methods.simsiam import SimSiam
from ssl_lightning.methods.swav import SwAV
from ssl_lightning.methods.vicreg import VICReg
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import mlp, predictor


class SmoothBackbone(nn.Module):
    """Two linear maps with tanh between: smooth, without batch statistics, few parameters."""

    num_features = 5
    has_identity_shortcut = True

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 5))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def smooth_simclr(seed: int = 0, temperature: float = 0.5) -> SimCLR:
    """In float64, without projector."""
    torch.manual_seed(seed)
    return SimCLR(SmoothBackbone(), lambda _: nn.Identity(), temperature).double()


def tiny_simclr(seed: int = 0, **settings) -> SimCLR:
    """resnet_tiny of width 8 on grey images, with BatchNorm."""
    torch.manual_seed(seed)
    projector = functools.partial(mlp, hidden=32, outputs=16)
    return SimCLR(resnet_tiny(channels=1, width=8), projector, **settings)


def batch_of(*views: Tensor) -> Batch:
    """Views of each size, with labels and positions."""
    positions = torch.arange(views[0].shape[1])
    return Batch(views, positions % 3, positions)


def smooth_views(num_images: int, num_views: int = 2, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(num_images, 1, 2, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(num_views, num_images, 1, 2, 2, generator=generator, dtype=torch.float64)
    return images + 0.5 * noise


def tiny_views(num_images: int, num_views: int = 2, seed: int = 1) -> Tensor:
    return torch.randn(num_views, num_images, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


def gradients(method: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in method.parameters()]


def smooth_predictor(length: int) -> nn.Module:
    return nn.Sequential(nn.Linear(length, 4), nn.Tanh(), nn.Linear(4, length))


def _methods(backbone, projector, predictor) -> dict[str, Callable[[], SSLMethod]]:
    """Each method of its own file that has a projector, by its name in conf/method."""
    return {
        "simclr": lambda: SimCLR(backbone(), projector, 0.5),
        "byol": lambda: BYOL(backbone(), projector, predictor, momentum=0.9),
        "simsiam": lambda: SimSiam(backbone(), projector, predictor),
        "moco": lambda: MoCo(backbone(), projector, momentum=0.9, queue=48, temperature=0.2),
        "barlow_twins": lambda: BarlowTwins(backbone(), projector),
        "vicreg": lambda: VICReg(backbone(), projector),
        "lejepa": lambda: LeJEPA(backbone(), projector, directions=16),
        "swav": lambda: SwAV(backbone(), projector, prototypes=6, frozen=0.2),
        "dino": lambda: DINO(backbone(), projector, outputs=6, momentum=0.9, frozen=0.2),
    }


def _seeded(make: Callable[[], SSLMethod], double: bool) -> Callable[[], SSLMethod]:
    def made() -> SSLMethod:
        torch.manual_seed(0)
        return make().double() if double else make()

    return made


SMOOTH = {
    name: _seeded(make, double=True)
    for name, make in _methods(SmoothBackbone, lambda d: nn.Linear(d, 5), smooth_predictor).items()
}
"""In float64, smooth, and without batch statistics."""
TINY = {
    name: _seeded(make, double=False)
    for name, make in _methods(
        lambda: resnet_tiny(channels=1, width=8),
        functools.partial(mlp, hidden=32, outputs=16),
        functools.partial(predictor, hidden=8),
    ).items()
}
"""With resnet_tiny of width 8 on grey images, and BatchNorm."""
