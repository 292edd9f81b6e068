"""Small backbones and batches for tests of methods."""

import functools

import torch
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import mlp


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
