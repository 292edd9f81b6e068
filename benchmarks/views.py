"""Views per second of ssl_lightning's batched augmentation and of torchvision's, which goes image by image.

    python benchmarks/views.py

Both sides run the same recipes on the same random images of the size of CIFAR's. torchvision runs in one
thread, as it does in a loader's worker; its figure times the number of workers is the fair comparison.
"""

import time
from collections.abc import Callable

import torch
from torchvision.transforms import v2

from ssl_lightning.data.views import Augment, View

NUM_IMAGES = 512
NUM_IMAGES_PER_SAMPLE = 128  # torchvision's share: the rate does not depend on it
SIZE = 32
REPEATS = 7
BLUR_KERNEL = 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

SIMCLR = {
    "crop_scale": (0.08, 1.0),
    "flip_probability": 0.5,
    "jitter_probability": 0.8,
    "brightness": 0.8,
    "contrast": 0.8,
    "saturation": 0.8,
    "hue": 0.2,
    "grey_probability": 0.2,
}
RECIPES = {
    "SimCLR for CIFAR": SIMCLR,
    "SimCLR for CIFAR with blur": {**SIMCLR, "blur_probability": 0.5, "blur_kernel": BLUR_KERNEL},
}


def per_sample(recipe: dict) -> Callable[[torch.Tensor], torch.Tensor]:
    """The recipe as a torchvision pipeline for one image."""
    jitter = v2.ColorJitter(*(recipe[name] for name in ("brightness", "contrast", "saturation", "hue")))
    operators = [
        v2.ToDtype(torch.float32, scale=True),
        v2.RandomResizedCrop(SIZE, scale=recipe["crop_scale"], antialias=False),
        v2.RandomHorizontalFlip(recipe["flip_probability"]),
        v2.RandomApply([jitter], recipe["jitter_probability"]),
        v2.RandomGrayscale(recipe["grey_probability"]),
        v2.Normalize(MEAN, STD),
    ]
    if "blur_probability" in recipe:
        blur = v2.RandomApply([v2.GaussianBlur(BLUR_KERNEL, (0.1, 2.0))], recipe["blur_probability"])
        operators.insert(-1, blur)
    return v2.Compose(operators)


def views_per_second(make: Callable[[], None], num_views: int) -> float:
    """Best of several repeats, after one to warm up: other programs can only slow a repeat down."""
    make()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        make()
        seconds.append(time.perf_counter() - start)
    return num_views / min(seconds)


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (NUM_IMAGES, 3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
    mean, std = torch.tensor(MEAN), torch.tensor(STD)
    threads = torch.get_num_threads()
    print(f"{NUM_IMAGES} images of {SIZE}x{SIZE}, two views each; {threads} threads; views per second\n")
    print(f"{'recipe':28} {'batched':>10} {'1 thread':>10} {'torchvision':>12} {'ratio at 1 thread':>18}")
    for name, recipe in RECIPES.items():
        augment = Augment([View(copies=2, **recipe)])
        one = per_sample(recipe)

        def batched(augment: Augment = augment) -> None:
            augment(images, mean, std, generator)

        def single(one: Callable = one) -> None:
            for image in images[:NUM_IMAGES_PER_SAMPLE]:
                one(image)

        torch.set_num_threads(threads)
        ours = views_per_second(batched, 2 * NUM_IMAGES)
        torch.set_num_threads(1)
        ours_single = views_per_second(batched, 2 * NUM_IMAGES)
        theirs = views_per_second(single, NUM_IMAGES_PER_SAMPLE)
        ratio = ours_single / theirs
        print(f"{name:28} {ours:>10,.0f} {ours_single:>10,.0f} {theirs:>12,.0f} {ratio:>17.1f}x")


if __name__ == "__main__":
    main()
