"""Each job of a multirun as a process of its own, on a pool of slots."""

import contextlib
import inspect
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.types import TaskFunction
from omegaconf import DictConfig, OmegaConf

from ssl_lightning.explaining import same_command
from ssl_lightning.launchers.answer import answers, learns, returned
from ssl_lightning.launchers.job import (
    FAIL_FAST,
    GRACE,
    PIPED,
    in_pool,
    in_step,
    killed_by,
    numbers,
    say_how_jobs_ended,
    titles,
)
from ssl_lightning.launchers.journal import tell_death
from ssl_lightning.launchers.showing import Lines, lines_or_live
from ssl_lightning.launchers.slots import Slot, available_cores, make_slots, visible_gpus


@dataclass(frozen=True)
class Job:
    """A command of a multirun.

    Args:
        number: in the multirun.
        command: program and arguments.
        title: what tells it from other jobs.
        overrides: under which it is known to the journal of a sweep.
    """

    number: int
    command: list[str]
    title: str
    overrides: tuple[str, ...] = ()


def launch(
    task_function: TaskFunction,
    config: DictConfig,
    wanted: Any,
    overrides: Sequence[Sequence[str]],
    first: int,
    how_far: Callable[[Sequence[str]], str],
) -> list[JobReturn]:
    """Runs jobs of a multirun to their ends.

    Args:
        task_function: of a Hydra application that can be started as `python -m <its module>`.
        config: of the multirun.
        wanted: see `make_slots`.
        overrides: of each job.
        first: number of the first job.
        how_far: see `showing.Live`.

    Raises:
        UserError: names the jobs that failed, after all were run.
        SystemExit: 128 + the number of the signal, where SIGINT or SIGTERM has ended the multirun.
    """
    slots = make_slots(wanted, visible_gpus(), available_cores())
    jobs = jobs_of(task_function, config, overrides, first)
    print(f"Jobs: {len(jobs)}, slots: {len(slots)}", flush=True)
    asks = learns(config.hydra)
    with signals_collected() as received, lines_or_live(how_far) as shown, answers(asks) as folder:
        codes = run(jobs, slots, received, bool(os.environ.get(FAIL_FAST)), shown)
        called = {job.number: values for job, values in zip(jobs, overrides, strict=True)}
        answered = [] if folder is None else returned(called, codes, folder)
        if received:
            end_interrupted(received, codes, len(jobs))
    if asks:  # the sweeper says itself how many may fail
        return answered
    say_how_jobs_ended({number: code == 0 for number, code in codes.items()}, len(jobs) - len(codes))
    return [JobReturn(overrides=values, status=JobStatus.COMPLETED) for values in overrides]


def end_interrupted(received: Sequence[int], codes: Mapping[int, int], jobs: int) -> NoReturn:
    """Ends a multirun that a signal has ended.

    In a step of SLURM's, SIGTERM says that SLURM is going to end it. It is waited for: ending before would be taken for
    an end of the job, where SLURM means to start it again after a preemption.

    Args:
        received: numbers of signals; more may arrive.
        codes: exit codes by the numbers of the jobs.
        jobs: how many there were.
    """
    done = f"{sum(code == 0 for code in codes.values())} of {jobs} jobs done"
    again = same_command().capitalize()
    print(f"Interrupted, {done}. {again} goes on from what is saved.", file=sys.stderr, flush=True)
    if received[0] == signal.SIGTERM and in_step():
        awaited = "SLURM is going to end this job, which waits for that; a second signal ends it at once."
        print(awaited, file=sys.stderr, flush=True)
        while len(received) == 1:
            time.sleep(0.1)
    sys.exit(128 + received[0])


def jobs_of(
    task_function: TaskFunction, config: DictConfig, overrides: Sequence[Sequence[str]], first: int
) -> list[Job]:
    """Of a multirun."""
    return [
        Job(number, job_command(task_function, config, values, number), title, tuple(filter_overrides(values)))
        for number, values, title in zip(numbers(overrides, first), overrides, titles(overrides), strict=True)
    ]


def job_command(task_function: TaskFunction, config: DictConfig, overrides: Sequence[str], number: int) -> list[str]:
    """Runs one job of a multirun by itself: the same application and configs, what the user wrote, its own values."""
    module = inspect.getmodule(task_function)
    assert module is not None
    assert module.__spec__ is not None
    folders = {source.provider: source.path for source in config.hydra.runtime.config_sources}
    options = ["--config-path", folders["main"], "--config-name", config.hydra.job.config_name]
    if "command-line" in folders:
        options += ["--config-dir", folders["command-line"]]
    shared = OmegaConf.to_container(config.hydra.overrides.hydra)
    assert isinstance(shared, list)
    own = [f"hydra.job.id={number}", f"hydra.job.num={number}", "hydra.mode=RUN"]
    return [sys.executable, "-m", module.__spec__.name, *options, *map(str, shared), *overrides, *own]


