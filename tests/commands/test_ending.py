"""How a command ends that waits in a library when it is asked to."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.processes import context


def _stuck(folder: Path, deaf: bool) -> None:
    """A command whose first thread runs no handler: it waits in C, and begins to wait again after each signal."""
    from ssl_lightning.commands import ending

    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    ending.PATIENCE = 0.2

    def command() -> None:
        (folder / "ready").touch()
        if deaf:
            import ctypes

            lock = ctypes.create_string_buffer(64)
            ctypes.CDLL(None).pthread_mutex_lock(lock)
            ctypes.CDLL(None).pthread_mutex_lock(lock)  # held already: it is never given, and no signal ends the wait
        time.sleep(100)

    ending.run_command(command)


@pytest.mark.parametrize("deaf", [True, False], ids=["in a library", "in Python"])
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_second_signal_ends_a_process_that_waits_in_a_library(tmp_path, number, code, word, deaf):
    process = context.Process(target=_stuck, args=(tmp_path, deaf))
    process.start()
    try:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        os.kill(process.pid, number)
        if deaf:
            process.join(1)
            assert process.is_alive()  # one is not enough: it may be about to save
            os.kill(process.pid, number)
        process.join(30)
        assert process.exitcode == code
        assert (tmp_path / "output.txt").read_text() == f"{word}. The same command goes on from what is saved.\n"
    finally:
        process.kill()
