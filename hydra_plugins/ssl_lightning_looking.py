"""A launcher that only looks at the jobs of a multirun, for `ssl_lightning.commands.looking`.

Hydra takes launchers from modules of `hydra_plugins` alone.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class LookingLauncher(Launcher):
    """Calls the task with the config of each job, in this process, and makes neither folders nor logs.

    Args:
        settings: of the launcher in whose place it is; not looked at.
    """

    def __init__(self, **settings: Any) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.task_function, self.config = hydra_context.config_loader, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            config = self.loader.load_sweep_config(self.config, list(overrides))
            with open_dict(config):
                config.hydra.job.num = number
            HydraConfig.instance().set_config(config)
            task = deepcopy(config)
            with open_dict(task):
                del task["hydra"]
            self.task_function(task)
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED) for overrides in job_overrides]
