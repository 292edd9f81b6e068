"""Pretraining sees a subset; evaluation always sees the full labelled splits."""

import lightning as L
import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import Loader, ResidentLoader, StreamedLoader
from ssl_lightning.data.sampler import BatchSampler, seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.ranking import Mask, Ranking
from ssl_lightning.subsets.rule import SubsetRule


class SubsetDataModule(L.LightningDataModule):
    """Trains on the masked positions of a dataset, with views made on the device.

    Args:
        dataset: where images come from.
        subset: which of its training images pretraining sees.
        views: how an image becomes views.
        batch_size: images per optimizer step, over all processes.
        seed: of order and augmentation.
    """

    def __init__(
        self, dataset: ImageDataset, subset: SubsetRule, views: Augment, batch_size: int, seed: int = 0
    ) -> None:
        super().__init__()
        self.dataset = dataset
        self.subset = subset
        self.views = views
        self.batch_size = batch_size
        self.seed = seed
        self.ranking: Ranking | None = None
        self.mask: Mask | None = None
        self._streamed: StreamedLoader | None = None
        self._prepared = False

    def prepare_data(self) -> None:
        """Once, in one process: fetch or build what all processes will read."""
        if self._prepared:  # by us, before the trainer does
            return
        self._prepared = True
        self.dataset.prepare()
        if remark := self.dataset.remark():
            rank_zero_only(print)(remark, flush=True)
        if not self.dataset.validation().any():
            raise UserError(
                f"{self.dataset.name}: no class has two labelled training images, so that probes have nothing to "
                "choose their settings on. Add images."
            )
        if self.subset.expensive and self.ranking is None:
            self.ranking = self.subset.ranking(self.dataset)
            if remark := self.subset.remark(self.ranking):
                rank_zero_only(print)(remark, flush=True)

    def setup(self, stage: str | None = None) -> None:
        if self.mask is not None:
            return
        self.ranking = self.ranking or self.subset.ranking(self.dataset)
        self.mask = self.subset.cut(self.ranking)
        world_size = self.trainer.world_size if self.trainer else 1
        if self.batch_size % world_size:
            raise UserError(
                f"batch_size is {self.batch_size}, which {world_size} processes cannot share equally. "
                f"It counts the images of all processes: choose a multiple of {world_size}."
            )
        if self.batch_size > self.mask.size:
            largest = self.mask.size - self.mask.size % world_size
            raise UserError(
                f"batch_size is {self.batch_size}, but the subset has only {self.mask.size} images "
                f"({self.mask.rule}, fraction {self.mask.fraction:g} of {self.mask.length}). "
                f"The largest legal batch_size is {largest}."
            )
        if self.views.turns and isinstance(self.dataset.train().images, StreamedImages):
            raise UserError(
                f"augment rotates views (rotation_degrees), which is not done for streamed images. Set it to 0, or "
                f"keep {self.dataset.name} decoded: dataset.storage=resident."
            )
        self.mean = torch.tensor(self.dataset.mean, dtype=torch.float32)
        self.std = torch.tensor(self.dataset.std, dtype=torch.float32)

    def train_dataloader(self) -> Loader:
        assert self.trainer is not None
        assert self.mask is not None
        trainer, device = self.trainer, self.trainer.strategy.root_device
        positions = torch.from_numpy(self.mask.positions)
        order = BatchSampler(positions, self.batch_size, self.seed, trainer.global_rank, trainer.world_size)
        split = self.dataset.train()
        if isinstance(split.images, StreamedImages):
            split.images.processes = trainer.num_devices
            self._streamed = StreamedLoader(
                split, order, lambda: trainer.global_step, self.views, device.type == "cuda"
            )
            return self._streamed
        return ResidentLoader(_resident(split, device), order, lambda: trainer.global_step)

    def teardown(self, stage: str | None = None) -> None:
        if self._streamed is not None:
            self._streamed.stop()

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        seed = seed_of("views", self.seed, self.trainer.global_step, self.trainer.global_rank)
        generator = torch.Generator().manual_seed(seed)
        device = batch.image.device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        make = self.views.colour if batch.image.ndim == 5 else self.views  # streamed images are crops already
        return batch._replace(image=make(batch.image, self.mean, self.std, generator))


def _resident(split: Split, device: torch.device) -> Split:
    """The split on the accelerator, where it leaves at least half of the free memory; else where it is."""
    if device.type != "cuda":
        return split
    assert isinstance(split.images, Tensor)
    free, _ = torch.cuda.mem_get_info(device)
    if split.images.nbytes > free // 2:
        return Split(split.images.pin_memory(), split.labels)
    return Split(split.images.to(device), split.labels.to(device))
