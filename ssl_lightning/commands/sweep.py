"""ssl-sweep NAME: run a grid from sweeps/NAME.yaml, then report on it."""

import argparse
import sys
from pathlib import Path

from ssl_lightning.commands.ending import report_error, run_application, run_command
from ssl_lightning.config.messages import nearest
from ssl_lightning.config.places import CONF, SWEEPS
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import folders_of_jobs
from ssl_lightning.lightning_internals import forget_application


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="ssl-sweep",
        description="Run every job of a grid, then compare them. Started again, finished jobs are skipped.",
        epilog=f"Grids: {', '.join(sorted(_grids()))}. Or the path of a YAML file of your own.",
    )
    parser.add_argument("name", help="a grid, or the path of a YAML file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides: key=value, key=a,b,c")
    arguments = parser.parse_args()
    run_command(lambda: sweep(arguments.name, arguments.overrides))


def sweep(name: str, overrides: list[str]) -> None:
    """Runs the jobs as the launcher does, one after another in this process by default, then prints and writes the
    report: beside the runs, or where they belong to several sweeps, into a folder of the grid's name.

    Jobs that fail do not stop the others; their errors end the command once everything else is done.
    """
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    from ssl_lightning.commands import train
    from ssl_lightning.config.hydra import configs_in, quoted
    from ssl_lightning.pipeline.report import report, report_folder

    file = _file(name)
    plain = [o.input_line for o in OverridesParser.create().parse_overrides(overrides) if not o.is_sweep_override()]
    with configs_in(file.parent):
        try:
            config = compose(file.stem, [f"hydra.searchpath=[{quoted(str(CONF))}]", *(o for o in plain if o)])
        except HydraException as error:
            if "must be a DictConfig" not in str(error):
                raise
            config = OmegaConf.create()
    if "paths" not in config:
        raise UserError(
            f"{file} is no grid: it does not build on ssl-train's config. Begin it with the line "
            "defaults: [/train, _self_] (see sweeps/quickstart.yaml)."
        )
    runs = Path(config.paths.runs).expanduser()
    forget_application()

    sys.argv = ["ssl-train", "--config-dir", str(file.parent), "--config-name", file.stem, *overrides]
    failure: Exception | None = None
    with folders_of_jobs(runs) as folders:
        try:
            run_application(train._app)
        except Exception as error:
            report_error(error)
            failure = error
    folders = [folder for folder in folders if any(folder.glob("*/config.yaml"))]
    if folders:
        report(folders, None if len(folders) == 1 else report_folder(runs / file.stem))
    if failure is not None:
        raise failure
    if not folders:
        print("There is nothing to report: no job has kept a run.", flush=True)


def _grids() -> set[str]:
    return {file.stem for file in SWEEPS.glob("*.yaml")}


def _file(name: str) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.resolve()
    file = SWEEPS / f"{name}.yaml"
    if not file.is_file():
        raise UserError(f"There is no grid {name!r} in {SWEEPS}, and no such file; {nearest(name, _grids())}")
    return file


if __name__ == "__main__":
    main()
