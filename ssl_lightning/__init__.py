"""Which self-supervised method, on which part of the data, gives which representation, at what cost?"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what `__getattr__` gives, for type checkers and editors
    from ssl_lightning.data.datamodule import SubsetDataModule as SubsetDataModule
    from ssl_lightning.data.dataset import ImageDataset as ImageDataset
    from ssl_lightning.data.mask import Mask as Mask
    from ssl_lightning.data.sources.cifar import CIFAR10 as CIFAR10
    from ssl_lightning.data.sources.cifar import CIFAR100 as CIFAR100
    from ssl_lightning.data.sources.digits import Digits as Digits
    from ssl_lightning.data.sources.fashion_mnist import FashionMNIST as FashionMNIST
    from ssl_lightning.data.sources.image_folder import ImageFolder as ImageFolder
    from ssl_lightning.data.sources.of_torchvision import TorchvisionDataset as TorchvisionDataset
    from ssl_lightning.data.sources.stl10 import STL10 as STL10
    from ssl_lightning.data.sources.tiny_imagenet import TinyImageNet as TinyImageNet
    from ssl_lightning.data.view import View as View
    from ssl_lightning.data.views import Augment as Augment
    from ssl_lightning.errors import UserError as UserError
    from ssl_lightning.methods.directclr import DirectCLR as DirectCLR
    from ssl_lightning.methods.gessl import GeSSL as GeSSL
    from ssl_lightning.methods.method import Objective as Objective
    from ssl_lightning.methods.method import SSLMethod as SSLMethod
    from ssl_lightning.methods.simclr import SimCLR as SimCLR
    from ssl_lightning.methods.supervised import Supervised as Supervised
    from ssl_lightning.models.backbones import resnet18 as resnet18
    from ssl_lightning.models.backbones import resnet34 as resnet34
    from ssl_lightning.models.backbones import resnet50 as resnet50
    from ssl_lightning.models.backbones import resnet_tiny as resnet_tiny
    from ssl_lightning.models.encoder import Encoder as Encoder
    from ssl_lightning.optim.recipe import OptimizerRecipe as OptimizerRecipe
    from ssl_lightning.reports.frame import load_runs as load_runs
    from ssl_lightning.runs.loading import load_encoder as load_encoder

    __version__: str

_HOMES = {
    "data.datamodule": ["SubsetDataModule"],
    "data.dataset": ["ImageDataset"],
    "data.mask": ["Mask"],
    "data.sources.cifar": ["CIFAR10", "CIFAR100"],
    "data.sources.digits": ["Digits"],
    "data.sources.fashion_mnist": ["FashionMNIST"],
    "data.sources.image_folder": ["ImageFolder"],
    "data.sources.of_torchvision": ["TorchvisionDataset"],
    "data.sources.stl10": ["STL10"],
    "data.sources.tiny_imagenet": ["TinyImageNet"],
    "data.view": ["View"],
    "data.views": ["Augment"],
    "errors": ["UserError"],
    "methods.directclr": ["DirectCLR"],
    "methods.gessl": ["GeSSL"],
    "methods.method": ["Objective", "SSLMethod"],
    "methods.simclr": ["SimCLR"],
    "methods.supervised": ["Supervised"],
    "models.backbones": ["resnet18", "resnet34", "resnet50", "resnet_tiny"],
    "models.encoder": ["Encoder"],
    "optim.recipe": ["OptimizerRecipe"],
    "reports.frame": ["load_runs"],
    "runs.loading": ["load_encoder"],
}
_PUBLIC = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_PUBLIC]


if not TYPE_CHECKING:  # to whom any name would be right

    def __getattr__(name: str) -> Any:
        """Late: importing the package imports neither torch nor lightning."""
        if name in _PUBLIC:
            return getattr(importlib.import_module(f"ssl_lightning.{_PUBLIC[name]}"), name)
        if name == "__version__":
            from ssl_lightning.versions import version_of

            return version_of("ssl-lightning")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
