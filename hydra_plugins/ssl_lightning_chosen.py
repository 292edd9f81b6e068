"""A launcher that runs some jobs of a multirun by the one in whose place it is, for `ssl_lightning.commands.sweep`.

Hydra takes launchers from modules of `hydra_plugins` alone.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict

CHOSEN: set[tuple[str, ...]] = set()
"""Overrides of the jobs that are run, of each sorted."""
BEHIND: list[str] = []
"""The `_target_` of the launcher that runs them."""


class ChosenLauncher(Launcher):
    """
    Args:
        settings: of the launcher that runs them.
    """

    def __init__(self, **settings: Any) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        config = deepcopy(config)
        with open_dict(config):
            config.hydra.launcher._target_ = BEHIND[0]
        self.behind = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        jobs = [job for job in job_overrides if tuple(sorted(filter_overrides(job))) in CHOSEN]
        return self.behind.launch(jobs, initial_job_idx) if jobs else []
