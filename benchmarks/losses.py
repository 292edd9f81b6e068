"""NT-Xent and InfoNCE, forward and backward: time and memory in tiles, from the whole matrix, and as lightly has it.

    python -m benchmarks.losses [--images 1024 4096 8192] [--turns 3]

Two views of length 128 an image, float32. Each figure is of a process of its own, by turns; memory is what a step needs
beyond the inputs, at most at once. lightly is compared where it is installed (pip install lightly).
"""

import argparse
import importlib.util
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from ssl_lightning.devices import count_memory, peak_memory
from ssl_lightning.losses import partition
from ssl_lightning.losses.contrastive import info_nce, nt_xent

LENGTH, TEMPERATURE = 128, 0.2
SECONDS, FEWEST = 2.0, 3
"""How long, and how often at least, a step is repeated; its time is the median."""


def lightly_nt_xent() -> Callable[[Tensor], Tensor]:
    from lightly.loss import NTXentLoss  # type: ignore[import-not-found]

    loss = NTXentLoss(temperature=TEMPERATURE)
    return lambda z: loss(z[0], z[1])


def losses() -> dict[str, Callable[[], Callable[[Tensor], Tensor]]]:
    made = {
        name: lambda loss=loss: lambda z: loss(z, TEMPERATURE)
        for name, loss in (("nt_xent", nt_xent), ("info_nce", info_nce))
    }
    return made | ({"lightly": lightly_nt_xent} if importlib.util.find_spec("lightly") else {})


def measure(name: str, how: str, images: int) -> tuple[float, float]:
    """Seconds a step, and MiB."""
    if how != "chosen":
        partition.LARGE = {"tiles": 0, "whole": math.inf}[how]  # type: ignore[assignment]
    loss = losses()[name]()
    device = torch.device("cpu")

    def step(z: Tensor) -> None:
        z.grad = None
        loss(z).backward()

    z = torch.randn(2, images, LENGTH, requires_grad=True)
    step(torch.randn(2, 8, LENGTH, requires_grad=True))
    count_memory(device)
    held = peak_memory(device)
    step(z)
    needed = (peak_memory(device) - held) / 2**20
    taken: list[float] = []
    while sum(taken) < SECONDS or len(taken) < FEWEST:
        started = time.perf_counter()
        step(z)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken), needed


def measured(name: str, how: str, images: int) -> tuple[float, float]:
    """In a process of its own."""
    command = [sys.executable, "-m", "benchmarks.losses", "--one", name, how, "--images", str(images)]
    seconds, needed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-2:]
    return float(seconds), float(needed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[1024, 4096, 8192])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(*measure(*arguments.one, arguments.images[0]))
        return
    ways = [(name, how) for name in losses() for how in (("tiles", "whole") if name != "lightly" else ("chosen",))]
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} threads; of {arguments.turns} turns the median (range)"
    )
    for images in arguments.images:
        turns = [{way: measured(*way, images) for way in ways} for _ in range(arguments.turns)]
        for way in ways:
            seconds = [turn[way][0] for turn in turns]
            mib = statistics.median(turn[way][1] for turn in turns)
            reference = way if ("lightly", "chosen") not in ways else ("lightly", "chosen")
            ratio = statistics.median(turn[way][0] / turn[reference][0] for turn in turns)
            print(
                f"{images:6,} images  {' '.join(way).removesuffix(' chosen'):15} "
                f"{statistics.median(seconds):7.3f} s ({min(seconds):.3f}, {max(seconds):.3f})  {mib:8,.0f} MiB"
                + (f"  {ratio:5.2f} of lightly's time" if reference != way else ""),
                flush=True,
            )


if __name__ == "__main__":
    main()
