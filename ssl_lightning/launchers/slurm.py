"""The jobs of a multirun as an array of SLURM's: handed over by submitit, watched until the last has ended."""

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.launchers.answer import refuse_to_answer
from ssl_lightning.launchers.job import numbers, say_how_jobs_ended, titles
from ssl_lightning.launchers.queue import watch

_OF_PROCESSES = re.compile(r"[+~]*(trainer|experiment)\b")
"""Overrides on which the processes of a job may depend."""
_OF_ALL = (
    *("name", "nodes", "tasks_per_node", "gpus_per_node", "cpus_per_task", "mem_gb", "timeout_min"),
    "stderr_to_stdout",
)
"""Parameters that submitit has for SLURM and other places alike."""


def launch(
    settings: Mapping[str, Any], application: Mapping[str, Any], overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Runs jobs of a multirun to their ends, or until this process is asked to end, which they survive.

    Args:
        settings: of conf/hydra/launcher/slurm.yaml.
        application: what Hydra sets a launcher up with.
        overrides: of each job.
        first: number of the first job.

    Raises:
        UserError: SLURM does not take the jobs; or names those that failed, after all have ended.
        SystemExit: 128 + the number of the signal, where SIGINT or SIGTERM has ended the waiting.
    """
    refuse_to_answer(application["config"].hydra, "slurm")
    parameters = _parameters(settings, application, overrides)
    submitit, task = _submitit(), _task(application)
    called = dict(zip(numbers(overrides, first), overrides, strict=True))
    arguments = [
        (list(values), "hydra.sweep.dir", number, f"job_id_for_{number}", Singleton.get_state())
        for number, values in called.items()
    ]
    try:
        executor = submitit.AutoExecutor(
            parameters.pop("submitit_folder"), cluster="slurm", slurm_max_num_timeout=parameters.pop("max_num_timeout")
        )
        executor.update_parameters(
            **{name if name in _OF_ALL else f"slurm_{name}": value for name, value in parameters.items()}
        )
        jobs = executor.map_array(task, *zip(*arguments, strict=True))
    except (RuntimeError, ValueError, TypeError, NameError) as error:
        said = in_one_line(error).replace("sbatch: error: ", "")
        raise UserError(
            f"SLURM was not given the jobs: {said}. Change hydra.launcher.*, see ssl-train --help hydra/launcher/slurm."
        ) from error
    name = jobs[0].job_id.partition("_")[0]
    limit = f", at most {parameters['array_parallelism']} at a time" if len(jobs) > 1 else ""
    print(f"SLURM's job {name}: {len(jobs)} job{'s' * (len(jobs) > 1)}{limit}", flush=True)
    for number, job, title in zip(called, jobs, titles(overrides), strict=True):
        print(f"#{number} is {job.job_id}: {title}", flush=True)
    try:
        ended, left = watch(dict(zip(called, jobs, strict=True)), called)
    except (KeyboardInterrupt, SystemExit) as asked:
        print(f"\nThe jobs go on in SLURM. `scancel {name}` ends them; what they have saved is kept.", file=sys.stderr)
        sys.exit(130 if isinstance(asked, KeyboardInterrupt) else asked.code)
    say_how_jobs_ended(ended, left)
    return [JobReturn(overrides=values, status=JobStatus.COMPLETED) for values in overrides]


def _submitit() -> Any:
    try:
        import submitit
    except ModuleNotFoundError:
        raise UserError(
            "hydra/launcher=slurm needs submitit, which is not installed: pip install 'ssl-lightning[slurm]'."
        ) from None
    if missing := [command for command in ("sbatch", "srun", "squeue") if shutil.which(command) is None]:
        raise UserError(
            f"hydra/launcher=slurm hands jobs over to SLURM, but there is no {missing[0]} here. Start the command on a "
            "machine of the cluster, or choose hydra/launcher=pool."
        )
    return submitit


def _task(application: Mapping[str, Any]) -> Any:
    """What runs a job in SLURM, and is started again with the same overrides."""
    from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher

    task = SlurmLauncher()
    task.setup(**application)
    return task


def _parameters(
    settings: Mapping[str, Any], application: Mapping[str, Any], overrides: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """As submitit takes them.

    Raises:
        UserError: SLURM would start other processes than a job has, which would wait for each other.
    """
    given = settings["nodes"], settings["tasks_per_node"]
    for trainer in _trainers(application, overrides):
        if not isinstance(trainer.devices, int) or trainer.devices < 1:
            raise UserError(
                f"trainer.devices is {trainer.devices!r}, but SLURM has to be told how many processes to start on a "
                "node. Give their number: trainer.devices=4."
            )
        if (trainer.num_nodes, trainer.devices) != given:
            raise UserError(
                f"A job is to have trainer.num_nodes={trainer.num_nodes} and trainer.devices={trainer.devices}, but "
                f"SLURM would start it on hydra.launcher.nodes={given[0]}, with hydra.launcher.tasks_per_node="
                f"{given[1]}. All jobs of an array have as many: start a command for each number."
            )
    gpus = settings["gpus_per_node"]
    if gpus == "auto":
        gpus = given[1] if application["config"].trainer.accelerator in ("gpu", "cuda") else None
    return {name: value for name, value in {**settings, "gpus_per_node": gpus}.items() if value is not None}


def _trainers(application: Mapping[str, Any], overrides: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Settings of trainers that the jobs have. Composing a job takes a good tenth of a second."""
    loader, config = application["hydra_context"].config_loader, application["config"]
    differ = {tuple(value for value in job if _OF_PROCESSES.match(value)): job for job in overrides}
    return [loader.load_sweep_config(config, list(job)).trainer for job in differ.values()]
