"""ssl-select: rank the training images of a dataset, once, and show what the ranking prefers; compare several."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import report_error, run_command, run_job
from ssl_lightning.commands.looking import look_or_run
from ssl_lightning.config.grid import grid_of
from ssl_lightning.config.hydra import application
from ssl_lightning.config.places import CONF
from ssl_lightning.config.schema import SelectConfig
from ssl_lightning.launchers.journal import is_first, journal_here, journal_of, kept_in


def main() -> None:
    run_command(lambda: look_or_run(_select, "select", SelectConfig))


def _select() -> None:
    """Runs the application, and compares the rankings of a multirun, and lists, once all jobs have ended. Those of jobs
    that have failed are missing."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--multirun", "-m", action="store_true")
    parser.add_argument("--config-dir", "-cd", type=Path)
    asked, rest = parser.parse_known_args(sys.argv[1:])
    overrides = [word for word in rest if not word.startswith("-") and "=" in word]
    several = asked.multirun or any(word.startswith("lists=") for word in overrides)
    if not several or journal_here() is not None or not is_first():
        _app()
        return
    grid = grid_of(str(CONF / "select.yaml"), overrides, asked.config_dir)
    if not asked.multirun:  # Hydra takes the words of its one job as they stand
        grid = replace(grid, jobs=[tuple(word for word in overrides if not word.startswith(("hydra.", "hydra/")))])
    failure = None
    with kept_in(journal_of(grid.runs, grid.file, grid.folders)):
        try:
            _app()
        except Exception as error:
            report_error(error)
            failure = error
    from ssl_lightning.pipeline.compare import compare

    compare(grid)
    if failure is not None:
        raise failure


@application("select")
def _app(config: DictConfig) -> None:
    run_job(lambda: select(config), config.get("debug") is True)


def select(config: DictConfig) -> Path | None:
    """Makes the ranking of this config unless it is there, and describes it. Returns its file."""
    from ssl_lightning.config.resolve import resolve

    plain = resolve(config, SelectConfig)  # before the heavy imports: wrong input is answered at once
    from ssl_lightning.pipeline.rank import rank

    return rank(plain)


if __name__ == "__main__":  # as jobs of a pool are started
    main()
