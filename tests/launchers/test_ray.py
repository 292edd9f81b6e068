"""Jobs as tasks of a real Ray cluster of this machine, and what there is to say without one."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.launchers import ray
from tests.composing import composed
from tests.launchers.cluster import until
from tests.launchers.test_slurm import GATE, SMALL, assert_ends_alike, runs_of, undisturbed
from tests.processes import ssl_train

__all__ = ["undisturbed"]
INSTALLED = importlib.util.find_spec("ray") is not None


def on_ray(test: Callable[..., None]) -> Callable[..., None]:
    needs = pytest.mark.skipif(not INSTALLED, reason="needs ray: pip install 'ssl-lightning[ray]'")
    return pytest.mark.ray(needs(test))


COMMAND = (sys.executable, "-m", "ssl_lightning.commands.train", "-m", *SMALL, "hydra/launcher=ray")
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}


@pytest.fixture
def started(tmp_path: Path) -> Iterator["Started"]:
    made = Started(tmp_path)
    yield made
    made.end()


class Started:
    """A command in a session of its own, which ends with all that it has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self, *overrides: str) -> "subprocess.Popen[str]":
        self.process = subprocess.Popen(
            [*COMMAND, *overrides],
            cwd=self.folder,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.process

    def end(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def jobs_in(folder: Path) -> dict[int, int]:
    """The processes of jobs that work there, and of Ray's that have started them."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            works = (process / "cwd").resolve(strict=True) == folder.resolve()
            words = (process / "cmdline").read_text().split("\0")
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if works and "hydra.mode=RUN" in words:
            found[int(process.name)] = parent
    return found


def lines_of(process: "subprocess.Popen[str]", code: int) -> list[str]:
    output = process.communicate(timeout=400)[0]
    assert process.returncode == code, output
    return output.splitlines()


@on_ray
def test_a_sweep_is_a_task_a_job(started: Started, tmp_path: Path):
    """Of which one half fails."""
    arguments = ("seed=1,2", "subset.fraction=0.5,1.5")
    lines = lines_of(started.start(*arguments), code=1)
    assert sum("Jobs: 4, on Ray at " in line for line in lines) == 1
    for number, run in ((0, "s1"), (1, "s2")):
        own = [line for line in lines if line.startswith(f"#{number} ")]
        assert own[0].startswith(f"#{number} starts on ")
        assert f"-{run}-" in own[1]
        assert own[1].endswith(" starts")
        assert own[-1] == f"#{number} done"
    for number in (2, 3):
        own = [line for line in lines if line.startswith(f"#{number} ")]
        assert any("subset.fraction is 1.5" in line for line in own)
        assert own[-1] == f"#{number} failed: exit code 1"
    assert lines[-1] == "Error: 2 of 4 jobs done, 2 failed: #2, #3. The same command tries them again."
    assert {run.done for run in runs_of(tmp_path).values()} == {True}
    assert len(runs_of(tmp_path)) == 2


@on_ray
@pytest.mark.reliability(
    "a process of Ray's is lost, or the machine that it was on",
    lost="steps since the last checkpoint; the job goes on elsewhere",
    read="`#0 starts on …` once more, then `resumes`",
)
def test_a_job_whose_worker_is_lost_goes_on(started: Started, tmp_path: Path, undisturbed: Path):
    process = started.start(*GATE)
    until(lambda: at_the_gate(tmp_path, process))
    (worker,) = set(jobs_in(tmp_path).values())
    before = set(jobs_in(tmp_path))
    os.kill(worker, signal.SIGKILL)
    until(lambda: not before & set(jobs_in(tmp_path)))
    (tmp_path / "gate").touch()
    lines = lines_of(process, code=0)
    assert sum(line.startswith("#0 starts on ") for line in lines) == 2
    assert lines[-1] == "1 of 1 jobs done"
    assert_ends_alike(tmp_path, undisturbed)


@on_ray
def test_ctrl_c_saves_the_jobs(started: Started, tmp_path: Path, undisturbed: Path):
    process = started.start(*GATE)
    until(lambda: at_the_gate(tmp_path, process))
    os.kill(process.pid, signal.SIGINT)
    lines = lines_of(process, code=130)
    assert "SIGINT: the jobs are asked to stop" in lines
    assert "#0 stopped" in lines
    assert lines[-1].startswith("Interrupted, 0 of 1 jobs done.")
    assert not jobs_in(tmp_path)
    (run,) = runs_of(tmp_path).values()
    assert run.status == "unfinished"
    (tmp_path / "gate").touch()
    done = ssl_train(tmp_path, *SMALL, *GATE)
    assert done.code == 0, done.output
    assert_ends_alike(tmp_path, undisturbed)


@on_ray
def test_what_no_machine_has_is_refused(started: Started):
    lines = lines_of(started.start("hydra.launcher.num_cpus=1000"), code=1)
    assert lines[-1].startswith("Error: A job takes 1000 CPU, and no machine of Ray's has as much: ")


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'ssl-lightning\[ray\]'"):
        ray.launch({}, print, composed(), [()], 0)


def test_a_job_takes_a_gpu_a_process():
    settings = {"num_cpus": 2, "num_gpus": "auto", "resources": {}}

    def gpus(*overrides: str) -> object:
        return ray._needs(settings, composed(*overrides))["num_gpus"]

    assert gpus("trainer=cpu") == 0
    assert gpus("trainer=gpu") == 1
    assert gpus("trainer=ddp", "trainer.devices=4") == 4
    with pytest.raises(UserError, match=r"trainer.devices is 'auto'.*trainer.devices=4"):
        gpus("trainer=ddp", "trainer.devices=auto")
    with pytest.raises(UserError, match=r"trainer\.num_nodes=1"):
        gpus("trainer=ddp", "trainer.devices=4", "trainer.num_nodes=2")


def at_the_gate(folder: Path, process: "subprocess.Popen[str]") -> int:
    assert process.poll() is None, process.communicate()[0]
    return len(list(folder.glob("gate-6-*")))


def test_lines_and_ends_of_a_job(tmp_path: Path):
    """Without a cluster: what a task does."""

    class Lines(list):
        put = list.append

    lines = Lines()
    script = "import os, sys; print(os.getcwd()); print(os.environ['A'], file=sys.stderr); sys.exit(3)"
    assert ray.run_command(7, [sys.executable, "-c", script], {"A": "é"}, str(tmp_path), lines) == 3
    assert lines[0].startswith("#7 starts on ")
    assert lines[1:] == [f"#7 | {tmp_path}", "#7 | é"]
    killed = "import os; os.kill(os.getpid(), 9)"
    assert ray.run_command(7, [sys.executable, "-c", killed], {}, str(tmp_path), lines) == -9
