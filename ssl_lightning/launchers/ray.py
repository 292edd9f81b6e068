"""The jobs of a multirun as tasks of a Ray cluster: each is a command there, as on a pool."""

import contextlib
import importlib
import os
import platform
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import TaskFunction
from omegaconf import DictConfig

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.launchers.answer import refuse_to_answer
from ssl_lightning.launchers.job import GRACE, PIPED, in_pool, killed_by, say_how_jobs_ended
from ssl_lightning.launchers.journal import tell_death
from ssl_lightning.launchers.pool import Job, end_interrupted, failure, jobs_of, shown_of, signals_collected

_OF_WORKER = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
"""Variables by which Ray says what a task may use."""


def launch(
    settings: Mapping[str, Any],
    task_function: TaskFunction,
    config: DictConfig,
    overrides: Sequence[Sequence[str]],
    first: int,
) -> list[JobReturn]:
    """Runs jobs of a multirun to their ends.

    Args:
        settings: of conf/hydra/launcher/ray.yaml.
        task_function: of a Hydra application that can be started as `python -m <its module>`.
        config: of the multirun.
        overrides: of each job.
        first: number of the first job.

    Raises:
        UserError: there is no Ray, or no cluster that could ever run them; or names the jobs that failed, after all
            were run.
        SystemExit: 128 + the number of the signal, where SIGINT or SIGTERM has ended the multirun.
    """
    ray = _ray()
    refuse_to_answer(config.hydra, "ray")
    jobs, needs = jobs_of(task_function, config, overrides, first), _needs(settings, config)
    with _cluster(ray, settings["address"]):
        _refuse_what_never_fits(ray, needs)
        print(f"Jobs: {len(jobs)}, on Ray at {ray.get_runtime_context().gcs_address}", flush=True)
        task = ray.remote(**needs, max_retries=settings["max_retries"])(run_command)
        lines, environment, folder = _lines(), dict(os.environ), str(Path.cwd())
        tasks = {task.remote(job.number, job.command, environment, folder, lines): job for job in jobs}
        with signals_collected() as received:
            codes = _wait(ray, tasks, lines, received)
            if received:
                end_interrupted(received, codes, len(jobs))
    say_how_jobs_ended({number: code == 0 for number, code in codes.items()})
    return [JobReturn(overrides=values, status=JobStatus.COMPLETED) for values in overrides]


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError:
        raise UserError(
            "hydra/launcher=ray needs Ray, which is not installed: pip install 'ssl-lightning[ray]'."
        ) from None


def _needs(settings: Mapping[str, Any], config: DictConfig) -> dict[str, Any]:
    """What a job takes of the cluster, as Ray takes it."""
    gpus = settings["num_gpus"]
    if gpus == "auto":
        gpus = 0
        if config.trainer.accelerator in ("gpu", "cuda"):
            if not isinstance(config.trainer.devices, int) or config.trainer.devices < 1:
                raise UserError(
                    f"trainer.devices is {config.trainer.devices!r}, but Ray has to be told how many GPUs a job takes. "
                    "Give their number, trainer.devices=4, or hydra.launcher.num_gpus."
                )
            gpus = config.trainer.devices
    if config.trainer.num_nodes != 1:
        raise UserError("hydra/launcher=ray starts each job on one machine. Choose trainer.num_nodes=1.")
    return {"num_cpus": settings["num_cpus"], "num_gpus": gpus, "resources": settings["resources"]}


