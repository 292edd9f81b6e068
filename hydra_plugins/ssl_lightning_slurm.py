"""Makes `hydra/launcher=slurm` known to Hydra, which takes launchers from modules of `hydra_plugins` alone.

Hydra imports this at every start, so what it needs is imported late.
"""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class SlurmLauncher(Launcher):
    """Runs the jobs as an array of SLURM's: `ssl_lightning.launchers.slurm`.

    Args:
        settings: see conf/hydra/launcher/slurm.yaml.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.application = {"hydra_context": hydra_context, "task_function": task_function, "config": config}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from ssl_lightning.launchers.slurm import launch

        return launch(self.settings, self.application, job_overrides, initial_job_idx)
