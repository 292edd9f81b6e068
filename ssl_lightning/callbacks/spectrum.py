"""How many dimensions an encoder uses while it is trained."""

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.loading import normalise
from ssl_lightning.devices import solving_device
from ssl_lightning.lightning_internals import not_compiled
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.metrics import Alignment, LiDAR, Uniformity, ranks
from ssl_lightning.metrics.moments import Moments
from ssl_lightning.ranges import Count

IMAGES_AT_ONCE = 256
"""Pairs of different images, of which uniformity is a mean, are those within so many."""
COLLAPSED = 1e-7
"""Share of the largest singular value below which a dimension counts as collapsed."""


class Spectra(L.Callback):
    """Measures the spectra of what a method maps images to (`SSLMethod.watched`), every few epochs and after the last
    step, on clean images of the validation part of train; where no two have labels, on any of train.

    Columns `spectrum/<what>/<metric>`, `<what>` being `r`, `z` and others that a method names. Ranks are those of the
    images as they are: `rankme`, `effective_rank`, `participation_ratio`, `stable_rank`, `nesum`, `alpha_req`, and
    `collapsed`, how many singular values are below 1e-7 of the largest. `alignment`, `uniformity` and `lidar` are those
    of views of the largest size that training makes, the same ones each time, where there are two. Each measurement is
    logged at its step, in a row of its own.

    The first process measures, with its own running statistics, which are those of checkpoints; the others wait for
    it at their next step. Training stays what it is to the last bit, and the seconds are no part of its own.

    Args:
        every_n_epochs: how often, beside the last step.
        max_images: at most; evenly spread over those there are.
    """

    changes_training: ClassVar[bool] = False

    def __init__(self, every_n_epochs: Count = 1, max_images: Count = 2048) -> None:
        self.every_n_epochs = every_n_epochs
        self.max_images = max_images

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, SubsetDataModule)
        self._data = data
        if not trainer.is_global_zero:
            return
        split = data.dataset.clean()
        positions = data.dataset.held_out().nonzero().flatten()
        if len(positions) < 2:
            positions = torch.arange(len(split.labels))
        number = min(self.max_images, len(positions))
        self._images = split.images[positions[torch.arange(number) * len(positions) // number]]

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SSLMethod)
        if pl_module.batches % pl_module.batches_a_step:
            return
        due = trainer.is_last_batch and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not due and pl_module.steps != pl_module.clock.planned:
            return
        outputs["row"] = True  # in all processes, which log together
        if not trainer.is_global_zero:
            return
        if pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)  # what is computed until here is training
        started = time.monotonic()
        with _undisturbed(pl_module):
            measured = self.measure(pl_module, self._data)
        one = torch.ones((), device=pl_module.device)
        outputs.setdefault("averages", {}).update({name: (one * value, one) for name, value in measured.items()})
        outputs["aside"] = outputs.get("aside", 0.0) + time.monotonic() - started

    def measure(self, method: SSLMethod, data: SubsetDataModule) -> dict[str, float]:
        """All columns, of a method in evaluation mode; those that are no number left out."""
        mean, std = data.mean.to(method.device), data.std.to(method.device)
        augment = copy.copy(data.augment)
        augment.compiled = False  # for batches of another size
        generator = torch.Generator().manual_seed(0)
        device = solving_device(method.device)
        of_images: dict[str, Moments] = {}
        of_views: dict[str, dict[str, Alignment | LiDAR | Uniformity]] = {}
        for images in self._images.split(IMAGES_AT_ONCE):
            images = images.to(method.device)
            for name, features in _watched(method, normalise(images, mean, std)).items():
                if name not in of_images:
                    of_images[name] = Moments(features.shape[1], device)
                of_images[name].update(features.to(device))
            views = augment(images, mean, std, generator, data.dataset.image_size)[0]
            if len(views) < 2 or len(images) < 2:
                continue
            for name, features in _watched(method, views.flatten(0, 1)).items():
                if name not in of_views:
                    of_views[name] = _metrics_of_views(features.shape[1], device)
                for metric in of_views[name].values():
                    metric.update(features.unflatten(0, views.shape[:2]).to(device))
        values = {f"spectrum/{name}/{key}": v for name, m in of_images.items() for key, v in ranks_of(m).items()}
        for name, metrics in of_views.items():
            values |= {f"spectrum/{name}/{key}": float(metric.compute()) for key, metric in metrics.items()}
        return {name: value for name, value in values.items() if math.isfinite(value)}


def ranks_of(moments: Moments) -> dict[str, float]:
    """All that a spectrum says in a number."""
    plain, centred = moments.singular_values(centred=False), moments.singular_values(centred=True)
    eigenvalues = centred.square() / moments.count
    return {
        "rankme": ranks.rankme(plain),
        "effective_rank": ranks.effective_rank(centred),
        "participation_ratio": ranks.participation_ratio(eigenvalues),
        "stable_rank": ranks.stable_rank(plain),
        "nesum": ranks.nesum(eigenvalues),
        "alpha_req": ranks.alpha_req(eigenvalues),
        "collapsed": float((plain < COLLAPSED * plain[0]).sum()) if plain.any() else float(len(plain)),
    }


def _metrics_of_views(num_features: int, device: torch.device) -> dict[str, Alignment | LiDAR | Uniformity]:
    alone: Any = {"sync_on_compute": False}  # other processes measure nothing
    return {
        "alignment": Alignment(**alone).to(device),
        "uniformity": Uniformity(**alone).to(device),
        "lidar": LiDAR(num_features, **alone).to(device),
    }


def _watched(method: SSLMethod, images: Float[Tensor, "n c h w"]) -> dict[str, Float[Tensor, "n _d"]]:
    representations = method(images)
    return method.watched(representations, method.project(representations))


@contextlib.contextmanager
def _undisturbed(method: SSLMethod) -> Iterator[None]:
    """In evaluation mode, without gradients, and as it was written: then each part is again in the mode that it was in,
    compiled as before, and the global generators are where they were."""
    modes = [(part, part.training) for part in method.modules()]
    method.eval()
    try:
        with torch.no_grad(), Draw().seeded(method.device), not_compiled(method):
            yield
    finally:
        for part, training in modes:
            part.training = training
