"""How commands end: one message instead of a wall of tracebacks, and an exit code."""

import contextlib
import functools
import io
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from ssl_lightning.config.messages import explain
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import user_error_in
from ssl_lightning.explaining import explained, same_command
from ssl_lightning.launchers.job import FAIL_FAST, end_with_first_process, end_with_pool, in_slurm, say_how_jobs_ended
from ssl_lightning.launchers.journal import job_told, tell_error
from ssl_lightning.memory import keep_freed_memory

PATIENCE = 10.0
"""Seconds that a process has to end by itself after it was asked twice."""
_NAMES = {signal.SIGINT: "Interrupted", signal.SIGTERM: "Terminated"}
PLACES = ("SSL_RUNS", "SSL_DATA", "SSL_CACHE")
VALUED = (
    *("-c", "--cfg", "-p", "--package", "-cp", "--config-path", "-cn", "--config-name", "-cd", "--config-dir"),
    *("-i", "--info", "--experimental-rerun"),
)
"""Options of Hydra's that a value follows."""
_received: list[int] = []
"""Signals that have asked this process to end."""


def run_command(command: Callable[[], object]) -> None:
    """Runs `command`; any error becomes a message on standard error and exit code 1.

    With `debug=true` among the arguments, or in the config, the traceback is printed too. SIGINT and SIGTERM end it
    with a line and the exit codes 130 and 143, whatever error they cause on their way.
    """
    keep_freed_memory()
    end_with_pool()
    end_with_first_process()
    for name in PLACES:
        if not os.environ.get(name):  # empty means nothing, and not the root of the file system
            os.environ.pop(name, None)
    for stream in (sys.stdout, sys.stderr):  # a name that a terminal cannot show must not cost the work before it
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing and exiting
    try:
        with _watched_signals():
            command()
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _end(signal.SIGINT)
    except SystemExit as exit:
        # Lightning answers SIGTERM with exit code 0, which would pass for success.
        if type(exit).__name__ in ("SIGTERMException", _Terminated.__name__):
            _end(signal.SIGTERM)
        raise
    except Exception as error:
        if _received:
            _end(_received[0])
        report_error(error)
        sys.exit(1)


@contextlib.contextmanager
def _watched_signals() -> Iterator[None]:
    """SIGINT and SIGTERM end what is done here, and are noted. A second one ends the process even where its first
    thread waits in a library, such as for another process, and runs no handler of Python's."""
    _received.clear()
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.signal(number, _stop) for number in numbers}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    former = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _forget_in_forks()
    threading.Thread(target=_end_at_second, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(former)
        os.close(writing)  # which ends the thread
        for number, handler in handlers.items():
            signal.signal(number, handler)


@functools.cache
def _forget_in_forks() -> None:
    """Workers do not report their signals to the process that has started them."""

    def forget() -> None:
        with contextlib.suppress(ValueError):  # not the first thread, which alone has a say here
            signal.set_wakeup_fd(-1)

    os.register_at_fork(after_in_child=forget)


def _end_at_second(reading: int) -> None:
    seen = 0
    with os.fdopen(reading, "rb", buffering=0) as numbers:
        while number := int.from_bytes(numbers.read(1) or b""):
            seen += _asks_to_end(number)
            if seen > 1:
                time.sleep(PATIENCE)  # the handlers, where they run, have done it by then
                os.write(2, f"{_said(number)}\n".encode())
                os._exit(128 + number)


class _Terminated(SystemExit):
    """As Lightning's: no `except Exception` on its way may take it for an error."""


def _asks_to_end(number: int) -> bool:
    """SLURM's SIGTERM does not: it tells of an end that SLURM makes itself, and a process that ends before that is not
    started again."""
    return number in _NAMES and not (number == signal.SIGTERM and in_slurm())


def _stop(number: int, frame: Any) -> None:
    """Training has a handler of its own, which finishes the step."""
    if not _asks_to_end(number):
        return
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise _Terminated(128 + number)


def _said(number: int) -> str:
    return f"{_NAMES[signal.Signals(number)]}. {same_command().capitalize()} goes on from what is saved."


def _end(number: int) -> NoReturn:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one line of several processes
        print(_said(number), file=sys.stderr, flush=True)
    sys.exit(128 + number)


def overrides_last(arguments: Sequence[str]) -> list[str]:
    """Options first: Hydra takes none between two overrides."""
    options: list[str] = []
    overrides: list[str] = []
    for former, word in zip(["", *arguments], arguments, strict=False):
        (options if word.startswith("-") or former in VALUED else overrides).append(word)
    return options + overrides


_jobs: dict[int, bool] = {}
"""Of the multirun in this process: numbers of the jobs that have ended, and whether well."""
_left: list[int] = []
"""Numbers of the jobs that were not started after one had failed."""


def run_application(application: Callable[[], None]) -> None:
    """A Hydra application, whose jobs are run by `run_job`.

    Raises:
        UserError: says at the end of a multirun how many of its jobs have failed.
    """
    _jobs.clear()
    _left.clear()
    sys.argv[1:] = overrides_last(sys.argv[1:])
    try:
        application()
    except Exception as error:
        if all(_jobs.values()):  # it comes from elsewhere
            raise
        report_error(error)
    if _jobs:
        say_how_jobs_ended(_jobs, len(_left))


def run_job(job: Callable[[], object], debug: bool = False) -> object:
    """One job of a Hydra application: its error is printed, and in a multirun stops no other job.

    Args:
        debug: print the traceback, too.

    Returns:
        what the job does; None where it was not started.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    hydra = HydraConfig.get()
    several = hydra.mode == RunMode.MULTIRUN
    if several and os.environ.get(FAIL_FAST) and not all(_jobs.values()):
        _left.append(hydra.job.num)
        return None
    try:
        with job_told(hydra.overrides.task):
            done = _do(job)
    except Exception as error:
        if _received:
            _end(_received[0])
        report_error(error, debug)
        if several:
            _jobs[hydra.job.num] = False
            raise  # Hydra goes on with the other jobs, and raises the first error at the end
        sys.exit(1)
    if several:
        _jobs[hydra.job.num] = True
    return done


def _do(job: Callable[[], object]) -> object:
    """Leaves word of an error, unless it comes of being asked to end."""
    try:
        return job()
    except Exception as error:
        if not _received:
            tell_error(_message(error))
        raise


def _message(error: Exception) -> str:
    mistake = user_error_in(error)
    return str(mistake) if mistake else explain(error, TrainConfig.__dataclass_fields__) or explained(error)


def report_error(error: Exception, debug: bool = False) -> None:
    """Prints an error once, even where it passes through several hands."""
    if getattr(error, "reported", False):
        return
    error.reported = True  # type: ignore[attr-defined]
    if debug or "debug=true" in (argument.lstrip("+").lower() for argument in sys.argv):
        traceback.print_exception(error)
        return
    print(f"Error: {_message(error)}", file=sys.stderr, flush=True)
