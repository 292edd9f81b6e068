"""Processes that meet: none waits without end for one that has failed, has died, or has something else to wait for."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch.distributed as dist
from filelock import FileLock

from ssl_lightning import processes
from ssl_lightning.errors import UserError
from tests.launchers.test_pool import alive, processes_in, started, until
from tests.processes import context, group

WAITS = 60
"""Seconds after which a process hangs; what is tested here takes less than two."""


def _by_first(rank, folder):
    """What both are told: a result, one that takes several heartbeats, an error."""
    plain, told, heard = group(rank), [], []

    def broadcast(value):
        heard.append(plain.broadcast(value))
        return heard[-1]

    us = replace(plain, broadcast=broadcast)
    usual, processes.HEARTBEAT = processes.HEARTBEAT, 0.05
    told.append(us.by_first(lambda: (rank, os.getpid())))
    told.append(us.by_first(lambda: time.sleep(0.4)))
    assert heard.count(("waits", None)) >= 2
    (folder / "holder").touch()
    with us.building(folder / "file") as missing:  # held by another process until it has waited for some heartbeats
        told.append(missing)
    for impossible in (lambda: us.by_first(lambda: 1 / 0), lambda: us.building(folder / "holder" / "x").__enter__()):
        try:
            impossible()
        except Exception as error:
            told.append((type(error).__name__, getattr(error, "reported", False)))
    us.barrier()
    processes.HEARTBEAT = usual
    return told


def test_all_are_told_what_the_first_has_done(pair, tmp_path):
    holder = FileLock(tmp_path / ".file.lock")
    release = context.Process(target=_release, args=(tmp_path,))
    release.start()
    until(lambda: (tmp_path / "held").exists())
    first, second = pair(_by_first, tmp_path)
    release.join()
    assert first[:3] == second[:3] == [(0, first[0][1]), None, True]
    assert first[3:] == [("ZeroDivisionError", False), ("UserError", False)]  # which the first prints
    assert second[3:] == [("UserError", True)] * 2  # and the others do not
    with holder.acquire(timeout=0):  # it is free again
        pass


def _release(folder: Path) -> None:
    with FileLock(folder / ".file.lock"):
        (folder / "held").touch()
        until(lambda: (folder / "holder").exists())
        time.sleep(0.4)


def _build(rank: int, folder: Path, failing: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    try:
        with group(rank).building(folder / "made"):
            if rank == failing:
                raise ValueError("mine")
    except (ValueError, UserError) as error:
        (folder / f"{rank}.txt").write_text(str(error))
        os._exit(1)


@pytest.mark.reliability("one of several processes fails or is killed, also before they meet")
@pytest.mark.parametrize("failing", [0, 1])
def test_one_that_fails_between_meetings_ends_the_other(tmp_path, failing):
    both = [context.Process(target=_build, args=(rank, tmp_path, failing)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(WAITS)
        process.kill()
    assert [process.exitcode for process in both] == [1, 1]
    assert (tmp_path / f"{failing}.txt").read_text() == "mine"
    assert "another process of this command has ended" in (tmp_path / f"{1 - failing}.txt").read_text()
    with FileLock(tmp_path / ".made.lock").acquire(timeout=0):
        pass


linux = pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")


@pytest.mark.nightly
@pytest.mark.reliability("one of several processes fails or is killed, also before they meet")
@linux
def test_the_second_process_ends_when_the_first_is_killed_before_they_meet(tmp_path):
    def seconds() -> list[int]:
        return [pid for pid, line in processes_in(tmp_path).items() if "train_ddp_process_1" in line]

    with started(tmp_path, "ssl-train", "trainer=ddp_cpu", "trainer.max_epochs=1") as process:
        until(lambda: process.poll() is not None or seconds())
        (second,) = seconds()
        os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + WAITS
        while alive(second) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not alive(second)


@pytest.mark.reliability(
    "one of several processes fails or is killed, also before they meet",
    lost="steps since the last checkpoint; the others end within seconds",
    read="its error; `another process of this command has ended, or was waited for in vain`",
)
@linux
def test_a_process_whose_first_is_gone_already_does_not_begin():
    code = "from ssl_lightning.launchers.job import end_with_first_process as end; end(); print('goes on')"

    def printed(**variables: str) -> str:
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | variables, capture_output=True, text=True)
        return done.stdout

    gone = str(2**22 + 1)  # more than there may be
    assert printed(SSL_FIRST_PROCESS=gone, LOCAL_RANK="1") == ""
    assert printed(SSL_FIRST_PROCESS=str(os.getpid()), LOCAL_RANK="1") == "goes on\n"
    assert printed(SSL_FIRST_PROCESS=gone) == "goes on\n"  # started by another command, it is the first of its own
    assert printed(SSL_FIRST_PROCESS=gone, LOCAL_RANK="1", TORCHELASTIC_RUN_ID="x") == "goes on\n"
