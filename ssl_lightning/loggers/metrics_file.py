"""metrics.csv as a logger of Lightning's."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.runs.metrics import MetricsWriter


class MetricsFile(Logger):
    """Hands rows to a `MetricsWriter`. A resumed run first drops what lies after the checkpoint.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._writer = MetricsWriter(path)

    @property
    def name(self) -> str:
        return "metrics"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """The run's config.yaml holds them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:
        self._writer.append({"step": step, **metrics})

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Forget the rows after the optimizer step."""
        self._writer.rewind(step)
