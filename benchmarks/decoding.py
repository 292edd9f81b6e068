"""How many JPEG images a second one core decodes and crops: ours against torchvision's ImageFolder and DataLoader.

Both cut two random crops of each image, mirrored or not, as uint8; one worker process each, in turns. Images are
made up, smooth with some texture; or those of --folder, with a subfolder a class.

    python -m benchmarks.decoding [--height 375 --width 500] [--size 224] [--folder images]
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_lightning.data.dataset import Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.loading import StreamedLoader
from ssl_lightning.data.sampler import BatchSampler
from ssl_lightning.data.sources.listing import image_files
from ssl_lightning.data.views import Augment, View

BATCH = 32
SCALE = (0.08, 1.0)


def write_images(root: Path, number: int, height: int, width: int, part: str = "all") -> None:
    """JPEG files root/part/<class>/*, of ten classes."""
    generator = np.random.default_rng(0)
    for i in range(number):
        coarse = Image.fromarray(generator.integers(0, 256, (8, 10, 3), np.uint8)).resize((width, height), 3)
        texture = generator.normal(0, 6, (height, width, 1))
        path = root / part / f"{i % 10}" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.clip(np.asarray(coarse) + texture, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, quality=90)


def ours(root: Path, part: str, size: int, batches: int) -> Callable[[], int]:
    files = image_files(root, part, root / "cache")
    split = Split(StreamedImages(files, size, 3, workers=1), torch.zeros(len(files), dtype=torch.int64))
    augment = Augment([View(copies=2, crop_scale=SCALE, flip_probability=0.5)])

    def run() -> int:
        loader = StreamedLoader(split, BatchSampler(torch.arange(len(files)), BATCH, 0), lambda: 0, augment)
        return sum(loader.batch(step).images[0].shape[1] for step in range(batches))

    return run


def theirs(root: Path, part: str, size: int, batches: int) -> Callable[[], int]:
    from torch.utils.data import DataLoader
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    crop = transforms.Compose(
        [transforms.RandomResizedCrop(size, SCALE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    )
    folder = ImageFolder(str(root / part), lambda image: torch.stack([crop(image), crop(image)]))

    def run() -> int:
        loader = iter(DataLoader(folder, BATCH, shuffle=True, num_workers=1, drop_last=True))
        return sum(len(next(loader)[0]) for _ in range(batches))

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=int, default=375)
    parser.add_argument("--width", type=int, default=500)
    parser.add_argument("--size", type=int, default=224, help="side of the crops")
    parser.add_argument("--batches", type=int, default=10, help=f"of {BATCH} images, timed")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="of images, a subfolder a class")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        root, part = (arguments.folder.parent, arguments.folder.name) if arguments.folder else (Path(temporary), "all")
        if not arguments.folder:
            write_images(root, (arguments.batches + 2) * BATCH, arguments.height, arguments.width)
        rates: dict[str, list[float]] = {"ours": [], "theirs": []}
        for _ in range(arguments.turns):
            for name, make in (("ours", ours), ("theirs", theirs)):
                few, many = (make(root, part, arguments.size, number) for number in (1, 1 + arguments.batches))
                seconds = []
                for run in (few, many):  # the difference leaves the start of the worker out
                    start = time.perf_counter()
                    run()
                    seconds.append(time.perf_counter() - start)
                rates[name].append(arguments.batches * BATCH / (seconds[1] - seconds[0]))
    middle = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    print(f"ssl_lightning {middle['ours']:.0f} images/s, torchvision {middle['theirs']:.0f} images/s, two crops each")
    print(f"ratio {statistics.median(ratios):.2f} (turns: {', '.join(f'{ratio:.2f}' for ratio in sorted(ratios))})")


if __name__ == "__main__":
    main()
