"""Makes `hydra/launcher=ray` known to Hydra, which takes launchers from modules of `hydra_plugins` alone.

Hydra imports this at every start, so what it needs is imported late.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    """Runs each job as a task of Ray's: `ssl_lightning.launchers.ray`.

    Args:
        settings: see conf/hydra/launcher/ray.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function, self.config = task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from ssl_lightning.launchers.ray import launch

        return launch(self.settings, self.task_function, self.config, job_overrides, initial_job_idx)
