"""How GPUs and CPU cores are dealt out to slots, and what a job sees of its slot."""

import os
import subprocess
import sys

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment

from ssl_lightning.errors import UserError
from ssl_lightning.launchers.job import in_pool
from ssl_lightning.launchers.slots import Slot, make_slots

FOUR = ("0", "1", "2", "3")
C = tuple(range(16))
CORES = set(C)


@pytest.mark.parametrize(
    ("wanted", "gpus", "expected"),
    [
        ("auto", (), [Slot()]),
        ("auto", ("0",), [Slot(("0",))]),
        ("auto", ("2", "3"), [Slot(("2",), C[:8], 8), Slot(("3",), C[8:], 8)]),
        (1, (), [Slot()]),
        (1, FOUR, [Slot(FOUR, threads=4)]),
        (2, FOUR, [Slot(("0", "1"), C[:8], 4), Slot(("2", "3"), C[8:], 4)]),
        (3, FOUR, [Slot(("0",), C[:4], 4), Slot(("1",), C[4:8], 4), Slot(("2", "3"), C[8:], 4)]),
        (3, (), [Slot(threads=5)] * 3),
        (20, (), [Slot(threads=1)] * 20),
        (["0,1", "2, 3"], FOUR, [Slot(("0", "1"), C[:8], 4), Slot(("2", "3"), C[8:], 4)]),
        (["0", 0], FOUR, [Slot(("0",), C[:8], 8), Slot(("0",), C[8:], 8)]),
        (["MIG-1", "GPU-2"], ("MIG-1",), [Slot(("MIG-1",), C[:8], 8), Slot(("GPU-2",), C[8:], 8)]),
        (["0,1", "7"], (), [Slot(cores=(0, 1), threads=2), Slot(cores=(7,), threads=1)]),
    ],
)
def test_what_there_is_is_dealt_out(wanted, gpus, expected):
    assert make_slots(wanted, gpus, CORES) == expected


@pytest.mark.parametrize(("cores", "expected"), [({3}, [(3,)] * 4), ({2, 9, 5}, [(2,), (2,), (5,), (9,)])])
def test_more_gpus_than_cores_share_them(cores, expected):
    assert [slot.cores for slot in make_slots("auto", FOUR, cores)] == expected


@pytest.mark.parametrize(
    ("wanted", "gpus", "message"),
    [
        (5, FOUR, "hydra.launcher.slots is 5, but there are 4 GPUs: 0, 1, 2, 3"),
        (0, (), "hydra.launcher.slots is 0: write auto, a number of slots, or a list"),
        ("two", (), "hydra.launcher.slots is 'two': write auto"),
        ([], (), r"hydra.launcher.slots is \[\]: write auto"),
        ([["0", "1"]], (), "write auto"),
        (["0,4"], FOUR, "names GPU '4', but this machine has 0, 1, 2, 3"),
        (["0"], ("2", "3"), "names GPU '0', but this machine has 2, 3"),
        (["0,16"], (), "names CPU core '16', but this machine has 0, 1, "),
        (["0-3"], (), "names CPU core '0-3'"),
    ],
)
def test_slots_that_cannot_be(wanted, gpus, message):
    with pytest.raises(UserError, match=message):
        make_slots(wanted, gpus, CORES)


def test_environment_of_a_slot():
    inherited = {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    assert Slot().environment(inherited) == inherited
    assert Slot(("2", "3"), threads=4).environment(inherited) == {
        "PATH": "/bin",
        "CUDA_VISIBLE_DEVICES": "2,3",
        "OMP_NUM_THREADS": "4",
    }
    assert Slot(threads=4).environment({"OMP_NUM_THREADS": "1"}) == {"OMP_NUM_THREADS": "1"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind processes to CPU cores")
def test_processes_are_bound_to_the_cores_of_their_slot():
    before = os.sched_getaffinity(0)
    core = max(before)
    with Slot(cores=(core,)).cores_bound():
        seen = subprocess.check_output([sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"], text=True)
    assert seen == f"{{{core}}}\n"
    assert os.sched_getaffinity(0) == before


def test_gpus_are_named_and_their_cores_are_not():
    assert str(Slot(("2", "3"), (0, 1))) == " (GPU 2,3)"
    assert str(Slot(cores=(0, 1))) == " (CPU 0,1)"


def test_jobs_of_a_pool_are_no_tasks_of_what_has_started_the_pool(monkeypatch):
    """Such as of SLURM."""
    monkeypatch.delenv("SSL_FIRST_PROCESS", raising=False)  # of commands that other tests have called
    for key, value in {"SLURM_NTASKS": "1", "SLURM_JOB_NAME": "study", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    assert SLURMEnvironment.detect()
    environment = in_pool({**os.environ, "SSL_FIRST_PROCESS": "7"})
    monkeypatch.delenv("SLURM_NTASKS")
    monkeypatch.delenv("LOCAL_RANK")
    assert environment == {**os.environ, "SSL_POOL": "1"}
    assert not SLURMEnvironment.detect()
