"""Files of a run as artifacts of wandb: the ranking that it has used, and the encoder that it has made of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_lightning.lightning_internals import use_new_artifact
from ssl_lightning.loggers.wandb_run import LONGEST_TAG

RANKING, ENCODER = "ranking", "encoder"
"""Their types, with which their names begin."""
DESCRIBED = ("identity", "mask", "metrics", "protocol", "cost", "environment")
"""What of a run's results an encoder's metadata hold."""


@dataclass(frozen=True)
class Artifacts:
    """
    Args:
        encoder: a folder of weights, as ssl-export writes it. It stays where it is until a server has it: wandb's files
            of an offline run name it, and `wandb sync` reads it.
        ranking: of the images, a file that stays likewise; None where the rule keeps none.
    """

    encoder: Path
    ranking: Path | None


def log_artifacts(run: Any, artifacts: Artifacts, results: Mapping[str, Any]) -> None:
    """The same files again make no second version: wandb knows them by their digests.

    Args:
        run: of wandb's.
        results: of ours.
    """
    import wandb

    if artifacts.ranking is not None:
        identity = results["identity"]
        used = wandb.Artifact(
            artifact_name(RANKING, artifacts.ranking.stem),
            RANKING,
            metadata={key: identity[key] for key in ("dataset", "subset")},
        )
        used.add_file(str(artifacts.ranking.absolute()), name=artifacts.ranking.name, policy="immutable")
        use_new_artifact(run, used)
    made = wandb.Artifact(
        artifact_name(ENCODER, str(run.id)),
        ENCODER,
        metadata={key: results[key] for key in DESCRIBED if key in results},
    )
    made.add_dir(str(artifacts.encoder.absolute()), policy="immutable")
    run.log_artifact(made)


def artifact_name(kind: str, of: str) -> str:
    """wandb takes letters, digits, dashes, points and underscores, and not too many."""
    return f"{kind}-{re.sub('[^A-Za-z0-9_.-]', '-', of)[:LONGEST_TAG]}"
