"""Commands as processes of their own that a test can kill: forked from a server that has imported torch already."""

import contextlib
import functools
import gc
import importlib
import io
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.processes import ProcessGroup

context = multiprocessing.get_context("forkserver")
_COMMANDS = [
    "ssl_lightning.pipeline.pretrain",
    "ssl_lightning.commands.train",
    "ssl_lightning.pipeline.rank",
    "ssl_lightning.commands.select",
    "ssl_lightning.pipeline.evaluate",
    "ssl_lightning.commands.evaluate",
]
context.set_forkserver_preload([*_COMMANDS, "sklearn.datasets"])


@dataclass(frozen=True)
class Signal:
    """What happens to the process at a call of a function, counted from 1 in each process.

    Args:
        function: dotted name, looked up where it is used.
        call: which call.
        when: `before` the call, `after` it, or `within`: in the first half of the file that the function writes.
        number: of the signal.
        times: how often, one right after another.
        disguised: what the signal raises is replaced by an ordinary error, as libraries do whose callbacks it meets.
    """

    function: str
    call: int = 1
    when: str = "before"
    number: int = signal.SIGKILL
    times: int = 1
    disguised: bool = False

    def install(self) -> None:
        owner, name = _owner(self.function)
        original = getattr(owner, name)
        calls = 0

        @functools.wraps(original)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != self.call:
                return original(*args, **kwargs)
            if self.when == "within":
                (place,) = (i for i, argument in enumerate(args) if hasattr(argument, "write"))
                content, file = io.BytesIO(), args[place]
                original(*args[:place], content, *args[place + 1 :], **kwargs)
                file.write(content.getvalue()[: len(content.getvalue()) // 2])
                file.flush()
            if self.when != "after":
                self._send()
            result = original(*args, **kwargs)
            if self.when == "after":
                self._send()
            return result

        setattr(owner, name, wrapper)

    def _send(self) -> None:
        for _ in range(self.times):
            try:
                os.kill(os.getpid(), self.number)
                time.sleep(0)  # where Python lets its handler run
            except BaseException:
                if self.disguised:
                    raise RuntimeError("a callback has failed") from None
                raise


def _owner(function: str) -> tuple[Any, str]:
    """The module or class that holds a function, and the function's name there."""
    *parts, name = function.split(".")
    for length in range(len(parts), 0, -1):
        try:
            owner = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            owner = getattr(owner, part)
        return owner, name
    raise ModuleNotFoundError(function)


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code (minus the signal, if one killed it) and all that it printed."""

    code: int
    output: str


@contextmanager
def started(
    folder: Path,
    *arguments: str,
    command: str = "ssl-train",
    at: Signal | None = None,
    environment: Mapping[str, str | None] | None = None,
    figures: bool = False,
    output: str = "output.txt",
) -> Iterator[Callable[[], Ended]]:
    """A command with these arguments in a working directory. The value waits for its end; `.process` is it.

    Args:
        command: `ssl-train`, `ssl-select` or `ssl-evaluate`.
        at: a signal that the process meets.
        environment: variables to set, or to remove where the value is None.
        figures: whether to draw them, which takes as long as a small training.
        output: name of the file for what it prints.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = context.Process(target=_run, args=(folder, command, arguments, at, environment or {}, figures, output))
    process.start()

    def wait() -> Ended:
        process.join(300)
        assert process.exitcode is not None, "the process did not end"
        return Ended(process.exitcode, (folder / output).read_text())

    wait.process = process  # type: ignore[attr-defined]
    try:
        yield wait
    finally:
        process.kill()
        process.join()


def group(rank: int, size: int = 2) -> ProcessGroup:
    """This process among those of torch's group."""

    def broadcast(value: Any) -> Any:
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    return ProcessGroup(rank, size, dist.barrier, broadcast)


def ssl_train(folder: Path, *arguments: str, **options: Any) -> Ended:
    """As `started`, to its end."""
    with started(folder, *arguments, **options) as wait:
        return wait()


def ssl_select(folder: Path, *arguments: str, **options: Any) -> Ended:
    """As `started`, to its end."""
    return ssl_train(folder, *arguments, command="ssl-select", **options)


def two_processes(folder: Path, *arguments: str, **options: Any) -> tuple[Ended, Ended]:
    """Both of a pair that torchrun would have started, by rank. Options as of `started`."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "pair"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    changes = options.pop("environment", {})
    with contextlib.ExitStack() as stack:
        waits = []
        for rank in range(2):
            variables = {name: str(value) for name, value in (common | {"RANK": rank, "LOCAL_RANK": rank}).items()}
            entered = started(
                folder, *arguments, environment=variables | changes, output=f"output-{rank}.txt", **options
            )
            waits.append(stack.enter_context(entered))
        first, second = (wait() for wait in waits)
    return first, second


def _run(
    folder: Path,
    command: str,
    arguments: tuple[str, ...],
    at: Signal | None,
    environment: Mapping[str, str | None],
    figures: bool,
    output: str,
) -> None:
    gc.freeze()  # what the server has imported
    for name, value in environment.items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from ssl_lightning.pipeline import finished
    from ssl_lightning.pipeline import rank as selection

    if not figures:
        finished.run_figures = lambda run, results: {}
        selection.contact_sheet = selection.gain_curve = lambda *_: Path()
    if at is not None:
        at.install()
    sys.argv = [command, *arguments]
    importlib.import_module(f"ssl_lightning.commands.{command.removeprefix('ssl-')}").main()


class SeenSamples(L.Callback):
    """Writes a line for each started step: the number of steps before it, then the positions in its batch.

    Args:
        file: where lines are appended.
    """

    def __init__(self, file: str) -> None:
        self.file = file

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with open(self.file, "a", encoding="utf-8") as lines:
            lines.write(" ".join(map(str, [trainer.global_step, *batch.index.tolist()])) + "\n")


class Killed(L.Callback):
    """SIGKILLs its process after one step, where the training has begun before a certain step.

    Args:
        before: counted in optimizer steps.
    """

    def __init__(self, before: int) -> None:
        self.before = before

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        self.start = trainer.global_step

    def on_train_batch_start(self, trainer: L.Trainer, *_: Any) -> None:
        if self.start < self.before and trainer.global_step > self.start:
            os.kill(os.getpid(), signal.SIGKILL)


class Gate(L.Callback):
    """Holds training after each step until there is a file, or until it is asked to stop.

    Args:
        file: relative to the working directory.
        first: the first step after which it does.
    """

    def __init__(self, file: str, first: int = 1) -> None:
        self.file = Path(file)
        self.first = first

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step < self.first:
            return
        self.file.with_name(f"{self.file.name}-{trainer.global_step}-{os.getpid()}").touch()
        stopping = [callback for callback in trainer.callbacks if isinstance(callback, StopTogether)]
        while not self.file.exists() and not any(callback._asked for callback in stopping):
            time.sleep(0.01)
