"""How well an image fits what a proxy has learned: its self-supervised loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from annotated_types import Ge, Gt
from jaxtyping import Float, Float64, Int64, UInt8
from torch import Tensor

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.loading import by_positions
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.progress import track
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule


class Part(NamedTuple):
    """A batch of a round.

    Args:
        number: of the batch, from 0.
        start: how many images came before, in all rounds.
        positions: its images.
    """

    number: int
    start: int
    positions: Int64[Tensor, " b"]


def parts_of(n: int, rounds: int, batch_size: int, seed: int) -> list[Part]:
    """All images in random batches of equal size, within one, and of at most `batch_size`; in each round others."""
    parts: list[Part] = []
    for round_ in range(rounds):
        order = torch.randperm(n, generator=torch.Generator().manual_seed(seed_of("losses", seed, round_)))
        start = round_ * n
        for positions in order.tensor_split(-(-n // batch_size)):
            parts.append(Part(len(parts), start, positions))
            start += len(positions)
    return parts


class ImageLosses:
    """The loss of each image in a batch, under a proxy in evaluation mode.

    Args:
        proxy: its method's `Objective` has `image_losses`.
        augment: makes the views.
        seed: of views and of what the loss draws.
        device: where images pass through.

    Raises:
        UserError: the method needs more views, or has no loss of each image.
    """

    def __init__(self, proxy: LoadedRun, augment: Augment, seed: int, device: torch.device) -> None:
        self.method = proxy.method.to(device, memory_format=torch.channels_last)
        self.augment, self.seed, self.device = augment, seed, device
        dataset = proxy.config["dataset"]
        self.mean, self.std = (
            torch.tensor(dataset[key], dtype=torch.float32, device=device) for key in ("mean", "std")
        )
        if augment.num_views < self.method.min_views:
            raise UserError(
                f"subset=ssl_loss: augment.views gives {augment.num_views} view of an image, but "
                f"{type(self.method).__name__} needs at least {self.method.min_views}. Choose subset.augment with more."
            )

    @torch.inference_mode()
    def __call__(
        self, images: UInt8[Tensor, "n c h w"], labels: Int64[Tensor, " n"], part: Part
    ) -> Float[Tensor, " n"]:
        generator = torch.Generator().manual_seed(seed_of("loss views", self.seed, part.number))
        views = self.augment(images.to(self.device), self.mean, self.std, generator)
        batch = Batch(tuple(views), labels.to(self.device), part.positions.to(self.device))
        losses = self.method.ssl_loss(batch, LOCAL, Draw(self.seed, part.number)).image_losses
        if losses is None:
            raise UserError(
                f"subset=ssl_loss asks for the loss of each image, but {type(self.method).__name__} has only one of a "
                "whole batch. Choose a proxy that has it: subset.proxy.method=simclr (or byol, moco, simsiam)."
            )
        if not losses.isfinite().all():
            raise UserError(
                "subset=ssl_loss: the proxy gives losses that are not finite. Choose another run, or train it again "
                "with a lower learning rate."
            )
        return losses


@dataclass(frozen=True, kw_only=True)
class SSLLoss(GroupedRule):
    """By the loss of an image under the proxy, with which it was trained: the mean over random batches of all images.

    Args:
        rounds: how often each image is in a batch, under new views and beside other images.
        batch_size: images beside which a loss is computed, at most; where images are contrasted, it counts.
        keep: `easiest`, the smallest loss first, or `hardest`.
    """

    rounds: Annotated[int, Gt(0)] = 4
    batch_size: Annotated[int, Ge(2)] = 256
    keep: Literal["easiest", "hardest"] = "easiest"

    name: ClassVar[str] = "ssl_loss"

    def for_fast_dev_run(self) -> "SSLLoss":
        return replace(self, cache=None, looks=1, rounds=1)

    def known(self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup) -> Float64[np.ndarray, " n"]:
        split = dataset.train()
        n = len(split.labels)
        parts = parts_of(n, self.rounds, self.batch_size, self.seed)
        file = self.scratch(dataset, proxy, processes, "losses")
        out = processes.array(file, (self.rounds * n,), "float64")
        losses = ImageLosses(proxy, self.augment, self.seed, device_of(self.accelerator))
        share = processes.share(len(parts))
        mine = parts[share.start : share.stop]
        batches = _batches(split, mine, processes)
        for part, images in track(batches, "losses of each image", len(mine)) if processes.rank == 0 else batches:
            found = losses(images, split.labels[part.positions], part)
            processes.write(out, part.start, found.double().cpu().numpy())
        processes.barrier()
        total = np.zeros(n)
        for part in parts:
            total[part.positions.numpy()] += out[part.start : part.start + len(part.positions)]
        processes.barrier()
        if file is not None and processes.rank == 0:
            file.unlink()
        return total / self.rounds

    def order_of(self, group: Group) -> GreedyOrder:
        assert group.known is not None
        return GreedyOrder.of(group.known * (1 if self.keep == "hardest" else -1))


def _batches(
    split: Split, parts: Sequence[Part], processes: ProcessGroup
) -> Iterator[tuple[Part, UInt8[Tensor, "_n c h w"]]]:
    if isinstance(split.images, StreamedImages):
        split.images.processes = processes.size
    return zip(parts, by_positions(split.images, [part.positions for part in parts]), strict=True)
