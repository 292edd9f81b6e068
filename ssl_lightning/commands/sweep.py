"""ssl-sweep NAME: run a grid from sweeps/NAME.yaml, then report on it."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from ssl_lightning.commands import train
from ssl_lightning.commands.ending import report_error, run_application, run_command
from ssl_lightning.commands.looking import look_or_run, parser_of_looking
from ssl_lightning.config.hydra import configs_in, quoted
from ssl_lightning.config.messages import nearest
from ssl_lightning.config.places import CONF, SWEEPS, grids
from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import folders_of_jobs
from ssl_lightning.lightning_internals import forget_application


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="ssl-sweep",
        description="Run every job of a grid, then compare them. Started again, finished jobs are skipped.",
        epilog=f"Grids: {', '.join(sorted(_grids(SWEEPS)))}. Or one of your own: sweeps/NAME.yaml in the folder of "
        "--config-dir, or the path of a YAML file.",
        parents=[parser_of_looking()],
    )
    parser.add_argument("name", help="a grid, or the path of a YAML file")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides: key=value, key=a,b,c")
    parser.add_argument("--config-dir", "-cd", type=Path, help="a folder of configs of your own")
    arguments = parser.parse_intermixed_args()
    run_command(lambda: sweep(arguments.name, arguments.overrides, arguments.config_dir, _looks(arguments)))


def _looks(arguments: argparse.Namespace) -> list[str]:
    """The options by which jobs are looked at and not run, as ssl-train takes them."""
    names = ("dry_run", "cfg", "package", "resolve")
    given = {f"--{name.replace('_', '-')}": getattr(arguments, name) for name in names}
    return [part for flag, value in given.items() if value for part in ([flag] if value is True else [flag, value])]


def sweep(name: str, overrides: list[str], folder: Path | None = None, looks: Sequence[str] = ()) -> None:
    """Runs the jobs as the launcher does, one after another in this process by default, then prints and writes the
    report: beside the runs, or where they belong to several sweeps, into a folder of the grid's name.

    Jobs that fail do not stop the others; their errors end the command once everything else is done.

    Args:
        folder: of the user's own configs.
        looks: see `commands.looking`; nothing is run where there are any.
    """
    file = _file(name, folder)
    search = _search_path(file, folder)
    runs = _runs(file, search, overrides)
    forget_application()

    own = [f"hydra.searchpath=[{', '.join(search)}]"] if folder else []  # else the grid's own counts
    sys.argv = ["ssl-train", "--config-dir", str(file.parent), "--config-name", file.stem, *own, *overrides]
    if looks:
        sys.argv[1:1] = [*looks, *(["-m"] if "job" in looks else [])]
        look_or_run(train._app, "train")
        return
    failure: Exception | None = None
    with folders_of_jobs(runs) as folders:
        try:
            run_application(train._app)
        except Exception as error:
            report_error(error)
            failure = error
    folders = [folder for folder in folders if any(folder.glob("*/config.yaml"))]
    if folders:
        from ssl_lightning.pipeline.report import report, report_folder

        report(folders, None if len(folders) == 1 else report_folder(runs / file.stem))
    if failure is not None:
        raise failure
    if not folders:
        print("There is nothing to report: no job has kept a run.", flush=True)


def _runs(file: Path, search: Sequence[str], overrides: Sequence[str]) -> Path:
    """Where a grid, a YAML file, puts its runs."""
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    # Other keys may be of what a job chooses, such as a method.
    plain = [o for o in parsed if not o.is_sweep_override() and re.match(r"paths\.|[^.]*$", o.key_or_group)]
    places = ", ".join([*search, quoted(str(CONF))])
    with configs_in(file.parent):
        try:
            config = compose(file.stem, [f"hydra.searchpath=[{places}]", *(o.input_line or "" for o in plain)])
        except HydraException as error:
            if "must be a DictConfig" not in str(error):
                raise
            config = OmegaConf.create()
    if "paths" not in config:
        raise UserError(
            f"{file} is no grid: it does not build on ssl-train's config. Begin it with the line "
            "defaults: [/train, _self_] (see sweeps/quickstart.yaml)."
        )
    return Path(config.paths.runs).expanduser()


def _search_path(file: Path, folder: Path | None) -> list[str]:
    """Where groups are looked for beside the package's: the user's own folder, and what a grid says itself; quoted."""
    written = OmegaConf.load(file)
    said = OmegaConf.select(written, "hydra.searchpath") if isinstance(written, DictConfig) else None
    places = [str(folder.resolve())] if folder else []
    if isinstance(said, ListConfig):
        places += OmegaConf.to_container(said)  # type: ignore[arg-type]  # interpolations as they stand
    return [quoted(place) for place in places]


def _grids(folder: Path) -> set[str]:
    return {file.stem for file in grids(folder)}


def _file(name: str, folder: Path | None) -> Path:
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path.resolve()
    if folder is not None and not folder.is_dir():
        raise UserError(f"--config-dir {folder}: there is no such folder. Check the path.")
    places = [*([folder.resolve() / "sweeps"] if folder else []), SWEEPS]
    for place in places:
        if (file := place / f"{name}.yaml").is_file():
            return file
    known = set().union(*map(_grids, places))
    looked = " or ".join(map(str, places))
    raise UserError(f"There is no grid {name!r} in {looked}, and no such file; {nearest(name, known)}")


if __name__ == "__main__":
    main()
