"""Pretraining sees a subset of a dataset, as views made on the device."""

import sys
from functools import cached_property
from typing import Any

import lightning as L
import torch
from torch import Tensor

from ssl_lightning.data.ahead import Ahead
from ssl_lightning.data.alternation import Alternation
from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.batches import check_batches
from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import Loader, ResidentLoader, StreamedLoader
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.resolution import Resolution
from ssl_lightning.data.sampler import BatchSampler, Round, seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.optim.clock import Clock


class SubsetDataModule(L.LightningDataModule):
    """Trains on the masked positions of a dataset. The number of the next batch is that of the method.

    Without a trainer, `train_dataloader()` gives stored images, and `on_after_batch_transfer(batch)` the views of the
    batch that was given last: those that a training with this seed would see. Checkpoints of training hold the images'
    side and normalisation, for `load_encoder`.

    Args:
        dataset: where images come from.
        mask: which of its training images pretraining sees; None: all of them.
        augment: how an image becomes views.
        batch_size: images per optimizer step, over all processes.
        seed: of order, augmentation, and all that a loss draws.
        resolution: size of the views over training; by default that of the dataset's images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        mask: Mask | None = None,
        *,
        augment: Augment,
        batch_size: int,
        seed: int = 0,
        resolution: Resolution | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self._given = mask
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.resolution = resolution
        self._loader: Loader | None = None
        self._weights: Tensor | None = None  # of all images, in this round; None: alike
        self._alternation: Alternation | None = None
        self._given_by_hand = -1  # number of the batch that was given last without a trainer
        self.mean = torch.tensor(dataset.mean, dtype=torch.float32)
        self.std = torch.tensor(dataset.std, dtype=torch.float32)

    @cached_property
    def mask(self) -> Mask:
        """Which images pretraining sees; after `prepare_data`."""
        return Mask.full(len(self.dataset.train().labels)) if self._given is None else self._given

    def prepare_data(self) -> None:
        """Once, in one process: fetch what all processes will read."""
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        method = getattr(self.trainer, "lightning_module", None)
        shares = (self.trainer.world_size, self.trainer.accumulate_grad_batches) if self.trainer else (1, 1)
        check_batches(self.batch_size, shares, method, self.mask.size, f"{self.mask.rule}, {self.mask.fraction:g}")
        check_views(self.augment, self.dataset, self.resolution)
        if method is not None and hasattr(method, "choose_images"):
            method.choose_images(torch.from_numpy(self.mask.positions), self.dataset.validation())

    @property
    def loader(self) -> Loader:
        """Of this training, which must have begun."""
        assert self._loader is not None
        return self._loader

    def begin(self, round: Round) -> int:
        """Goes on with the images of this round. Returns how many batches it has."""
        self.loader.sampler.begin(round)
        differ = bool(((round.weights != 0) & (round.weights != 1)).any())
        device = torch.device("cpu") if self.trainer is None else self.trainer.strategy.root_device
        self._weights = round.weights.to(device) if differ else None
        return len(self.loader)

    def train_dataloader(self) -> Loader:
        trainer = self.trainer
        device = torch.device("cpu") if trainer is None else trainer.strategy.root_device
        share = (trainer.global_rank, trainer.world_size, trainer.accumulate_grad_batches) if trainer else (0, 1, 1)
        sampler = BatchSampler(torch.from_numpy(self.mask.positions), self.batch_size, self.seed, *share)
        number = self._batches if trainer else self._next_by_hand
        split = self.dataset.train()
        if self.augment.alternates:
            self._alternation = Alternation(self.augment.num_views, len(split.labels), sampler, self.seed)
        if isinstance(split.images, StreamedImages):
            split.images.processes = trainer.num_devices if trainer else 1
            self._loader = StreamedLoader(
                split, sampler, number, self.augment, device.type == "cuda", self._alternation, self._size
            )
            return self._loader
        self._loader = ResidentLoader(_resident(split, device), sampler, number, pin_memory=device.type == "cuda")
        if device.type == "cuda":
            self._loader = Ahead(self._loader, self._views, device)
        return self._loader

    def teardown(self, stage: str | None = None) -> None:
        if self._loader is not None:
            self._loader.stop()

    def on_after_batch_transfer(self, batch: Stored | Batch, dataloader_idx: int = 0) -> Batch:
        return batch if isinstance(batch, Batch) else self._views(batch, self._batches())

    def _views(self, batch: Stored, number: int) -> Batch:
        """Of the batch of this number."""
        seed = seed_of("views", self.seed, number, self.trainer.global_rank if self.trainer else 0)
        generator = torch.Generator().manual_seed(seed)
        device = batch.label.device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        size = self._size(number)
        if isinstance(batch.images, tuple):  # streamed images are crops already
            views = self.augment.colour(tuple(batch.images), self.mean, self.std, generator, size)
        else:
            mirrored = self._alternation(number) if self._alternation else None
            views = self.augment(batch.images, self.mean, self.std, generator, size, mirrored)
        weight = None if self._weights is None else self._weights[batch.index]
        return Batch(views, batch.label, batch.index, weight)

    def _size(self, number: int) -> int:
        """Of the views of the batch of this number."""
        full = self.dataset.image_size
        if self.resolution is None or self.trainer is None:
            return full
        a_step = self.trainer.accumulate_grad_batches
        clock: Clock = self.trainer.lightning_module.clock  # type: ignore[assignment]
        step, part = divmod(number, a_step)
        return self.resolution.size(clock.scheduled(step) * a_step + part, clock.total * a_step, full)

    def _batches(self) -> int:
        """Number of the next batch; without a trainer, of the one that was given last."""
        if self.trainer is None:
            return max(0, self._given_by_hand)
        return self.trainer.lightning_module.batches  # type: ignore[return-value]

    def _next_by_hand(self) -> int:
        self._given_by_hand += 1
        return self._given_by_hand

    def state_dict(self) -> dict[str, Any]:
        """What an encoder that was trained on these images must know of them."""
        return {
            "mean": list(self.dataset.mean),
            "std": list(self.dataset.std),
            "image_size": self.dataset.image_size,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Training goes on with the images that it is given."""


