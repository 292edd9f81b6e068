"""A grid of runs, as its YAML file and the command line have it, before any job of it is composed."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.config.hydra import configs_in, quoted
from ssl_lightning.config.messages import nearest
from ssl_lightning.config.places import CONF, SWEEPS, grids
from ssl_lightning.config.resolve import filled
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import jobs_of_sweeper


@dataclass(frozen=True)
class Grid:
    """
    Args:
        file: YAML.
        search: places where groups are looked for beside the package's, quoted for an override of Hydra's.
        runs: `paths.runs`.
        sweeps: folders in it that may hold runs of its jobs.
        launcher: `_target_` of it.
        at_once: what its settings say of how many jobs it runs at a time; None where they say nothing.
        jobs: overrides of each job, in the order of `--dry-run`; None where a sweeper chooses them one by one.
    """

    file: Path
    search: Sequence[str]
    runs: Path
    sweeps: Sequence[Path]
    launcher: str
    at_once: Any
    jobs: Sequence[tuple[str, ...]] | None

    @property
    def folders(self) -> list[Path]:
        """Of all configs that it may choose from."""
        written = [place.strip('"').removeprefix("file://") for place in self.search]
        return [CONF, *(folder for place in written if (folder := Path(place)).is_dir())]

    def configs(self, jobs: Sequence[Sequence[str]]) -> Iterator[dict[str, Any] | None]:
        """Of jobs, one after another, as plain values, unchecked; None of one that cannot be composed. Takes a good
        tenth of a second each."""
        from hydra import compose
        from hydra.errors import HydraException

        for job in jobs:
            try:
                with configs_in(self.file.parent):
                    config = compose(self.file.stem, [_searched(self.search), *job])
                yield filled(config)  # which finds the package's options by itself
            except (HydraException, OmegaConfBaseException, UserError):
                yield None


def grid_of(name: str, overrides: Sequence[str], folder: Path | None = None) -> Grid:
    """
    Args:
        name: of a grid, or the path of one.
        overrides: of the command line.
        folder: of the user's own configs.

    Raises:
        UserError: there is none, or it is none.
    """
    from hydra import compose
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    file = _file(name, folder)
    search = _search_path(file, folder)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    # Other keys may be of what a job chooses, such as a method.
    plain = [o for o in parsed if not o.is_sweep_override() and re.match(r"(paths|hydra)\.|[^.]*$", o.key_or_group)]
    with configs_in(file.parent):
        try:
            whole = compose(
                file.stem, [_searched(search), *(o.input_line or "" for o in plain)], return_hydra_config=True
            )
        except HydraException as error:
            if "must be a DictConfig" not in str(error):
                raise
            whole = OmegaConf.create()
        if "paths" not in whole:
            raise UserError(
                f"{file} is no grid: it does not build on ssl-train's config. Begin it with the line "
                "defaults: [/train, _self_] (see sweeps/quickstart.yaml)."
            )
        own = [o.input_line or "" for o in parsed if not re.match(r"hydra[./]", o.key_or_group)]
        jobs = jobs_of_sweeper(whole.hydra.sweeper, own)
    runs = Path(whole.paths.runs).expanduser()
    chosen = {o.key_or_group for o in parsed if o.is_sweep_override()} | set(whole.hydra.sweeper.get("params") or {})
    several = "sweep" in chosen or OmegaConf.is_interpolation(whole, "sweep")
    sweeps = sorted(path for path in runs.glob("[!.]*") if path.is_dir()) if several else [runs / str(whole.sweep)]
    launcher = whole.hydra.launcher
    at_once = OmegaConf.create({"is": launcher.get("slots", launcher.get("array_parallelism"))})
    return Grid(file, search, runs, sweeps, launcher._target_, OmegaConf.to_container(at_once)["is"], jobs)  # type: ignore[index,call-overload]


def _searched(search: Sequence[str]) -> str:
    return f"hydra.searchpath=[{', '.join([*search, quoted(str(CONF))])}]"


def _search_path(file: Path, folder: Path | None) -> list[str]:
    """Where groups are looked for beside the package's: the user's own folder, and what a grid says itself; quoted."""
    written = OmegaConf.load(file)
    said = OmegaConf.select(written, "hydra.searchpath") if isinstance(written, DictConfig) else None
    places = [str(folder.resolve())] if folder else []
    if isinstance(said, ListConfig):
        places += OmegaConf.to_container(said)  # type: ignore[arg-type]  # interpolations as they stand
    return [quoted(place) for place in places]


def grids_in(folder: Path) -> set[str]:
    """Names."""
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
    known = set().union(*map(grids_in, places))
    looked = " or ".join(map(str, places))
    raise UserError(f"There is no grid {name!r} in {looked}, and no such file; {nearest(name, known)}")
