"""ssl-evaluate: what a frozen encoder, of a run or from elsewhere, makes of any labelled dataset."""

import glob
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from ssl_lightning.commands.ending import run_command, run_job
from ssl_lightning.commands.looking import look_or_run
from ssl_lightning.config.hydra import application, quoted
from ssl_lightning.config.schema import EvaluateConfig
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import MEASURED, find_runs


def main() -> None:
    run_command(_look_or_run)


def _look_or_run() -> None:
    sys.argv[1:] = of_several_runs(sys.argv[1:])
    look_or_run(_app, "evaluate", EvaluateConfig)


def of_several_runs(arguments: Sequence[str]) -> list[str]:
    """The arguments: with `run=` a pattern (`'run=runs/x/*'`), or a folder of runs, those of a multirun over the runs
    that have results, with a line on the others.

    Raises:
        UserError: there are none.
    """
    given = list(arguments)
    for i, argument in enumerate(given):
        key, _, value = argument.partition("=")
        name = value[1:-1] if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"" else value
        pattern = Path(name).expanduser()
        if key != "run" or not name or (pattern / "config.yaml").is_file():
            continue
        if not pattern.is_dir() and (pattern.exists() or not glob.has_magic(name)):
            continue
        folders = [pattern] if pattern.is_dir() else sorted(Path(found) for found in glob.glob(str(pattern)))
        found = find_runs([folder for folder in folders if folder.is_dir()])
        measured = [str(run.folder) for run in found if run.status in MEASURED]
        if not measured:
            seen = (
                f"{len(found)} run{'s' * (len(found) != 1)} there, none of them with results"
                if found
                else "no runs there"
            )
            raise UserError(f"{argument}: {seen}. Name the folder of one, or of a sweep: run=runs/<sweep>.")
        if others := len(found) - len(measured):
            print(f"{others} of {len(found)} runs are left out, as they have no results", flush=True)
        given[i] = f"run={','.join(map(quoted, measured))}"
        several = len(measured) > 1 and not {"-m", "--multirun"} & set(given)
        return (["-m"] if several else []) + given
    return given


@application("evaluate")
def _app(config: DictConfig) -> None:
    run_job(lambda: evaluate(config), config.get("debug") is True)


def evaluate(config: DictConfig) -> list[Path]:
    """Makes the evaluation of this config unless it is there, and prints it. Returns its files, one a dataset."""
    from ssl_lightning.config.resolve import resolve

    plain = resolve(config, EvaluateConfig)  # before the heavy imports: wrong input is answered at once
    from ssl_lightning.pipeline.evaluate import evaluate

    return evaluate(plain, named_datasets())


def named_datasets() -> set[str]:
    """Keys of `evaluation.datasets` that the command line names, but for those that it leaves out: who names one wants
    it, while the list in conf/ is of whatever may be there."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return set()
    keys = [override.partition("=")[0] for override in HydraConfig.get().overrides.task if override[:1] != "~"]
    found = [re.search(r"(?:^\+*|@)evaluation\.datasets\.(\w+)", key) for key in keys]
    return {match[1] for match in found if match}


if __name__ == "__main__":  # as jobs of a pool are started
    main()
