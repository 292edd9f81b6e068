"""How soon a training reaches a goal: records, each by the whole command that makes them.

    python -m benchmarks.ladder RUNG [--seeds 0 1 2] [--folder cifar10] [--records ladder.jsonl] [key=value ...]

Rules. Time is wall time of `ssl-train` from its start to its last checkpoint, with imports, loading and compiling; the
evaluation comes after, apart. What is evaluated is the last epoch's encoder, once, on one crop of each image of the
whole test split. Every seed counts: a goal is reached where all seeds reach it, and the slowest one's time is the
record's. Further overrides are part of the record.

CIFAR-10 is read from SSL_DATA, or from --folder (train/<class>/*, test/<class>/*). A line of JSON goes to the records,
what each command prints beside it, and a row for the table of docs/speed.md to the terminal. Without a GPU, or with
--toy, a rung is of a toy size on the CPU, and its record is worth nothing.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import ROOT, in_folder
from benchmarks.training import clock
from ssl_lightning.config.hydra import quoted
from ssl_lightning.runs.run import find_runs

GPU = ("trainer=gpu", "+trainer.benchmark=true", "trainer.precision=bf16-mixed", "float32_matmul=high")
TOY = (
    *("dataset=digits", "augment=digits", "backbone=resnet_tiny", "trainer=cpu", "trainer.max_epochs=1"),
    *("trainer.precision=32-true", "optimizer.warmup_epochs=0", "batch_size=64", "evaluation.few_percents=[]"),
)


@dataclass(frozen=True)
class Rung:
    """
    Args:
        metric: of results.json.
        goal: least value of it.
        minutes: within which it is to be reached; None: as soon as possible.
        published: what others say of it.
        overrides: of ssl-train.
    """

    name: str
    metric: str
    goal: float
    minutes: float | None
    published: str
    overrides: tuple[str, ...]


RECIPE = "experiment=simclr_cifar10_lightly"
RUNGS = {
    rung.name: rung
    for rung in (
        Rung("1", "knn/top1", 0.848, None, "87 minutes, A6000 (lightly; maximum over epochs)", (RECIPE, *GPU)),
        # The others have no recipe that anybody has measured: a first guess, to be replaced by what does better.
        Rung(
            *("2", "linear/top1", 0.80, None, ""),
            (RECIPE, *GPU, "trainer.max_epochs=30", "optimizer.warmup_epochs=2"),
        ),
        Rung(
            *("3", "linear/top1", 0.90, 5.0, ""),
            (RECIPE, *GPU, "method.temperature=0.2", "trainer.max_epochs=220", "optimizer.warmup_epochs=5"),
        ),
    )
}


@dataclass(frozen=True)
class Climb:
    """A command of one seed: seconds to its last checkpoint, and the metric then."""

    seed: int
    seconds: float
    value: float
    device: str
    torch: str
    log: str


def climb(rung: Rung, seed: int, overrides: Sequence[str], log: Path) -> Climb:
    """Runs the command; ends this one where it fails."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "clock.json"
        own = [f"paths.runs={quoted(f'{folder}/runs')}", f"seed={seed}", "trainer.enable_progress_bar=false"]
        command = [sys.executable, "-m", "ssl_lightning.commands.train", *own, *clock(times), *overrides]
        started = time.monotonic()
        with log.open("w") as output:
            output.write(f"{shlex.join(command)}\n")
            output.flush()
            code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT).returncode
        if code:
            sys.exit(f"ssl-train ended with exit code {code}; {log} says why.")
        (run,) = find_runs([Path(folder) / "runs" / "default"])
        seconds = json.loads(times.read_text())["ended"] - started
        results = run.results()
    environment = results["environment"]
    versions = environment["versions"]["torch"]
    return Climb(seed, round(seconds, 1), results["metrics"][rung.metric], environment["device"], versions, log.name)


def record_of(rung: Rung, climbs: Sequence[Climb], overrides: Sequence[str], toy: bool) -> dict[str, Any]:
    """What a line of the records holds."""
    seconds = max(one.seconds for one in climbs)
    in_time = rung.minutes is None or seconds <= 60 * rung.minutes
    return {
        "rung": rung.name,
        "goal": f"{rung.metric} ≥ {rung.goal}" + (f" in ≤ {rung.minutes:g} minutes" if rung.minutes else ""),
        "reached": in_time and all(one.value >= rung.goal for one in climbs),
        "seconds": seconds,
        "toy": toy,
        "date": time.strftime("%Y-%m-%d"),
        "cuda": torch.version.cuda,
        "overrides": list(overrides),
        "seeds": [asdict(one) for one in climbs],
    }


def row_of(record: dict[str, Any]) -> str:
    """Of the table in docs/speed.md."""
    seeds = record["seeds"]
    values = ", ".join(f"{100 * one['value']:.1f}" for one in seeds)
    device = f"{seeds[0]['device']}, torch {seeds[0]['torch']}" + (" (toy, worth nothing)" if record["toy"] else "")
    cells = [
        f"{record['rung']}: {record['goal']}",
        "yes" if record["reached"] else "no",
        f"{values} %",
        f"{record['seconds']:,.0f} s",
        device,
        ", ".join(str(one["seed"]) for one in seeds),
        ", ".join(one["log"] for one in seeds),
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rung", choices=RUNGS)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="further overrides of ssl-train")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--folder", type=Path, help="CIFAR-10 as files; by default as published, in SSL_DATA")
    parser.add_argument("--records", type=Path, default=Path("ladder.jsonl"), help="(default: ladder.jsonl)")
    parser.add_argument("--toy", action="store_true", help="a toy size on the CPU, as without a GPU")
    arguments = parser.parse_intermixed_args()
    toy = arguments.toy or not torch.cuda.is_available()
    if toy:
        print("A toy on the CPU: its record is worth nothing.", flush=True)
    rung = RUNGS[arguments.rung]
    data = in_folder(arguments.folder.resolve()) if arguments.folder and not toy else []
    overrides = [*rung.overrides, *data, *(TOY if toy else ()), *arguments.overrides]
    stem = arguments.records.with_suffix("")
    moment = time.strftime("%Y%m%d-%H%M%S")
    climbs = [
        climb(rung, seed, overrides, Path(f"{stem}-{rung.name}-s{seed}-{moment}.txt")) for seed in arguments.seeds
    ]
    record = record_of(rung, climbs, overrides, toy)
    with arguments.records.open("a") as lines:
        lines.write(json.dumps(record) + "\n")
    print(row_of(record))


if __name__ == "__main__":
    main()
