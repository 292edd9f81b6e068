"""How an encoder sees each image under augmentation: the mean of unit vectors of independent views."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Gt
from jaxtyping import Float32, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.config.identity import digest_of
from ssl_lightning.config.markers import Speed
from ssl_lightning.data.dataset import ImageDataset, Images
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import in_order
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import track
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.rule import SubsetRule

# Images whose views are drawn from one generator, so that neither batches nor processes change them.
GROUP = 64


Layer = Literal["representation", "embedding"]


class MeanEmbedding:
    """z̄ = mean over A views of ẑ = z/‖z‖, not normalised again. For i ≠ j, ⟨z̄_i, z̄_j⟩ is an unbiased estimate of
    E⟨ẑ_i, ẑ_j⟩ over independent views (arXiv 2302.09195, eq. 2, with one forward pass a view).

    Args:
        proxy: whose method, in eval mode, gives representations and embeddings.
        augment: makes views.
        looks: A.
        layer: what z is.
        seed: of the views.
        device: where images pass through.
    """

    def __init__(
        self, proxy: LoadedRun, augment: Augment, looks: int, layer: Layer, seed: int, device: torch.device
    ) -> None:
        self.method = proxy.method.to(device, memory_format=torch.channels_last)
        self.augment = augment
        self.looks = looks
        self.layer = layer
        self.seed = seed
        self.device = device
        dataset = proxy.config["dataset"]
        self.mean, self.std = (
            torch.tensor(dataset[key], dtype=torch.float32, device=device) for key in ("mean", "std")
        )

    @torch.inference_mode()
    def __call__(self, images: UInt8[Tensor, "n c h w"], first: int) -> Float32[Tensor, "n d"]:
        """Of images whose positions are `first`, `first` + 1, …, with `first` a multiple of `GROUP`."""
        images = images.to(self.device)
        looks_a_draw = self.augment.num_views
        total: Tensor | None = None
        for draw in range(-(-self.looks // looks_a_draw)):
            groups = []
            for i, group in enumerate(images.split(GROUP)):
                generator = torch.Generator().manual_seed(seed_of("views", self.seed, draw, first // GROUP + i))
                groups.append(self.augment(group, self.mean, self.std, generator))
            left = self.looks - draw * looks_a_draw
            for of_size in zip(*groups, strict=True):
                views = torch.cat(of_size, 1)[:left]
                left -= len(views)
                if not len(views):
                    break
                z = self.method(views.flatten(0, 1))
                z = normalize(z if self.layer == "representation" else self.method.project(z))
                added = z.unflatten(0, views.shape[:2]).sum(0)
                total = added if total is None else total + added
        assert total is not None
        return total / self.looks


def embed(
    embedding: MeanEmbedding,
    images: Images,
    path: Path | None = None,
    processes: ProcessGroup = ALONE,
    batch_size: int = 512,
) -> Float32[np.ndarray, "n d"]:
    """The mean embeddings of all images, made together by all processes, streamed into a file where there is a `path`.

    Args:
        batch_size: images at a time, a multiple of `GROUP`; changes nothing but memory and speed.
    """
    dimensions = embedding(images[:2], 0).shape[1]
    out = processes.array(path, (len(images), dimensions), "float32")
    share = processes.share(len(images), GROUP)
    if isinstance(images, StreamedImages):
        images.processes = processes.size
    starts = range(share.start, share.stop, batch_size)
    batches: Any = zip(starts, in_order(images, share, batch_size), strict=True)
    if processes.rank == 0:
        batches = track(batches, f"embedding {embedding.looks} views of each image", len(starts))
    for start, some in batches:
        stop = start + len(some)
        made = embedding(some, start).cpu().numpy()
        if not np.isfinite(made).all():
            raise UserError(
                f"the proxy gives embeddings that are not finite (images {start} to {stop - 1}). "
                "Choose another run, or train it again with a lower learning rate."
            )
        processes.write(out, start, made)
    processes.barrier()
    return out


@dataclass(frozen=True, kw_only=True)
class EmbeddingRule(SubsetRule):
    """A rule that reads the mean embeddings of the images. They are kept in `cache`/features, for all such rules.

    Args:
        augment: makes the views.
        looks: A, the number of views of each image.
        layer: `representation`, or `embedding` (after the projector, what the loss saw).
        accelerator: as of a trainer; of no influence but on speed and rounding.
    """

    augment: Augment
    looks: Annotated[int, Gt(0)] = 8
    layer: Layer = "representation"
    accelerator: Annotated[str, Speed] = "auto"

    expensive: ClassVar[bool] = True

    def needs(self) -> int:
        return 1

    def for_fast_dev_run(self) -> "EmbeddingRule":
        return replace(self, cache=None, looks=1)

    def features(
        self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup = ALONE
    ) -> Float32[np.ndarray, "n d"]:
        """Mean embeddings of all images of train, in order."""
        path = self._features_file(dataset, proxy.digest)
        if path is None:
            return self._embed(dataset, proxy, None, processes)
        with processes.building(path) as missing:
            if missing:
                unfinished = path.with_name(f".{path.name}.{processes.size}.part")
                self._embed(dataset, proxy, unfinished, processes)
                processes.by_first(lambda: unfinished.replace(path))
        return _read(path)

    def kept_features(self, dataset: ImageDataset, proxy: str) -> Float32[np.ndarray, "n d"] | None:
        """`features`, of the proxy of this digest, where they have been made and kept."""
        path = self._features_file(dataset, proxy)
        return _read(path) if path is not None and path.exists() else None

    def _features_file(self, dataset: ImageDataset, proxy: str) -> Path | None:
        if self.cache is None:
            return None
        what = [dataset.fingerprint().as_dict(), proxy, self.augment.describe()]
        name = digest_of([*what, self.looks, self.layer, self.seed])[:16]
        return Path(self.cache).absolute() / "features" / f"{name}.npy"

    def _embed(
        self, dataset: ImageDataset, proxy: LoadedRun, path: Path | None, processes: ProcessGroup
    ) -> Float32[np.ndarray, "n d"]:
        device = device_of(self.accelerator)
        if (channels := proxy.config["dataset"]["channels"]) != dataset.channels:
            raise UserError(
                f"the run of subset.proxy.run was trained on images of {channels} channels, but those of "
                f"{dataset.name} have {dataset.channels}. Choose a run on such images, or set subset.proxy.run=null."
            )
        embedding = MeanEmbedding(proxy, self.augment, self.looks, self.layer, self.seed, device)
        return embed(embedding, dataset.train().images, path, processes)


def _read(path: Path) -> Float32[np.ndarray, "n d"]:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise UserError(f"{path} holds no readable features ({error}). Delete it and start again.") from error
