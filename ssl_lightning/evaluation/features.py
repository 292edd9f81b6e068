"""Features of a frozen encoder: what every evaluation reads."""

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from ssl_lightning.data.dataset import Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import in_order
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import track

NAMES = ("representations", "embeddings")

Encode = Callable[[UInt8[Tensor, "n c h w"]], tuple[Float[Tensor, "n d"], Float[Tensor, "n e"]]]


class Features(NamedTuple):
    """Features of n images, in the order of the images."""

    representations: Float32[Tensor, "n d"]
    embeddings: Float32[Tensor, "n e"]
    labels: Int[Tensor, " n"]

    def to(self, device: torch.device) -> "Features":
        representations = self.representations.to(device)
        same = self.embeddings is self.representations
        embeddings = representations if same else self.embeddings.to(device)
        return Features(representations, embeddings, self.labels.to(device))


def extract(
    encode: Encode,
    split: Split,
    processes: ProcessGroup = ALONE,
    folder: Path | None = None,
    batch_size: int = 512,
    bar: str = "",
) -> Features:
    """Features of all images of a split, float32, made together by all processes. All of them return them.

    Args:
        encode: uint8 images to (representation [n, d], embedding [n, e]) of any float type, on any device;
            switching the model to evaluation mode is its affair.
        folder: for `representations.npy` and `embeddings.npy`, behind which features may be larger than memory; a
            process alone needs none and then holds them.
        bar: what to call this, where it is to be watched in a terminal.
    """
    images, labels = split
    share = processes.share(len(labels))
    if isinstance(images, StreamedImages):
        images.processes = processes.size
    with torch.inference_mode():
        examples = encode(images[:2])
        names = NAMES[:1] if examples[0] is examples[1] else NAMES  # without a projector there is one kind
        arrays = [
            processes.array(folder and folder / f"{name}.npy", (len(labels), example.shape[1]), "float32")
            for name, example in zip(names, examples, strict=False)
        ]
        start = share.start
        batches: Iterable[UInt8[Tensor, "n c h w"]] = in_order(images, share, batch_size)
        if bar and processes.rank == 0:
            batches = track(batches, bar, math.ceil(len(share) / batch_size))
        for some in batches:
            for array, values in zip(arrays, encode(some), strict=False):
                processes.write(array, start, values.float().cpu().numpy())
            start += len(some)
    processes.barrier()
    if folder is not None:
        features = stored(split, folder)
        processes.barrier()  # before any process may remove the files
        return features
    return _features(arrays, split)


def stored(split: Split, folder: Path) -> Features:
    """What `extract` has left in a folder, read through the page cache."""
    try:
        # Copy on write, as torch wants writable arrays.
        files = [file for name in NAMES if (file := folder / f"{name}.npy").exists()]
        arrays = [np.load(file, mmap_mode="c") for file in files]
        if not arrays or any(len(array) != len(split.labels) for array in arrays):
            raise ValueError(f"they are not of {len(split.labels)} images")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the features in {folder} are damaged ({error}). Delete that folder.") from error
    return _features(arrays, split)


def _features(arrays: Sequence[np.ndarray], split: Split) -> Features:
    tensors = [torch.from_numpy(np.asarray(array)) for array in arrays]
    return Features(tensors[0], tensors[-1], split.labels)
