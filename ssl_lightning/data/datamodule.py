"""Pretraining sees a subset of a dataset, as views made on the device."""

import lightning as L
import torch
from torch import Tensor

from ssl_lightning.data.alternation import Alternation
from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import Loader, ResidentLoader, StreamedLoader
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.resolution import Resolution
from ssl_lightning.data.sampler import BatchSampler, seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError


class SubsetDataModule(L.LightningDataModule):
    """Trains on the masked positions of a dataset. The number of the next batch is that of the method.

    Args:
        dataset: where images come from.
        mask: which of its training images pretraining sees.
        augment: how an image becomes views.
        batch_size: images per optimizer step, over all processes.
        seed: of order, augmentation, and all that a loss draws.
        resolution: size of the views over training; by default that of the dataset's images.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        mask: Mask,
        augment: Augment,
        batch_size: int,
        seed: int = 0,
        resolution: Resolution | None = None,
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.mask = mask
        self.augment = augment
        self.batch_size = batch_size
        self.seed = seed
        self.resolution = resolution
        self._streamed: StreamedLoader | None = None
        self._alternation: Alternation | None = None

    def prepare_data(self) -> None:
        """Once, in one process: fetch what all processes will read."""
        self.dataset.prepare()

    def setup(self, stage: str | None = None) -> None:
        method = getattr(self.trainer, "lightning_module", None)
        shares = (self.trainer.world_size, self.trainer.accumulate_grad_batches) if self.trainer else (1, 1)
        check_batches(self.batch_size, shares, method, self.mask.size, f"{self.mask.rule}, {self.mask.fraction:g}")
        check_views(self.augment, self.dataset, self.resolution)
        self.mean = torch.tensor(self.dataset.mean, dtype=torch.float32)
        self.std = torch.tensor(self.dataset.std, dtype=torch.float32)

    def train_dataloader(self) -> Loader:
        assert self.trainer is not None
        trainer, device = self.trainer, self.trainer.strategy.root_device
        sampler = BatchSampler(
            torch.from_numpy(self.mask.positions),
            self.batch_size,
            self.seed,
            trainer.global_rank,
            trainer.world_size,
            trainer.accumulate_grad_batches,
        )
        split = self.dataset.train()
        if self.augment.alternates:
            self._alternation = Alternation(self.augment.num_views, len(split.labels), sampler, self.seed)
        if isinstance(split.images, StreamedImages):
            split.images.processes = trainer.num_devices
            self._streamed = StreamedLoader(
                split, sampler, self._batches, self.augment, device.type == "cuda", self._alternation, self._size
            )
            return self._streamed
        return ResidentLoader(_resident(split, device), sampler, self._batches, pin_memory=device.type == "cuda")

    def teardown(self, stage: str | None = None) -> None:
        if self._streamed is not None:
            self._streamed.stop()

    def on_after_batch_transfer(self, batch: Stored, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        number = self._batches()
        seed = seed_of("views", self.seed, number, self.trainer.global_rank)
        generator = torch.Generator().manual_seed(seed)
        device = batch.label.device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        size = self._size(number)
        if isinstance(batch.images, tuple):  # streamed images are crops already
            views = self.augment.colour(tuple(batch.images), self.mean, self.std, generator, size)
        else:
            mirrored = self._alternation(self._batches()) if self._alternation else None
            views = self.augment(batch.images, self.mean, self.std, generator, size, mirrored)
        return Batch(views, batch.label, batch.index)

    def _size(self, number: int) -> int:
        """Of the views of the batch of this number."""
        full = self.dataset.image_size
        if self.resolution is None:
            return full
        assert self.trainer is not None
        total = int(self.trainer.estimated_stepping_batches) * self.trainer.accumulate_grad_batches
        return self.resolution.size(number, total, full)

    def _batches(self) -> int:
        """Number of the next batch."""
        assert self.trainer is not None
        return self.trainer.lightning_module.batches  # type: ignore[return-value]


def check_batches(
    batch_size: int, shares: tuple[int, int], method: object, size: int | None = None, subset: str = ""
) -> None:
    """Raises UserError where images cannot be divided into batches that the method can learn from.

    Args:
        batch_size: images per optimizer step.
        shares: processes, and batches of each in a step.
        size: of the subset; None where it is not known yet.
        subset: what it is called.
    """
    processes, accumulated = shares
    parts = processes * accumulated
    if batch_size % parts:
        raise UserError(
            f"batch_size is {batch_size}, which {processes} processes cannot share equally"
            + (f" in {accumulated} parts each" if accumulated > 1 else "")
            + f". It counts the images of all processes: choose a multiple of {parts}."
        )
    needed = getattr(method, "min_images", 1)
    if batch_size // parts < needed:
        raise UserError(
            f"batch_size is {batch_size}, which leaves {batch_size // parts} image to each process, but "
            f"{type(method).__name__} compares at least {needed} with one another. Choose {needed * parts} or more."
        )
    if size is not None and batch_size > size:
        largest = size - size % parts
        enough = largest >= max(needed, 1) * parts
        raise UserError(
            f"batch_size is {batch_size}, but the subset has only {size} image{'s' * (size != 1)} ({subset}). "
            + (f"The largest legal batch_size is {largest}." if enough else "Raise subset.fraction: it is too few.")
        )


def check_views(augment: Augment, dataset: ImageDataset, resolution: Resolution | None = None) -> None:
    """Raises UserError where views of these images cannot be made."""
    if resolution is not None and 0 not in augment.sizes(0):
        raise UserError(
            "resolution changes the size of views that have none of their own, but each of augment.views has one. "
            "Choose resolution=full, or remove the size of a view."
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
