"""Pretraining sees a subset; evaluation always sees the full labelled splits."""

from collections.abc import Iterator

import lightning as L
import torch
from jaxtyping import Bool, Float, Int
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.datasets import ImageDataset, Split
from ssl_lightning.data.loading import ResidentLoader, normalise, seed_of
from ssl_lightning.data.views import Views
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.mask import Mask, Ranking, SubsetRule


class SubsetDataModule(L.LightningDataModule):
    """Trains on the masked positions of a dataset, with views made on the device.

    Args:
        dataset: where images come from.
        subset: which of its training images pretraining sees.
        views: how an image becomes views.
        batch_size: images per optimizer step, over all processes.
        seed: of order and augmentation.
    """

    def __init__(self, dataset: ImageDataset, subset: SubsetRule, views: Views, batch_size: int, seed: int = 0) -> None:
        super().__init__()
        self.dataset = dataset
        self.subset = subset
        self.views = views
        self.batch_size = batch_size
        self.seed = seed
        self.ranking: Ranking | None = None
        self.mask: Mask | None = None

    def prepare_data(self) -> None:
        """Once, in one process: fetch or build what all processes will read."""
        self.dataset.prepare()
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
        self.mean = torch.tensor(self.dataset.mean, dtype=torch.float32)
        self.std = torch.tensor(self.dataset.std, dtype=torch.float32)

    def train_dataloader(self) -> ResidentLoader:
        assert self.trainer is not None
        assert self.mask is not None
        trainer = self.trainer
        return ResidentLoader(
            _resident(self.dataset.train(), trainer.strategy.root_device),
            torch.from_numpy(self.mask.positions),
            self.batch_size,
            self.seed,
            lambda: trainer.global_step,
            trainer.global_rank,
            trainer.world_size,
        )

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        assert self.trainer is not None
        seed = seed_of("views", self.seed, self.trainer.global_step, self.trainer.global_rank)
        generator = torch.Generator().manual_seed(seed)
        device = batch.image.device
        self.mean, self.std = self.mean.to(device), self.std.to(device)
        return batch._replace(image=self.views(batch.image, self.mean, self.std, generator))

    def labelled_batches(
        self, split: Split, device: torch.device, batch_size: int = 512
    ) -> Iterator[tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]]:
        """Un-augmented, normalised images with labels, in order."""
        mean, std = self.mean.to(device), self.std.to(device)
        for images, labels in zip(split.images.split(batch_size), split.labels.split(batch_size), strict=True):
            yield normalise(images.to(device), mean, std), labels.to(device)

    def validation_part(self) -> Bool[Tensor, " n"]:
        """Which of the training images are held out for choosing hyper-parameters of probes."""
        return self.dataset.validation()


def _resident(split: Split, device: torch.device) -> Split:
    """The split on the accelerator, where it leaves at least half of the free memory; else where it is."""
    if device.type != "cuda":
        return split
    free, _ = torch.cuda.mem_get_info(device)
    if split.images.nbytes > free // 2:
        return Split(split.images.pin_memory(), split.labels)
    return Split(split.images.to(device), split.labels.to(device))
