"""TensorBoard."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import forget_from
from ssl_lightning.runs.results import costs


class TensorBoard(TensorBoardLogger):
    """Event files in `tensorboard/` of the run's folder.

    Raises:
        UserError: TensorBoard is not installed.
    """

    folder: Path
    """Where event files go; set before the first."""

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "logger=tensorboard needs a package that is not installed: pip install 'ssl-lightning[tensorboard]'"
            )
        super().__init__(save_dir="", name="", version="")

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    def save(self) -> None:
        """Nothing: what Lightning would write into an hparams.yaml is in the run's config.yaml."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Has TensorBoard forget what was logged after the optimizer step, by a process that was killed."""
        forget_from(self, step + 1)


def log_to_tensorboard(
    logger: TensorBoardLogger,
    hyperparameters: Mapping[str, Any],
    results: Mapping[str, Any],
    figures: Mapping[str, Path],
) -> None:
    import numpy as np
    from PIL import Image

    step = results["cost"]["optimizer_steps"]
    metrics = {f"results/{name}": value for name, value in results["metrics"].items()}
    logger.log_hyperparams(dict(hyperparameters), metrics, step)
    logger.log_metrics(costs(results), step)
    for name, file in figures.items():
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(f"figures/{name}", pixels, step, dataformats="HWC")
    logger.experiment.close()
