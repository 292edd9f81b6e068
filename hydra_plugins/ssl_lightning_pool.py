"""Makes `hydra/launcher=pool` known to Hydra, which takes launchers from modules of `hydra_plugins` alone.

Hydra imports this at every start, so the pool itself is imported late.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class PoolLauncher(Launcher):
    """Runs each job as a process of its own: `ssl_lightning.launchers.pool`.

    Args:
        slots: see conf/hydra/launcher/pool.yaml.
    """

    def __init__(self, slots: Any = "auto") -> None:
        self.slots = slots

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.task_function, self.config = task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from ssl_lightning.launchers.pool import launch
        from ssl_lightning.runs.progress import progress_of_job

        return launch(self.task_function, self.config, self.slots, job_overrides, initial_job_idx, progress_of_job)
