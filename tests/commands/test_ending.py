"""How a command ends: when it is asked to while it waits in a library, and with an error."""

import io
import os
import signal
import time
from pathlib import Path

import pytest

from ssl_lightning.commands.ending import overrides_last, run_command
from tests.composing import TINY
from tests.parts import FaultyLoss, Unfinished
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


@pytest.mark.reliability("a second Ctrl-C, also where a process waits in a library", lost="the step", read="the same")
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


def test_a_task_outlives_the_sigterm_that_slurm_announces_its_end_by(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "study")
    before, lived = signal.getsignal(signal.SIGTERM), []
    run_command(lambda: lived.append(os.kill(os.getpid(), signal.SIGTERM)))
    assert lived == [None]
    assert signal.getsignal(signal.SIGTERM) == before
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")  # in a shell there, it is the user's
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert ended.value.code == 143


def test_what_a_terminal_cannot_show_is_no_error(monkeypatch):
    shown = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    run_command(lambda: print("é \udcff –"))
    assert shown.getvalue() == b"\\xe9 \\udcff \\u2013\n"


def test_a_variable_that_is_empty_is_none(monkeypatch):
    monkeypatch.setenv("SSL_RUNS", "")
    monkeypatch.setenv("SSL_DATA", "there")
    seen = {}
    run_command(lambda: seen.update(os.environ))
    assert "SSL_RUNS" not in seen
    assert seen["SSL_DATA"] == "there"


@pytest.mark.parametrize("override", ["debug=true", "++debug=True", "experiment=debug"])
def test_debug_shows_the_traceback_wherever_it_is_set(command, tmp_path, override):
    (tmp_path / "mine/experiment").mkdir(parents=True)
    (tmp_path / "mine/experiment/debug.yaml").write_text("# @package _global_\ndebug: true\n")
    outcome = command("ssl-train", "--config-dir", str(tmp_path / "mine"), "seed=abc", override)
    assert outcome.code == 1
    assert outcome.err.count("Traceback") == 1
    assert "seed is 'abc'" in outcome.err


@pytest.mark.parametrize(
    ("override", "where", "said"),
    [
        ("+callbacks.mine._target_=tests.parts.Unfinished", Unfinished.__init__, "KeyError: 'nothing'"),
        ("method._target_=tests.parts.FaultyLoss", FaultyLoss.ssl_loss, "RuntimeError: inconsistent tensor size"),
    ],
    ids=["when it is made", "in its loss"],
)
def test_an_error_of_a_users_own_component_is_one_message_with_its_place(command, override, where, said):
    outcome = command("ssl-train", *TINY, "trainer.fast_dev_run=true", override)
    assert outcome.code == 1
    message, hint = outcome.err.splitlines()
    assert message.startswith(f"Error: {said}")
    assert message.endswith(f"({where.__code__.co_filename}:{where.__code__.co_firstlineno + 1})")
    assert hint == "Add debug=true to the command for the traceback."


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("a=1 --cfg job b=2", "--cfg job a=1 b=2"),
        ("a=1 -m b=2,3 -cd my=folder ~c +d.e=-1", "-m -cd my=folder a=1 b=2,3 ~c +d.e=-1"),
        ("--multirun a=1 b=2", "--multirun a=1 b=2"),
        ("method --help", "--help method"),
        ("--config-dir=x a=1 -c all -p method b=2 --resolve", "--config-dir=x -c all -p method --resolve a=1 b=2"),
        ("", ""),
    ],
)
def test_options_may_stand_between_overrides(written, meant):
    assert overrides_last(written.split()) == meant.split()


def test_hydra_takes_options_between_overrides(command):
    done = command("ssl-train", "seed=3", "--cfg", "job", "batch_size=17", "-p", "trainer", "trainer=cpu")
    assert done.code == 0
    assert "accelerator: cpu" in done.out
