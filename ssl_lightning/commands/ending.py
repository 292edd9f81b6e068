"""How commands end: one message instead of a wall of tracebacks, and an exit code."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

from ssl_lightning.config.messages import explain
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import user_error_in
from ssl_lightning.launchers.job import end_with_pool

_received: list[int] = []
"""Signals that have asked this process to end."""


def run_command(command: Callable[[], None]) -> None:
    """Runs `command`; any error becomes a message on standard error and exit code 1.

    With `debug=true` among the arguments the traceback is printed too. SIGINT and SIGTERM end it with a line and the
    exit codes 130 and 143, whatever error they cause on their way.
    """
    end_with_pool()
    _received.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing and exiting
    try:
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


class _Terminated(SystemExit):
    """As Lightning's: no `except Exception` on its way may take it for an error."""


def _stop(number: int, frame: Any) -> None:
    """Training has a handler of its own, which finishes the step."""
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise _Terminated(128 + number)


def _end(number: int) -> NoReturn:
    if os.environ.get("LOCAL_RANK", "0") == "0":  # one line of several processes
        what = "Interrupted" if number == signal.SIGINT else "Terminated"
        print(f"{what}. The same command goes on from the last checkpoint.", file=sys.stderr, flush=True)
    sys.exit(128 + number)


def run_job(job: Callable[[], object]) -> None:
    """One job of a Hydra application: its error is printed, and in a multirun stops no other job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    try:
        job()
    except Exception as error:
        if _received:
            _end(_received[0])
        report_error(error)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise  # Hydra goes on with the other jobs, and raises the first error at the end
        sys.exit(1)


def report_error(error: Exception) -> None:
    """Prints an error once, even where it passes through several hands."""
    if getattr(error, "reported", False):
        return
    error.reported = True  # type: ignore[attr-defined]
    if "debug=true" in (argument.lower() for argument in sys.argv):
        traceback.print_exception(error)
        return
    mistake = user_error_in(error)
    expected = str(mistake) if mistake else explain(error, TrainConfig.__dataclass_fields__)
    if expected is None:
        frames = traceback.extract_tb(error.__traceback__)
        where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
        expected = f"{type(error).__name__}: {error}{where}\nAdd debug=true to the command for the traceback."
    print(f"Error: {expected}", file=sys.stderr, flush=True)
