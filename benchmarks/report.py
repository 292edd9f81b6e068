"""ssl-report on many runs: seconds of the whole command, and how its work divides into reading and writing.

    python -m benchmarks.report [--runs 500]

The runs are synthetic and finished, five seeds a cell, with a metrics.csv of 300 rows. The command is timed from its
start to its end, in a fresh process; reading is what happens before the first file is written.
"""

import argparse
import contextlib
import io
import itertools
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra import compose

from ssl_lightning.config.hydra import configs_in
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.pipeline.parts import identity_of
from ssl_lightning.pipeline.report import report
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.metrics import MetricsWriter
from ssl_lightning.runs.run import Run, find_runs

TARGET = 5.0
TURNS = 3
SEEDS, ROWS = 5, 300
METHODS = ("simclr", "directclr", "gessl", "supervised")
FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)


def configs(folder: Path) -> Iterator[dict[str, Any]]:
    """Cells that differ in their learning rate, fraction and method, five seeds each, without end."""
    resolved = {}
    with configs_in(CONF):
        for method in METHODS:
            overrides = [f"method={method}", "subset=random", f"paths.runs={folder}", "sweep=grid"]
            resolved[method] = resolve(compose("train", overrides))
    for i in itertools.count(1):
        for method, fraction, seed in itertools.product(METHODS, FRACTIONS, range(SEEDS)):
            config = resolved[method]
            yield {
                **config,
                "seed": seed,
                "subset": {**config["subset"], "seed": seed, "fraction": fraction},
                "optimizer": {**config["optimizer"], "lr": i / 1000},
            }


def make(config: dict[str, Any]) -> None:
    identity = identity_of(config, {})
    run = Run(Path(config["paths"]["runs"]) / config["sweep"] / identity.run_name)
    fraction, lr = config["subset"]["fraction"], config["optimizer"]["lr"]
    top1 = 0.9 - 0.3 * math.exp(-3 * fraction) - lr + 0.01 * config["seed"]
    spectrum = [10 / (1 + k) ** 1.5 for k in range(128)]
    results = {
        "schema": 2,
        "run": run.id,
        "identity": {
            name: getattr(identity, name) for name in ("method", "dataset", "subset", "fraction", "seed", "budget")
        },
        "mask": {"size": round(1257 * fraction), "digest": "0" * 16, "rule": "random"},
        "cost": {"train_seconds": 100 * fraction, "images_seen": 125700, "images_per_second": 1257.0},
        "environment": {"versions": {"torch": "2.10.0"}, "device": "x86_64 CPU", "threads": 1, "world_size": 1},
        "evaluation": config["evaluation"],
        "metrics": {
            "linear/top1": top1,
            "knn/top1": top1 - 0.05,
            "linear_5shot/top1": top1 - 0.2,
            "representation/rankme": 30.0,
            "embedding/rankme": 10.0,
        },
        "spectra": {"representation": spectrum, "embedding": spectrum},
    }
    with run.locked(identity, config):
        curve = [
            {
                "step": 10 * i,
                "epoch": i,
                "lr": lr * (1 - i / ROWS),
                "loss": 5 * math.exp(-i / 50) + 0.1 * math.sin(i),
                "online/loss": 2 * math.exp(-i / 30),
                "online/val_top1": top1 * (1 - math.exp(-i / 20)),
            }
            for i in range(1, ROWS + 1)
        ]
        MetricsWriter(run.metrics_file)._write(curve)
        run.finish(results)


def seconds(folder: Path) -> float:
    """Of the command, in a process of its own."""
    command = str(Path(sys.executable).parent / "ssl-report")
    started = time.perf_counter()
    subprocess.run([command, str(folder)], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def division(folder: Path) -> tuple[float, float]:
    """Seconds of reading and of everything after it, in this process, imports apart."""
    started = time.perf_counter()
    cells_of(records_of(find_runs([folder])))
    reading = time.perf_counter() - started
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        report([folder])
    return reading, time.perf_counter() - started - reading


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="how many (default: %(default)s)")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "grid"
        for config in itertools.islice(configs(Path(temporary)), runs):
            make(config)
        taken = [seconds(folder) for _ in range(TURNS)]
        divided = [division(folder) for _ in range(TURNS)]
        size = (folder / "report" / "report.html").stat().st_size
    reading, writing = (statistics.median(part) for part in zip(*divided, strict=True))
    print(f"{runs} runs of {ROWS} rows, {TURNS} turns; report.html: {size / 1e6:.1f} MB")
    print(f"ssl-report: {statistics.median(taken):.2f} s ({', '.join(f'{s:.2f}' for s in taken)}), target < {TARGET:g}")
    print(f"reading : writing = {reading:.2f} s : {writing:.2f} s = 1 : {writing / reading:.1f}")


if __name__ == "__main__":
    main()
