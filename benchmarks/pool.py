"""What hydra/launcher=pool costs: seconds a job beyond those of the same commands by themselves.

    python -m benchmarks.pool

Jobs that are finished already, so that nearly all of their time is what starting takes, on one slot, by turns with
the same commands one after another and with the launcher that runs all jobs in one process.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

JOBS, TURNS = 4, 3
ARGUMENTS = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    "subset.fraction=0.2",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)
ALL = f"seed={','.join(map(str, range(JOBS)))}"


def seconds(folder: str, *arguments: str) -> float:
    command = [str(Path(sys.executable).parent / "ssl-train"), *arguments, *ARGUMENTS]
    started = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    alone, pool, one_process = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        seconds(folder, "-m", ALL)
        for _ in range(TURNS):
            alone.append(sum(seconds(folder, f"seed={seed}") for seed in range(JOBS)))
            pool.append(seconds(folder, "-m", ALL, "hydra/launcher=pool", "hydra.launcher.slots=1"))
            one_process.append(seconds(folder, "-m", ALL))
    print(f"{JOBS} finished jobs, one slot, {TURNS} turns; seconds a job")
    for name, measured in (("by themselves", alone), ("pool", pool), ("one process", one_process)):
        print(f"{name:14} {statistics.median(measured) / JOBS:6.2f}")
    ratios = [a / b for a, b in zip(pool, alone, strict=True)]
    print(f"pool over by themselves: {statistics.median(ratios):.2f} ({', '.join(f'{r:.2f}' for r in ratios)})")


if __name__ == "__main__":
    main()
