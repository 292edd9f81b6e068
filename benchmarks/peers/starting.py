"""Seconds until something happens, and what one more job of a grid costs: a job that is finished already."""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.peers.figures import Figures, Options, Row, by_turns, contest, installed, timed
from benchmarks.pool import seconds


def process(*command: str) -> Callable[[], Figures]:
    def run() -> Figures:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return {}

    return timed(run)


def importing(code: str) -> Callable[[], Figures]:
    return process(sys.executable, "-c", code)


def one_more(folder: str, jobs: int, *launcher: str) -> Callable[[], Figures]:
    """Of a grid on one slot: what so many jobs take more than one."""

    def grid(jobs: int) -> float:
        return seconds(folder, "-m", f"seed={','.join(map(str, range(jobs)))}", *launcher)

    return lambda: {"seconds": (grid(jobs) - grid(1)) / (jobs - 1)}


def rows(options: Options) -> Iterator[Row]:
    imports = {"ours": importing("import ssl_lightning")}
    scripts = {"ours": importing("from ssl_lightning import SimCLR, SubsetDataModule, load_encoder")}
    if installed("lightly"):
        imports["lightly"] = importing("import lightly")
        scripts["lightly"] = importing("import lightning; from lightly import loss, models, transforms")
    yield from contest("import of the package", imports, options.turns)
    yield from contest("import of what a script needs", scripts, options.turns)

    jobs = 2 if options.small else 6
    pool = ("hydra/launcher=pool", "hydra.launcher.slots=1")
    with tempfile.TemporaryDirectory() as folder:
        seconds(folder, "-m", f"seed={','.join(map(str, range(jobs)))}")  # trains them
        ways = {
            "--help": process(str(Path(sys.executable).parent / "ssl-train"), "--help"),
            "a finished job by itself": lambda: {"seconds": seconds(folder, "seed=0")},
            "one more in one process": one_more(folder, jobs),
            "one more on the pool": one_more(folder, jobs, *pool),
        }
        for who, figures in by_turns(ways, options.turns).items():
            yield Row("ssl-train", who, figures)