@dataclass(frozen=True)
class _Running:
    job: Job
    slot: int
    since: float
    process: subprocess.Popen[bytes]
    reader: threading.Thread

    def kill(self) -> None:
        """All processes of the job."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def run(
    jobs: Sequence[Job],
    slots: Sequence[Slot],
    received: Sequence[int] = (),
    fail_fast: bool = False,
    shown: Lines | None = None,
) -> dict[int, int]:
    """Runs each job, in order, as soon as a slot is free, and prints their lines after their numbers.

    A process of a job that outlives the job's first one is killed. Of a job that was killed, the journal is told.

    Args:
        received: once it holds something, running jobs are asked to stop, killed if they have not after `GRACE`
            seconds, and no others are started.
        fail_fast: start no others either once one has failed; those that run go on to their ends.
        shown: where their lines go; None for standard output.

    Returns:
        Exit codes by the numbers of the jobs, in the order of their ends: minus the signal where one killed the job.
    """
    shown = shown or Lines()
    waiting, free = deque(jobs), set(range(len(slots)))
    running: list[_Running] = []
    codes: dict[int, int] = {}
    lines: queue.SimpleQueue[tuple[int, bytes]] = queue.SimpleQueue()
    kill_at: float | None = None
    with _life() as life:
        try:
            while waiting or running:
                if received and kill_at is None:
                    kill_at = time.monotonic() + GRACE
                    waiting.clear()
                    shown.tells(f"{signal.Signals(received[0]).name}: {len(running)} jobs are asked to stop")
                    for one in running:
                        one.process.terminate()
                if kill_at is not None and time.monotonic() > kill_at:
                    for one in running:
                        one.kill()
                while waiting and free:
                    number = min(free)
                    free.remove(number)
                    job = waiting.popleft()
                    shown.starts(job.number, f"slot {number}{slots[number]}", job.title, job.overrides)
                    running.append(_start(job, number, slots[number], life, lines))
                _pass_on(lines, shown)
                shown.look(len(waiting))
                time.sleep(0.05)
                for one in [one for one in running if one.process.poll() is not None]:
                    one.kill()  # what remains of it
                    one.reader.join(1)  # not forever: a process that has left the group may hold the pipe
                    _pass_on(lines, shown)
                    running.remove(one)
                    free.add(one.slot)
                    number, code = one.job.number, one.process.returncode
                    codes[number] = code
                    if fail_fast and code != 0:
                        waiting.clear()
                    if kill_at is None and (reason := killed_by(code)):
                        tell_death(one.job.overrides, reason)
                    shown.ends(number, _ending(one, stopped=kill_at is not None), well=code == 0)
        finally:
            for one in running:  # none, unless this loop has failed
                one.kill()
                one.process.wait()
    return codes


def _start(job: Job, number: int, slot: Slot, life: int, lines: "queue.SimpleQueue[tuple[int, bytes]]") -> _Running:
    with slot.cores_bound():
        process = subprocess.Popen(
            job.command,
            stdin=life,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=in_pool(slot.environment(os.environ) | PIPED),
            start_new_session=True,  # a group of processes that signals from the terminal do not reach
        )
    reader = threading.Thread(target=_read, args=(job.number, process, lines), daemon=True)
    reader.start()
    return _Running(job, number, time.monotonic(), process, reader)


def _read(number: int, process: subprocess.Popen[bytes], lines: "queue.SimpleQueue[tuple[int, bytes]]") -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            lines.put((number, line))


def _pass_on(lines: "queue.SimpleQueue[tuple[int, bytes]]", shown: Lines) -> None:
    """What there is. Nothing is waited for: CPython's `get(timeout)` waits for ever where a signal interrupts it just
    when its time is over."""
    with contextlib.suppress(queue.Empty):
        for _ in range(lines.qsize()):
            number, line = lines.get_nowait()
            shown.says(number, shown_of(line))


def shown_of(line: bytes) -> str:
    """Of what a job has printed; of a bar, only its end."""
    return line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]


def _ending(job: _Running, stopped: bool) -> str:
    code = job.process.returncode
    if code == 0:
        return f"done ({time.monotonic() - job.since:.0f} s)"
    if stopped:
        return "stopped"
    return failure(code)


def failure(code: int) -> str:
    """How a job ended whose exit code is not 0: minus the signal where one killed it."""
    return f"failed: {killed_by(code) or f'killed by signal {-code}'}" if code < 0 else f"failed: exit code {code}"


@contextlib.contextmanager
def signals_collected() -> Iterator[list[int]]:
    """Collects SIGINT and SIGTERM instead of being ended by them."""
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _life() -> Iterator[int]:
    """The reading end of a pipe that ends with this process, even where it is killed."""
    reading, writing = os.pipe()  # jobs inherit neither, only the first as their standard input
    try:
        yield reading
    finally:
        os.close(reading)
        os.close(writing)
