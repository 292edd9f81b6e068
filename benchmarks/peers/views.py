"""Views a second of SimCLR's augmentation, two views an image, with each side's way of using the machine.

Ours and kornia take a batch at once, in as many threads as torch has; lightly and torchvision go image by image, in a
DataLoader of two workers. Then all with one thread, in this process.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from benchmarks.peers.figures import Figures, Options, Row, contest, installed, seconds_of
from benchmarks.peers.images import SIZE, Array, images_of, loader
from ssl_lightning.data.views import Augment, View

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CROP, FLIP, JITTER, GREY = (0.08, 1.0), 0.5, 0.8, 0.2
STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
KERNEL, SIGMA = 3, (0.1, 2.0)  # lightly's blur is Pillow's, whose kernel follows from sigma

Epoch = Callable[[], object]


def shuffled(images: Array, batch_size: int) -> Iterator[Tensor]:
    stored = torch.from_numpy(images)
    return (stored[rows] for rows in torch.randperm(len(stored)).split(batch_size))


def ours(images: Array, blur: float, batch_size: int) -> Epoch:
    view = View(
        copies=2, crop_scale=CROP, flip_probability=FLIP, jitter_probability=JITTER, **STRENGTHS,
        grey_probability=GREY, blur_probability=blur, blur_kernel=KERNEL, blur_sigma=SIGMA,
    )  # fmt: skip
    augment, generator = Augment([view]), torch.Generator().manual_seed(0)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    return lambda: [augment(batch, mean, std, generator) for batch in shuffled(images, batch_size)]


def kornia(images: Array, blur: float, batch_size: int) -> Epoch:
    import kornia.augmentation as K  # type: ignore[import-not-found]

    operators = [
        K.RandomResizedCrop((SIZE, SIZE), scale=CROP),
        K.RandomHorizontalFlip(p=FLIP),
        K.ColorJitter(**STRENGTHS, p=JITTER),
        K.RandomGrayscale(p=GREY),
        *([K.RandomGaussianBlur((KERNEL, KERNEL), SIGMA, p=blur)] if blur else []),
        K.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    ]
    one = nn.Sequential(*operators)

    def two(batch: Tensor) -> list[Tensor]:
        pixels = batch.float() / 255
        return [one(pixels), one(pixels)]

    return lambda: [two(batch) for batch in shuffled(images, batch_size)]


def lightly_transform(blur: float) -> Callable[..., Any]:
    """Of half the strength of its jitter, as it recommends for small images: that of the others."""
    from lightly.transforms import SimCLRTransform  # type: ignore[import-not-found]

    normalize = {"mean": list(MEAN), "std": list(STD)}
    return SimCLRTransform(input_size=SIZE, cj_strength=0.5, gaussian_blur=blur, normalize=normalize)


def torchvision_view(blur: float) -> v2.Transform:
    operators = [
        v2.ToImage(),
        v2.RandomResizedCrop(SIZE, scale=CROP),
        v2.RandomHorizontalFlip(FLIP),
        v2.RandomApply([v2.ColorJitter(**STRENGTHS)], JITTER),
        v2.RandomGrayscale(GREY),
        *([v2.RandomApply([v2.GaussianBlur(KERNEL, SIGMA)], blur)] if blur else []),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(MEAN, STD),
    ]
    return v2.Compose(operators)


class Two:
    """Two views of an image."""

    def __init__(self, view: Callable[[Any], Tensor]) -> None:
        self.view = view

    def __call__(self, image: Any) -> list[Tensor]:
        return [self.view(image), self.view(image)]


def through(batches: DataLoader) -> Epoch:
    return lambda: [None for _ in batches]


def rows(options: Options) -> Iterator[Row]:
    count, batch_size, at_least = (64, 32, 0.0) if options.small else (2048, 256, 1.0)

    def rate(epoch: Epoch, threads: int = torch.get_num_threads(), images: int = count) -> Callable[[], Figures]:
        def measure() -> Figures:
            usual = torch.get_num_threads()
            torch.set_num_threads(threads)
            seconds = seconds_of(epoch, at_least)
            torch.set_num_threads(usual)
            return {"views/s": 2 * images / seconds}

        return measure

    peers = {peer for peer in ("lightly", "kornia") if installed(peer)}
    for kind, images in images_of(options, count).items():
        for blur in (0.0, 0.5):
            what = f"{kind}, blur {blur:g}"
            view = torchvision_view(blur)
            ways = {"ours": ours(images, blur, batch_size)}
            if "lightly" in peers:
                ways["lightly, 2 workers"] = through(loader(images, lightly_transform(blur), batch_size))
            ways["torchvision v2, 2 workers"] = through(loader(images, Two(view), batch_size))
            if "kornia" in peers:
                ways["kornia"] = kornia(images, blur, batch_size)
            yield from contest(what, {who: rate(epoch) for who, epoch in ways.items()}, options.turns)

            few = torch.from_numpy(images[: count // 8])
            sample = lambda few=few, view=view: [Two(view)(image) for image in few]  # noqa: E731
            alone = {"ours": rate(ways["ours"], 1), "torchvision v2, no worker": rate(sample, 1, len(few))}
            if "kornia" in peers:
                alone["kornia"] = rate(ways["kornia"], 1)
            yield from contest(f"{what}, 1 thread", alone, options.turns)
