"""Which runs of a sweep's folder are those of the jobs of a grid that have told nothing: runs that a former version has
made, or another machine whose files were brought here."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.config.grid import Grid
from ssl_lightning.config.identity import without
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import Run


def runs_of(grid: Grid, known: Mapping[tuple[str, ...], Path]) -> dict[tuple[str, ...], Path]:
    """Folders of runs by the overrides of the grid's jobs. A run is that of a job whose config is its own, but for what
    cannot change the encoder; of several, the one that is called as it would be, else the latest.

    Args:
        known: of jobs that have told theirs. The others are composed, where there are runs that they may have made.
    """
    claimed = {folder.resolve() for folder in known.values()}
    others = []
    for file in sorted(file for folder in grid.sweeps for file in folder.glob("*/config.yaml")):
        if file.parent.resolve() not in claimed:
            try:
                identity, own = Run(file.parent).described()
                others.append((file.stat().st_mtime, file.parent, identity, without(own, list(identity.ignored))))
            except (UserError, OSError):
                continue  # damaged: nobody knows what it is
    found = dict(known)
    names = {folder: identity.run_name for _, folder, identity, _ in others}
    others.sort(key=lambda one: -one[0])
    possible = {job: [one for one in others if _fits(job, one[3])] for job in grid.jobs or () if job not in known}
    asked = [job for job, ones in possible.items() if ones]
    for job, config in zip(asked, grid.configs(asked), strict=True):
        if config is None:
            continue
        near = [one for one in possible[job] if one[1].parent == _sweep(config)]
        if made := [folder for _, folder, identity, own in near if own == without(config, list(identity.ignored))]:
            found[job] = next((folder for folder in made if folder.name == names[folder]), made[0])
    return found


def _fits(job: tuple[str, ...], config: Mapping[str, Any]) -> bool:
    """Whether the part of a run's config that counts holds the values that the overrides give; of groups, it does not
    say."""
    for override in job:
        key, _, text = override.lstrip("+").partition("=")
        node: Any = config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if type(node) in (int, float, bool, str):
            try:
                value = OmegaConf.from_dotlist([f"value={text}"]).value
            except (OmegaConfBaseException, ValueError):
                continue
            if type(value) in (int, float, bool) and type(node) is not str and value != node:
                return False
    return True


def _sweep(config: Mapping[str, Any]) -> Path:
    return Path(config["paths"]["runs"]) / str(config["sweep"])