@contextlib.contextmanager
def _cluster(ray: Any, address: str | None) -> Any:
    """Raises:
    UserError: there is none at that address.
    """
    try:
        ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(
            f"There is no Ray cluster at {address or os.environ.get('RAY_ADDRESS')}: {in_one_line(error)}. Start one "
            "with `ray start --head`, or leave hydra.launcher.address out for one of this machine."
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _refuse_what_never_fits(ray: Any, needs: Mapping[str, Any]) -> None:
    """Such jobs would wait for ever."""
    wanted = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"], **needs["resources"]}
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(all(node.get(name, 0) >= number for name, number in wanted.items()) for node in nodes):
        have = "; ".join(", ".join(f"{node.get(name, 0):g} {name}" for name in wanted) for node in nodes)
        asked = ", ".join(f"{number:g} {name}" for name, number in wanted.items() if number)
        raise UserError(f"A job takes {asked}, and no machine of Ray's has as much: {have}. Change hydra.launcher.*.")


def _lines() -> Any:
    """A queue that all machines put into, and the one who waits takes from."""
    return importlib.import_module("ray.util.queue").Queue(actor_options={"num_cpus": 0})


def run_command(number: int, command: Sequence[str], environment: Mapping[str, str], folder: str, lines: Any) -> int:
    """In a process of Ray's: the job in a process of its own.

    Args:
        folder: that it works in, as the one who waits does.
        lines: a queue for what is to be printed.

    Returns:
        its exit code: minus the signal where one killed it.
    """
    granted = {name: os.environ[name] for name in _OF_WORKER if name in os.environ}
    if "CUDA_VISIBLE_DEVICES" not in granted:
        environment = {name: value for name, value in environment.items() if name != "CUDA_VISIBLE_DEVICES"}
    lines.put(f"#{number} starts on {platform.node()}{_gpus(granted)}")
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # it ends when this process does
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=in_pool({**environment, **granted, **PIPED}),
        cwd=folder,
        start_new_session=True,
    )
    reader = threading.Thread(target=_pass_on, args=(number, process, lines), daemon=True)
    reader.start()
    try:
        while process.poll() is None:  # Ray cancels by a KeyboardInterrupt that no call of the system is woken by
            time.sleep(0.1)
    finally:
        _end(process)
        reader.join(1)
    return process.returncode


def _pass_on(number: int, process: "subprocess.Popen[bytes]", lines: Any) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put(f"#{number} | {shown_of(line)}")


def _gpus(granted: Mapping[str, str]) -> str:
    numbers = granted.get("CUDA_VISIBLE_DEVICES", "")
    return f" (GPU {numbers})" if numbers else ""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """All of its processes, after it had its time to save."""
    if process.poll() is None:
        process.terminate()
        until = time.monotonic() + GRACE
        while process.poll() is None and time.monotonic() < until:
            time.sleep(0.1)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _wait(ray: Any, tasks: Mapping[Any, Job], lines: Any, received: Sequence[int]) -> dict[int, int]:
    """Until all have ended, or were asked to. Prints what they say.

    Returns:
        exit codes by the numbers of the jobs; 1 where Ray has given a job up.
    """
    codes: dict[int, int] = {}
    waiting, stop_at = list(tasks), None
    while waiting:
        if received and stop_at is None:
            stop_at = time.monotonic() + GRACE + 10
            print(f"{signal.Signals(received[0]).name}: the jobs are asked to stop", flush=True)
            for one in waiting:
                ray.cancel(one)
        if stop_at is not None and time.monotonic() > stop_at:
            break
        ended, waiting = ray.wait(waiting, timeout=0.5)
        for line in lines.get_nowait_batch(lines.qsize()):
            print(line, flush=True)
        for one in ended:
            number = tasks[one].number
            try:
                codes[number] = ray.get(one)
                if stop_at is None and (reason := killed_by(codes[number])):
                    tell_death(tasks[one].overrides, reason)
                ending = "done" if codes[number] == 0 else failure(codes[number])
            except ray.exceptions.TaskCancelledError:
                ending = "stopped"
            except (ray.exceptions.RayError, OSError) as error:
                codes[number] = 1
                ending = f"failed: {in_one_line(error)}"
                tell_death(tasks[one].overrides, in_one_line(error))
            if stop_at is not None and codes.get(number):
                del codes[number]
                ending = "stopped"
            print(f"#{number} {ending}", flush=True)
    return codes
