"""A folder of many runs, and what a report on them takes: `python -m tests.reports.many 500`."""

import argparse
import math
import tempfile
import time
from pathlib import Path

from ssl_lightning.files import write_text
from tests.reports.test_report import Folder

METHODS = ("simclr", "directclr", "byol", "barlow_twins", "vicreg")
FRACTIONS = (0.05, 0.1, 0.2, 0.5, 1.0)
STEPS = 100
"""Rows of each metrics.csv."""


def many(folder: Path, number: int) -> Folder:
    """Finished runs of a grid of methods, fractions and batch sizes, in as many seeds as it takes, with curves."""
    grid = Folder(folder)
    for i in range(number):
        rest, method = divmod(i, len(METHODS))
        rest, fraction = divmod(rest, len(FRACTIONS))
        seed, size = divmod(rest, 2)
        top1 = 0.5 + 0.4 * FRACTIONS[fraction] + 0.01 * method + 0.001 * (seed * 7 % 5)
        run = grid.finish(
            top1,
            f"method={METHODS[method]}",
            f"batch_size={(128, 256)[size]}",
            seed=seed,
            fraction=FRACTIONS[fraction],
            untrained=0.1 + seed / 1000,
            seconds=100 * FRACTIONS[fraction] + method,
        )
        lines = [
            f"{10 * step},{step},{0.1 / step},{3 / math.sqrt(step) + seed / 100:.6f},{top1 * (1 - 1 / (step + 1)):.4f}"
            for step in range(1, STEPS + 1)
        ]
        write_text(run.metrics_file, "step,epoch,lr,loss,online/val_top1\n" + "\n".join(lines) + "\n")
    return grid


def main() -> None:
    from ssl_lightning.reports.content import content_of
    from ssl_lightning.reports.files import write
    from ssl_lightning.reports.plots import plots_of
    from ssl_lightning.reports.records import records_of
    from ssl_lightning.runs.run import find_runs

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int, nargs="?", default=500)
    parser.add_argument("--folder", type=Path, help="keep the runs there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary) / "runs"
        if not folder.exists():
            many(folder, asked.number)
        output = folder / "report"
        clock = [time.perf_counter()]

        def took(what: str) -> None:
            clock.append(time.perf_counter())
            print(f"{what}: {clock[-1] - clock[-2]:.2f} s", flush=True)

        runs = find_runs([folder])
        took(f"finding {len(runs)} runs")
        records = records_of(runs)
        took("reading them")
        content = content_of(records)
        took(f"comparing {len(content.cells)} cells")
        figures = plots_of(content.tables, output, output / "narrow")
        took(f"{2 * len(figures)} plots")
        write(content, output, figures)
        took("writing")
        print(f"report.html: {(output / 'report.html').stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
