"""What `logger.wandb.artifacts=true` hands over of a run, and whether that was asked for."""

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError, warn
from ssl_lightning.loggers.artifacts import Artifacts
from ssl_lightning.pipeline.export import write_export
from ssl_lightning.runs.run import Run
from ssl_lightning.subsets.file import read_positions
from ssl_lightning.subsets.ranking import RANKING_FILE

FOLDER = "encoder"
"""Name of the folder in a run's own that holds the encoder as ssl-export writes it."""


def wants_artifacts(config: Mapping[str, Any]) -> bool:
    """Whether `logger=wandb` of this config was told to log them."""
    logger = config.get("logger")
    wandb = logger.get("wandb") if isinstance(logger, Mapping) else None
    return isinstance(wandb, Mapping) and wandb.get("artifacts") is True


def artifacts_of(
    run: Run, config: Mapping[str, Any], results: Mapping[str, Any], trusted: Collection[str] | None = ()
) -> Artifacts | None:
    """Of a run with results whose config asks for them; None, and a line that says why, where its encoder cannot be
    exported. The encoder is written into the run's folder.

    Args:
        trusted: see `load_run`.
    """
    if not wants_artifacts(config):
        return None
    folder = run.folder / FOLDER
    try:
        if folder.is_symlink():
            raise UserError(f"{folder} is a link. Put a folder in its place: nothing is written through it.")
        shutil.rmtree(folder, ignore_errors=True)
        write_export(run, "safetensors", folder, trusted)
    except Exception as error:  # as of a method whose encoder is more than its backbone
        warn(f"exporting the encoder of {run.id} for wandb", error)
        return None
    return Artifacts(folder, used_ranking(config, results))


def used_ranking(config: Mapping[str, Any], results: Mapping[str, Any]) -> Path | None:
    """The file that the images of a run were chosen by, where it is still there. A run may be somebody else's: what is
    neither a ranking nor a list of positions is not handed over, whatever its config names."""
    subset = config.get("subset")
    subset = subset if isinstance(subset, Mapping) else {}
    if isinstance(name := results["mask"].get("ranking"), str) and isinstance(cache := subset.get("cache"), str):
        file = Path(cache).absolute() / "rankings" / Path(name).name
    elif isinstance(path := subset.get("path"), str):
        file = Path(path).absolute()
        file = file / RANKING_FILE if file.is_dir() else file
    else:
        return None
    try:
        read_positions(file)
    except UserError:
        return None
    return file
