"""NT-Xent, forward and backward: what `python -m benchmarks.losses` measures, each figure in a process of its own."""

from collections.abc import Callable, Iterator

from benchmarks.losses import measured
from benchmarks.peers.figures import Figures, Options, Row, contest, installed


def figures(name: str, how: str, images: int) -> Callable[[], Figures]:
    def measure() -> Figures:
        seconds, needed = measured(name, how, images)
        return {"seconds": seconds, "MiB": needed}

    return measure


def rows(options: Options) -> Iterator[Row]:
    ways = {"ours": ("nt_xent", "chosen"), "ours, whole matrix": ("nt_xent", "whole")}
    if installed("lightly"):
        ways["lightly"] = ("lightly", "chosen")
    for images in (64,) if options.small else (256, 1024, 4096):
        turns = {who: figures(*way, images) for who, way in ways.items()}
        yield from contest(f"{images:,} images", turns, options.turns)