def check_views(augment: Augment, dataset: ImageDataset, resolution: Resolution | None = None) -> None:
    """Raises UserError where views of these images cannot be made."""
    full = dataset.image_size
    if resolution is not None and augment.sizes(full) == augment.sizes(2 * full):
        raise UserError(
            "resolution changes the size of views that have none of their own, but each of augment.views has one. "
            "Choose resolution=full, or remove the size of a view."
        )
    for side in {full} if resolution is None else {full, resolution.size(0, sys.maxsize, full)}:
        if (local := augment.local(side)) >= side:
            raise UserError(
                f"augment.views has views of size {local} beside views of the images' side, which is {side} pixels"
                f"{'' if side == full else ' when training begins (resolution)'}. Methods take the largest views for "
                "the global ones: give the local ones a smaller size, or a share of that side, such as size: 0.5."
            )
    if augment.turns and isinstance(dataset.train().images, StreamedImages):
        raise UserError(
            f"augment rotates views (rotation_degrees), which is not done for streamed images. Set it to 0, or "
            f"keep {dataset.name} decoded: dataset.storage=resident."
        )
    if dataset.channels not in (1, 3) and (colours := augment.colours()):
        raise UserError(
            f"augment changes {', '.join(colours)} of views, which images of {dataset.channels} channels, as "
            f"those of {dataset.name}, do not have. Choose augment=geometric, or set each to 0 in every view, such as "
            f"augment.views.0.{colours[0]}=0; brightness, blur and all of the geometry work."
        )


def _resident(split: Split, device: torch.device) -> Split:
    """The split on the accelerator, where it leaves at least half of the free memory; else where it is."""
    if device.type != "cuda":
        return split
    assert isinstance(split.images, Tensor)
    free, _ = torch.cuda.mem_get_info(device)
    if split.images.nbytes > free // 2:
        return split
    return Split(split.images.to(device), split.labels.to(device))
