"""What may still be done with a run that is finished."""

import contextlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError, warn
from ssl_lightning.evaluation.protocol import protocol_in, same
from ssl_lightning.files import locked, write_json
from ssl_lightning.pipeline.measuring import measured
from ssl_lightning.pipeline.parts import Parts
from ssl_lightning.pipeline.profiling import name_profile
from ssl_lightning.processes import ALONE
from ssl_lightning.reports.figures import run_figures
from ssl_lightning.runs.loading import load_run
from ssl_lightning.runs.reading import unless_damaged
from ssl_lightning.runs.results import summary
from ssl_lightning.runs.run import SCHEMA, Run


def results_of(run: Run, speaks: bool) -> dict[str, Any] | None:
    """Of a finished run; None where they cannot be read, and are made again from its checkpoint."""
    return unless_damaged(run.results, "It is made again from the checkpoint.", speaks)


def bring_up_to_date(config: dict[str, Any], parts: Parts, results: dict[str, Any], quiet: bool) -> None:
    """Evaluates a finished run further, where another protocol is asked for than it was evaluated under, and keeps that
    beside its results. It takes the checkpoint and the evaluation's dataset, nothing else."""
    run = parts.run
    kept = [results, *run.evaluations()]
    former = next((made for made in kept if same(protocol_in(made), parts.protocol)), None)
    if former is not None and ("untrained" in former or not parts.suite.untrained):
        _draw_what_is_missing(parts, results)
        if not quiet:  # a proxy is looked up again and again
            print(f"{run.id} is finished: {_summary(results, former, parts)}", flush=True)
            name_profile(parts.trainer, run)
        return
    main = protocol_in(results)
    if former is None and (main.dataset, main.settings) == (parts.protocol.dataset, parts.protocol.settings):
        print(f"{run.id} is evaluated again: the images of {main.dataset} are others by now, or read in another way.")
    with run.held():
        parts.suite.check(parts.evaluated)
        device = parts.trainer.strategy.root_device
        made = measured(config, parts, load_run(run.folder, trusted=None).method, ALONE, device)
        if former is results:
            run.finish(results | {"untrained": made["untrained"]})
        else:
            name = f"{parts.protocol.dataset}-{parts.protocol.digest}"
            with locked(
                file := run.evaluation_file(name)
            ):  # ssl-evaluate, which may be at another one, leaves it alone
                write_json(file, {"schema": SCHEMA, "run": run.id, **made})
        shutil.rmtree(run.folder / "features", ignore_errors=True)
        print(f"{run.id} {_summary(results, made, parts)}", flush=True)
        name_profile(parts.trainer, run)


def _summary(results: Mapping[str, Any], made: Mapping[str, Any], parts: Parts) -> str:
    """Of an evaluation; of one that is not the run's own, with its protocol."""
    name = "" if made is results else f"({parts.protocol.name(parts.dataset.name)}) "
    return name + summary({**results, "metrics": made["metrics"]})


def figures_of(parts: Parts, results: dict[str, Any]) -> dict[str, Path]:
    """None, and a line that says why, where they cannot be drawn."""
    try:
        return run_figures(parts.run, results)
    except Exception as error:
        if parts.rehearsal:
            raise
        warn(f"drawing the figures of {parts.run.id}", error)
        return {}


def _draw_what_is_missing(parts: Parts, results: dict[str, Any]) -> None:
    """A process that was killed while it drew has left no figures, or a part of one."""
    run = parts.run
    if run.drawn:
        return
    with contextlib.suppress(OSError, UserError), run.held():  # others may be at it, or the folder be only readable
        figures_of(parts, results)
