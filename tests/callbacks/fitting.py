"""A tiny training in this process, with the callbacks under test."""

from typing import Any

import lightning as L
import numpy as np
import torch

from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.views import Augment, View
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import linear
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.subsets.random import Random
from ssl_lightning.subsets.rule import Subset
from tests.data.synthetic import InMemory, synthetic_images


def dataset(num_images: int = 48, num_classes: int = 3) -> InMemory:
    """Grey images of 8×8 pixels whose classes can be told apart."""
    images, labels = synthetic_images(num_images, num_classes, 1, 8)
    return InMemory(
        name="tiny",
        image_size=8,
        channels=1,
        num_classes=num_classes,
        mean=[0.5],
        std=[0.25],
        validation_fraction=0.25,
        images=images,
        labels=labels,
    )


def method() -> SimCLR:
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    return SimCLR(resnet_tiny(width=4, channels=1), linear, optimizer=recipe)


def trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    defaults = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "log_every_n_steps": 2,
    }
    return L.Trainer(callbacks=list(callbacks), **(defaults | options))


def module(
    augment: Augment, data: InMemory | None = None, fraction: float = 1.0, batch_size: int = 16, seed: int = 0
) -> SubsetDataModule:
    """A random part of the images."""
    data = data or dataset()
    mask = Subset(Random(), fraction).cut(Random().ranking(data))
    return SubsetDataModule(data, mask, augment=augment, batch_size=batch_size, seed=seed)


def fit(
    *callbacks: L.Callback,
    data: InMemory | None = None,
    fraction: float = 1.0,
    ckpt: Any = None,
    trained: SSLMethod | None = None,
    augment: Augment | None = None,
    **options: Any,
) -> L.Trainer:
    """Trains for two epochs of 3 steps unless told otherwise; returns the trainer."""
    augment = augment or Augment([View(copies=2, crop_scale=(0.5, 1.0))])
    fitting = trainer(*callbacks, **({"max_epochs": 2} | options))
    fitting.fit(trained or method(), module(augment, data, fraction), ckpt_path=ckpt, weights_only=True)
    return fitting


def weights(fitted: L.Trainer) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in fitted.lightning_module.state_dict().items()}


def relabelled(data: InMemory, positions: np.ndarray) -> InMemory:
    """The same images with other labels at some positions; what is held out stays the same."""
    labels = data.labels.copy()
    labels[positions] = (labels[positions] + 1) % data.num_classes
    other = dataset()
    other.labels = labels
    held_out = data.validation()
    other.validation = lambda: held_out
    return other
