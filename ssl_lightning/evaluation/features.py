"""Features of a frozen encoder: what every evaluation reads."""

import math
import sys
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
from ssl_lightning.explaining import in_one_line
from ssl_lightning.files import write_text
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import Begins, track

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

    Raises:
        UserError: some are not finite.
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
            for name, array, values in zip(names, arrays, encode(some), strict=False):
                rows = values.float().cpu().numpy()
                if not np.isfinite(rows).all():
                    raise UserError(
                        f"the encoder gives {name} that are not finite (of images {start} to {start + len(rows) - 1}), "
                        "which nothing can be learned from. Its training has diverged, or its weights are not for "
                        "such images: choose another one."
                    )
                processes.write(array, start, rows)
            start += len(some)
    processes.barrier()
    if folder is not None:
        features = stored(split, folder)
        processes.barrier()  # before any process may remove the files
        return features
    return _features(arrays, split)


def cached(
    encode: Encode, split: Split, folder: Path, processes: ProcessGroup, batch_size: int, bar: str, begins: Begins
) -> Features:
    """What `extract` has left in a folder; made there, where it is missing or damaged.

    Args:
        begins: told before they are made.
    """
    done = folder / "DONE"  # whose text names the files; former versions have left none

    def whole() -> bool:
        if not done.exists():
            return False
        try:
            stored(split, folder, done.read_text().split() or NAMES[:1])
        except (UserError, OSError, UnicodeDecodeError) as error:
            print(f"Warning: {in_one_line(error)}. They are made again.", file=sys.stderr, flush=True)
            for file in (done, *(folder / f"{name}.npy" for name in NAMES)):  # others may still read what these were
                file.unlink(missing_ok=True)
            return False
        return True

    with processes.building(done, whole) as missing:
        if missing:
            begins(f"{bar}: {len(split.labels):,} images")
            extract(encode, split, processes, folder, batch_size, bar)
            processes.by_first(lambda: write_text(done, "\n".join(_there(folder))))
    return stored(split, folder)


def stored(split: Split, folder: Path, names: Iterable[str] = NAMES[:1]) -> Features:
    """What `extract` has left in a folder, read through the page cache.

    Args:
        names: which kinds must be there.

    Raises:
        UserError: they are damaged.
    """
    try:
        if lacking := sorted({*names} - {*_there(folder)}):
            raise ValueError(f"there are no {lacking[0]}")
        # Copy on write, as torch wants writable arrays.
        arrays = [np.load(folder / f"{name}.npy", mmap_mode="c") for name in _there(folder)]
        if any(array.ndim != 2 or len(array) != len(split.labels) for array in arrays):
            raise ValueError(f"they are not of {len(split.labels)} images")
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"the features in {folder} are damaged ({in_one_line(error)}).") from error
    return _features(arrays, split)


def _there(folder: Path) -> list[str]:
    return [name for name in NAMES if (folder / f"{name}.npy").exists()]


def _features(arrays: Sequence[np.ndarray], split: Split) -> Features:
    tensors = [torch.from_numpy(np.asarray(array)) for array in arrays]
    return Features(tensors[0], tensors[-1], split.labels)
