"""How commands end: one message instead of a wall of tracebacks, and an exit code."""

import os
import sys
import traceback
from collections.abc import Callable

from ssl_lightning.config.messages import explain
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import user_error_in
from ssl_lightning.launchers.job import end_with_pool


def run_command(command: Callable[[], None]) -> None:
    """Runs `command`; any error becomes a message on standard error and exit code 1.

    With `debug=true` among the arguments the traceback is printed too.
    """
    end_with_pool()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises instead of printing and exiting
    try:
        command()
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit("Interrupted. The same command goes on from the last checkpoint.")
    except SystemExit as exit:
        # Lightning answers SIGTERM with exit code 0, which would pass for success.
        sys.exit(143 if type(exit).__name__ == "SIGTERMException" else exit.code)
    except Exception as error:
        report_error(error)
        sys.exit(1)


def run_job(job: Callable[[], object]) -> None:
    """One job of a Hydra application: its error is printed, and in a multirun stops no other job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    try:
        job()
    except Exception as error:
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
