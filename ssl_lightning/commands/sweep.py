"""ssl-sweep NAME: run a grid from sweeps/NAME.yaml, then report on it; or say how far it is."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssl_lightning.commands import train
from ssl_lightning.commands.ending import report_error, run_application, run_command
from ssl_lightning.commands.looking import parser_of_looking
from ssl_lightning.config.grid import Grid, grid_of, grids_in
from ssl_lightning.config.places import SWEEPS
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import FAIL_FAST, numbered
from ssl_lightning.launchers.journal import journal_of, kept_in
from ssl_lightning.lightning_internals import forget_application

CHOSEN = "hydra_plugins.ssl_lightning_chosen.ChosenLauncher"
ONLY: Mapping[str, Sequence[str]] = {
    "failed": ("failed",),
    "interrupted": ("interrupted",),
    "unfinished": ("failed", "interrupted", "stopped", "to do"),
}
"""States of the jobs that `--only` runs."""
KEEP_SOME_BACK = ("BasicLauncher", "PoolLauncher", "ssl_lightning_slurm.SlurmLauncher")
"""Launchers that can leave jobs that have not begun when another has failed."""


def main() -> None:
    arguments = parser().parse_intermixed_args()
    run_command(lambda: _command(arguments))


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssl-sweep",
        description="Run every job of a grid, then compare them. Started again, finished jobs are skipped.",
        epilog=f"Grids: {', '.join(sorted(grids_in(SWEEPS)))}. Or one of your own: sweeps/NAME.yaml in the folder of "
        "--config-dir, or the path of a YAML file.",
        parents=[parser_of_looking()],
    )
    parser.add_argument("name", help="a grid, or the path of a YAML file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides: key=value, key=a,b,c")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder of configs of your own")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--status", action="store_true", help="say how far the jobs are, and run none")
    instead.add_argument(
        "--sync", action="store_true", help="upload the runs of the jobs to wandb as ssl-sync does, and run none"
    )
    parser.add_argument(
        "--only",
        choices=list(ONLY),
        help="run those jobs alone that have failed, or were interrupted, or all but what is finished or runs",
    )
    failing = parser.add_mutually_exclusive_group()
    failing.add_argument(
        "--retry", type=_times, default=0, metavar="N", help="run what fails or is killed again, up to N times"
    )
    failing.add_argument("--fail-fast", action="store_true", help="start no job once one has failed")
    return parser


def _times(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of times")
    return int(text)


def _command(arguments: argparse.Namespace) -> None:
    if arguments.status or arguments.sync:
        (status if arguments.status else sync)(arguments.name, arguments.overrides, arguments.config_dir)
        return
    how = arguments.only, arguments.retry, arguments.fail_fast
    sweep(arguments.name, arguments.overrides, arguments.config_dir, _looks(arguments), *how)


def _looks(arguments: argparse.Namespace) -> list[str]:
    """The options by which jobs are looked at and not run, as ssl-train takes them."""
    names = ("dry_run", "cfg", "package", "resolve")
    given = {f"--{name.replace('_', '-')}": getattr(arguments, name) for name in names}
    return [part for flag, value in given.items() if value for part in ([flag] if value is True else [flag, value])]


def status(name: str, overrides: Sequence[str], folder: Path | None = None) -> None:
    """Prints how far the jobs of a grid are, whoever runs them. Arguments as of `sweep`."""
    from ssl_lightning.pipeline.sweeps import in_lines, jobs_of

    grid = grid_of(name, overrides, folder)
    print("\n".join(in_lines(grid.file.stem, jobs_of(grid))), flush=True)


def sync(name: str, overrides: Sequence[str], folder: Path | None = None) -> None:
    """Uploads the runs of a grid's jobs that wandb does not have as they are. Arguments as of `sweep`.

    Raises:
        UserError: some could not be uploaded, which are named.
    """
    from ssl_lightning.pipeline.sweeps import jobs_of

    jobs = jobs_of(grid_of(name, overrides, folder))
    runs = [job.run.folder for job in jobs if job.run is not None]
    if len(runs) < len(jobs):
        print(f"{len(jobs) - len(runs)} of {len(jobs)} jobs have no run yet", flush=True)
    if runs:
        from ssl_lightning.pipeline import sync as uploads

        uploads.sync(runs)


def sweep(
    name: str,
    overrides: list[str],
    folder: Path | None = None,
    looks: Sequence[str] = (),
    only: str | None = None,
    retry: int = 0,
    fail_fast: bool = False,
) -> None:
    """Runs the jobs as the launcher does, one after another in this process by default, then prints and writes the
    report: beside the runs, or where they belong to several sweeps, into a folder of the grid's name. The last line
    says how many jobs have finished, and why others have not.

    Jobs that fail do not stop the others; their errors end the command once everything else is done.

    Args:
        folder: of the user's own configs.
        looks: see `commands.looking`; nothing is run where there are any.
        only: of `ONLY`: run those jobs alone.
        retry: how many times those that have failed, or were killed, are run again.
        fail_fast: start no job once one has failed.
    """
    grid = grid_of(name, overrides, folder)
    if looks:
        _begin(grid, overrides, folder)
        sys.argv[1:1] = [*looks, *(["-m"] if "job" in looks else [])]
        configs = train.look_or_train()
        if len(configs) == len(grid.jobs or ()) > 0:
            from ssl_lightning.pipeline.estimating import how_long

            print(how_long(grid, configs), flush=True)
        return
    _refuse(grid, only is not None or retry > 0, fail_fast)
    chosen = None if only is None else _in_states(grid, ONLY[only])
    if chosen is not None and not chosen:
        print(f"No job {'has' if only == 'failed' else 'is'} {only}.", flush=True)
        return
    reported: list[Path] = []
    if only is None and grid.jobs and not grid.launcher.endswith("BasicLauncher"):
        chosen, reported = _left(grid)
    with kept_in(journal_of(grid.runs, grid.file, grid.folders)) as folders:
        failure = None if chosen == [] else _run(grid, overrides, folder, chosen, fail_fast)
        for number in range(1, retry + 1):
            if failure is None:
                break
            failed = _in_states(grid, ONLY["failed"])
            chosen = failed if chosen is None else [job for job in failed if job in chosen]
            if not chosen:
                break
            print(f"Retry {number} of {retry}, jobs: {len(chosen)}", flush=True)
            failure = _run(grid, overrides, folder, chosen)
    folders = sorted({*reported, *(folder.absolute() for folder in folders if any(folder.glob("*/config.yaml")))})
    if folders:
        from ssl_lightning.pipeline.report import report, report_folder

        report(folders, None if len(folders) == 1 else report_folder(grid.runs / grid.file.stem))
    if folders or failure is not None:
        from ssl_lightning.pipeline.sweeps import in_a_line, jobs_of

        print(in_a_line(jobs_of(grid)), flush=True)
    if failure is not None:
        raise failure
    if not folders:
        print("There is nothing to report: no job has kept a run.", flush=True)


def _refuse(grid: Grid, chooses: bool, fail_fast: bool) -> None:
    """
    Args:
        chooses: some of the jobs are to be run.
    """
    if chooses and grid.jobs is None:
        raise UserError(
            "--only and --retry need a grid whose jobs are known, but hydra/sweeper chooses them one by one. Leave "
            "them out: started again, the sweep goes on."
        )
    if fail_fast and not grid.launcher.endswith(KEEP_SOME_BACK):
        raise UserError(
            f"--fail-fast: {grid.launcher} hands over all jobs at once. Choose hydra/launcher=pool, slurm or basic."
        )


def _left(grid: Grid) -> tuple[list[tuple[str, ...]] | None, list[Path]]:
    """Jobs that there is something to do for, None where that is all; and the folders of the sweeps of the others."""
    from ssl_lightning.pipeline.skipping import done_jobs

    assert grid.jobs is not None
    done = done_jobs(grid)
    if not done:
        return None, []
    print(f"{len(done)} of {len(grid.jobs)} jobs are finished", flush=True)
    others = set(grid.jobs) - {job.overrides for job in done}
    folders = {job.run.folder.parent.absolute() for job in done if job.run is not None}
    return [job for job in grid.jobs if job in others], sorted(folders)


def _in_states(grid: Grid, states: Sequence[str]) -> list[tuple[str, ...]]:
    from ssl_lightning.pipeline.sweeps import jobs_of

    return [job.overrides for job in jobs_of(grid) if job.state in states]


def _begin(grid: Grid, overrides: Sequence[str], folder: Path | None) -> None:
    """As if ssl-train had been called."""
    forget_application()
    own = [f"hydra.searchpath=[{', '.join(grid.search)}]"] if folder else []  # else the grid's own counts
    sys.argv = ["ssl-train", "--config-dir", str(grid.file.parent), "--config-name", grid.file.stem, *own, *overrides]


def _run(
    grid: Grid,
    overrides: Sequence[str],
    folder: Path | None,
    chosen: Sequence[tuple[str, ...]] | None,
    fail_fast: bool = False,
) -> Exception | None:
    """Runs jobs, prints their errors, and returns that which says how many there were.

    Args:
        chosen: overrides of the jobs; None for all.
    """
    _begin(grid, overrides, folder)
    with _failing_fast(fail_fast), _choosing(grid, chosen):
        try:
            run_application(train._app)
        except Exception as error:
            report_error(error)
            return error
    return None


@contextmanager
def _failing_fast(asked: bool) -> Iterator[None]:
    if asked:
        os.environ[FAIL_FAST] = "1"
    try:
        yield
    finally:
        os.environ.pop(FAIL_FAST, None)


@contextmanager
def _choosing(grid: Grid, jobs: Sequence[tuple[str, ...]] | None) -> Iterator[None]:
    if jobs is None:
        yield
        return
    from hydra_plugins import ssl_lightning_chosen as launcher

    assert grid.jobs is not None
    launcher.CHOSEN.update(tuple(sorted(job)) for job in jobs)
    launcher.BEHIND[:] = [grid.launcher]
    sys.argv.append(f"hydra.launcher._target_={CHOSEN}")
    try:
        with numbered(grid.jobs):
            yield
    finally:
        launcher.CHOSEN.clear()


if __name__ == "__main__":
    main()
