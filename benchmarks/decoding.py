"""How many JPEG images a second workers decode and crop: ours against torchvision's ImageFolder and DataLoader.

Both cut two random crops of each image, mirrored or not, as uint8, in turns. Images are made up, with as much detail
at every scale, so that those of 500×375 take as many bytes as ImageNet's; or those of --folder, with a subfolder a
class.

    python -m benchmarks.decoding [--height 375 --width 500] [--size 224] [--workers 1 2] [--folder images]
"""

import argparse
import gc
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from ssl_lightning.data.dataset import Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import StreamedLoader
from ssl_lightning.data.sampler import BatchSampler
from ssl_lightning.data.sources.listing import image_files
from ssl_lightning.data.views import Augment, View

BATCH = 32
SCALE = (0.08, 1.0)
QUALITY = 90
CONTRAST = 16.0
"""Standard deviation, of 255, of the field of each scale."""


def write_images(root: Path, number: int, height: int, width: int, part: str = "all") -> None:
    """JPEG files root/part/<class>/*, of ten classes."""
    generator = np.random.default_rng(0)
    for i in range(number):
        path = root / part / f"{i % 10}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made_up(generator, height, width)).save(path, quality=QUALITY)


def made_up(generator: np.random.Generator, height: int, width: int) -> UInt8[np.ndarray, "h w 3"]:
    """Smooth random fields, each of twice the resolution of the one before; the last is that of pixels."""
    pixels = np.full((height, width, 3), 128.0)
    coarse = 64
    while coarse >= 1:
        shape = (3, -(-height // coarse), -(-width // coarse))
        grey = generator.normal(size=shape[1:])  # what the channels have in common, as in most photographs
        for channel, own in enumerate(generator.normal(size=shape)):
            field = Image.fromarray((CONTRAST * (grey + own / 3)).astype(np.float32))
            pixels[..., channel] += np.asarray(field.resize((width, height), Image.Resampling.BICUBIC))
        coarse //= 2
    return pixels.clip(0, 255).astype(np.uint8)


def ours(root: Path, part: str, size: int, workers: int, batches: int) -> Callable[[], int]:
    files = image_files(root, part, root / "cache")
    split = Split(StreamedImages(files, size, 3, workers=workers), torch.zeros(len(files), dtype=torch.int64))
    augment = Augment([View(copies=2, crop_scale=SCALE, flip_probability=0.5)])

    def run() -> int:
        loader = StreamedLoader(split, BatchSampler(torch.arange(len(files)), BATCH, 0), lambda: 0, augment)
        return sum(loader.batch(step).images[0].shape[1] for step in range(batches))

    return run


def theirs(root: Path, part: str, size: int, workers: int, batches: int) -> Callable[[], int]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    crop = transforms.Compose(
        [transforms.RandomResizedCrop(size, SCALE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    folder = ImageFolder(str(root / part), lambda image: torch.stack([crop(image), crop(image)]))

    def run() -> int:
        loader = iter(DataLoader(folder, BATCH, shuffle=True, num_workers=workers, drop_last=True))
        return sum(len(next(loader)[0]) for _ in range(batches))

    return run


class Rate(NamedTuple):
    """Images a second, without the start of the workers: of the clock, and of the time that cores spent on workers,
    which other work on the same machine changes less."""

    clock: float
    core: float


def rate(run: Callable[[int], Callable[[], int]], batches: int) -> Rate:
    """
    Args:
        run: given a number of batches, what makes them, and ends its workers.
    """
    spent = []
    for number in (1, 1 + batches):
        make = run(number)
        clock, core = time.perf_counter(), _of_workers()
        make()
        gc.collect()
        spent.append((time.perf_counter() - clock, _of_workers() - core))
    (few, few_core), (many, many_core) = spent
    return Rate(batches * BATCH / (many - few), batches * BATCH / (many_core - few_core))


def _of_workers() -> float:
    """Seconds that cores have spent on child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def middle(rates: Sequence[Rate]) -> Rate:
    return Rate(statistics.median(r.clock for r in rates), statistics.median(r.core for r in rates))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--size", type=int, default=224, help="side of the crops")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="processes; a line for each number")
    parser.add_argument("--batches", type=int, default=20, help=f"of {BATCH} images, timed")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="of images, a subfolder a class")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root, part = (arguments.folder.parent, arguments.folder.name) if arguments.folder else (Path(temporary), "all")
        if not arguments.folder:
            write_images(root, (arguments.batches + 2) * BATCH, arguments.height, arguments.width)
        sizes = [file.stat().st_size for file in (root / part).rglob("*.*")]
        print(f"{len(sizes)} images of {statistics.fmean(sizes) / 1000:.0f} kB in the mean; two crops of each")
        print(f"medians of {arguments.turns} turns   ssl_lightning          torchvision     ratio of cores")
        print("workers    images/s  a core's second    images/s  a core's   (least to greatest)")
        for workers in arguments.workers:
            case = root, part, arguments.size, workers
            turns = [
                (rate(partial(ours, *case), arguments.batches), rate(partial(theirs, *case), arguments.batches))
                for _ in range(arguments.turns)
            ]
            mine, other = (middle(rates) for rates in zip(*turns, strict=True))
            ratios = sorted(a.core / b.core for a, b in turns)
            print(
                f"{workers:7}  {mine.clock:10,.0f}  {mine.core:15,.0f}  {other.clock:10,.0f}  {other.core:8,.0f}   "
                f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
