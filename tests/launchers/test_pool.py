"""Jobs of a multirun as processes of their own: real ones, that fail, are killed, and stop with their pool."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ssl_lightning.launchers import pool
from ssl_lightning.launchers.journal import Journal, kept_in
from ssl_lightning.launchers.pool import Job, run
from ssl_lightning.launchers.slots import Slot
from ssl_lightning.runs.run import Run, find_runs
from tests.pipeline.test_resume import assert_identical
from tests.processes import ssl_train

# Any commands


def job(number: int, script: str) -> Job:
    return Job(number, [sys.executable, "-c", f"import os, signal, subprocess, sys, time\n{script}"], f"job {number}")


def test_lines_are_whole_and_numbered(capfd):
    halves = "for i in range(20): print(f'{i} a', end='', flush=True); time.sleep(0.002); print('b')"
    bar = "sys.stderr.write('1 %\\r2 %\\r3 %\\n'); print('no end of line', end='')"
    assert run([job(0, halves), job(1, halves), job(2, bar)], [Slot()] * 3) == {0: 0, 1: 0, 2: 0}
    lines = capfd.readouterr().out.splitlines()
    assert lines[:3] == [f"#{i} starts on slot {i}: job {i}" for i in range(3)]
    for number in (0, 1):
        assert [line for line in lines if line.startswith(f"#{number} |")] == [f"#{number} | {i} ab" for i in range(20)]
    assert [line for line in lines if line.startswith("#2 |")] == ["#2 | 3 %", "#2 | no end of line"]
    assert sum(line.startswith(f"#{i} done (") for i in range(3) for line in lines) == 3


def test_a_slot_serves_one_job_at_a_time_and_the_jobs_in_order(tmp_path, capfd):
    script = f"slot = {str(tmp_path)!r} + os.environ['CUDA_VISIBLE_DEVICES']\n"
    script += "os.mkdir(slot); time.sleep(0.1); os.rmdir(slot)"
    codes = run([job(i, script) for i in range(7)], [Slot(("5",)), Slot(("6,7",))])
    assert codes == dict.fromkeys(range(7), 0)
    starts = [line.split()[:6] for line in capfd.readouterr().out.splitlines() if "starts" in line]
    assert [line[0] for line in starts] == [f"#{i}" for i in range(7)]
    assert starts[0][4:] == ["0", "(GPU"]
    assert {line[4] for line in starts} == {"0", "1"}


def test_failures_stop_nobody(capfd):
    codes = run([job(0, "sys.exit(3)"), job(1, "os.kill(os.getpid(), 9)"), job(2, "")], [Slot()])
    assert codes == {0: 3, 1: -9, 2: 0}
    lines = capfd.readouterr().out.splitlines()
    assert lines[1] == "#0 failed: exit code 3"
    assert lines[3] == "#1 failed: killed by signal 9 (out of memory?)"
    assert lines[5].startswith("#2 done")


def test_the_journal_is_told_of_those_that_were_killed_unasked(tmp_path, monkeypatch):
    """And of no other: a job that fails says so itself, and one that is asked to end has not failed."""
    monkeypatch.setattr(pool, "GRACE", 0.3)
    scripts = {
        "killed": "os.kill(os.getpid(), 9)",
        "crashed": "os.kill(os.getpid(), 11)",
        "asked": "os.kill(os.getpid(), 15)",
        "failed": "sys.exit(3)",
        "well": "",
    }
    jobs = [replace(job(i, script), overrides=(f"a={name}",)) for i, (name, script) in enumerate(scripts.items())]
    journal = Journal(tmp_path / ".sweeps/grid")
    with kept_in(journal):
        run(jobs, [Slot()] * 5)
        deaf = f"signal.signal(15, signal.SIG_IGN); open({str(tmp_path / 'deaf')!r}, 'w')\nwhile True: time.sleep(1)"
        stubborn = replace(job(9, deaf), overrides=("a=end",))
        assert run([stubborn], [Slot()], LateSignal(tmp_path / "deaf")) == {9: -9}
    assert {told.overrides: told.error for told in journal.all_told()} == {
        ("a=killed",): "killed by signal 9 (out of memory?)",
        ("a=crashed",): "killed by signal 11 (Segmentation fault)",
    }


class LateSignal(list):
    """What a sweep has received: SIGINT, once there is a file."""

    def __init__(self, file: Path) -> None:
        super().__init__([signal.SIGINT])
        self.file = file

    def __bool__(self) -> bool:
        return self.file.exists()


def test_none_is_started_after_a_failure_where_that_is_asked(tmp_path, capfd):
    """What runs goes on to its end."""
    long = f"import time\nwhile not os.path.exists({str(tmp_path / 'failed')!r}): time.sleep(0.05)\ntime.sleep(0.5)"
    fails = f"open({str(tmp_path / 'failed')!r}, 'w').close()\nsys.exit(3)"
    assert run([job(0, long), job(1, fails), job(2, ""), job(3, "")], [Slot(), Slot()], fail_fast=True) == {1: 3, 0: 0}
    assert "#2" not in capfd.readouterr().out


def test_nothing_remains_of_a_job(tmp_path, capfd):
    script = "child = subprocess.Popen(['sleep', '1000']); print(child.pid)"
    assert run([job(0, script)], [Slot()]) == {0: 0}
    child = int(capfd.readouterr().out.splitlines()[1].rpartition(" ")[2])
    until(lambda: not alive(child))


def test_a_job_that_does_not_stop_is_killed(monkeypatch, capfd):
    monkeypatch.setattr(pool, "GRACE", 0.3)
    stubborn = "signal.signal(15, signal.SIG_IGN); os.kill(os.getppid(), 15)\nwhile True: time.sleep(1)"
    before = signal.getsignal(signal.SIGTERM)
    with pool.signals_collected() as received:
        codes = run([job(0, stubborn), job(1, ""), job(2, "")], [Slot(), Slot()], received)
    assert received == [signal.SIGTERM]
    assert codes.pop(0) == -signal.SIGKILL
    assert "#0 stopped" in capfd.readouterr().out.splitlines()
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("number", "step", "waits"),
    [(signal.SIGTERM, "0", True), (signal.SIGTERM, None, False), (signal.SIGINT, "0", False)],
)
def test_what_slurm_ends_waits_for_that(monkeypatch, capfd, number, step, waits):
    """In a step, which would else end its job; its script is signalled once SLURM has decided what comes of the job."""
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "mine")
    if step is None:
        monkeypatch.delenv("SLURM_STEP_ID", raising=False)
    else:
        monkeypatch.setenv("SLURM_STEP_ID", step)
    received = [number]
    monkeypatch.setattr(time, "sleep", lambda _: received.append(signal.SIGTERM))
    with pytest.raises(SystemExit) as exit:
        pool.end_interrupted(received, {0: 0, 1: -15}, 3)
    said = capfd.readouterr().err
    assert exit.value.code == 128 + number
    assert "Interrupted, 1 of 3 jobs done." in said
    assert ("SLURM is going to end this job" in said) == waits == (len(received) == 2)


# Multiruns

SMALL = (
    "dataset=digits",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=1",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)


GATE = ("subset.fraction=0.5", "+callbacks.gate._target_=tests.processes.Gate", "+callbacks.gate.file=gate")


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def alive(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def processes_in(folder: Path) -> dict[int, str]:
    """Command lines of the processes that work there."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve(strict=True) == folder.resolve():
                found[int(process.name)] = (process / "cmdline").read_text().replace("\0", " ")
        except OSError:  # it is gone, or a zombie
            continue
    return found


@contextmanager
def started(folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
    """A console script, in a group of processes of its own."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    environment |= {"PYTHONPATH": str(Path(__file__).parents[2]), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        for left in processes_in(folder):
            os.kill(left, signal.SIGKILL)
        process.communicate()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=120)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"it did not end:\n{output}") from None
    return process.returncode, output


def runs_by_seed(folder: Path) -> dict[str, Run]:
    return {run.id.split("-")[-2]: run for run in find_runs([folder / "runs"])}


@pytest.mark.nightly
def test_a_job_owes_no_metric_where_no_sweeper_asks(tmp_path):
    small = [value for value in SMALL if not value.startswith("evaluation.")]
    with started(tmp_path, "ssl-train", "-m", *small, "evaluation=none", "hydra/launcher=pool") as process:
        code, output = ended(process)
    assert code == 0, output
    assert output.endswith("1 of 1 jobs done\n")


@pytest.mark.nightly
def test_processes_of_jobs_at_once_and_a_job_that_fails(tmp_path):
    """By ssl-sweep, with a grid that lies elsewhere than its configs, in a folder whose name Hydra has to be told."""
    tmp_path /= "é ( ) ~ # = , [x] it's"
    tmp_path.mkdir()
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, _self_]\n"
        "sweep: mine\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {subset.fraction: '0.5,1.0,1.5'}}}\n"
    )
    on_pool = ("hydra/launcher=pool", "hydra.launcher.slots=2")
    with started(tmp_path, "ssl-sweep", "grid.yaml", *SMALL, "trainer=ddp_cpu", *on_pool) as process:
        code, output = ended(process)
    assert code == 1, output
    lines = output.splitlines()
    assert lines[:3] == [
        "Jobs: 3, slots: 2",
        "#0 starts on slot 0: subset.fraction=0.5",
        "#1 starts on slot 1: subset.fraction=1.0",
    ]
    assert "#2 failed: exit code 1" in lines
    assert any(line.startswith("#2 | Error: subset.fraction is 1.5") for line in lines), output
    assert "Error: 2 of 3 jobs done, 1 failed: #2. The same command tries them again." in lines
    assert output.count("jobs done") == 1
    done = [run for run in find_runs([tmp_path / "runs" / "mine"]) if run.done]
    assert sorted(run.results()["identity"]["fraction"] for run in done) == [0.5, 1.0]
    assert {run.results()["environment"]["world_size"] for run in done} == {2}
    assert (tmp_path / "runs" / "mine" / "report" / "report.md").exists()


@pytest.mark.nightly
@pytest.mark.reliability(
    "SIGKILL of a job of a pool, or of the pool itself",
    lost="steps since the last checkpoint",
    read="`#0 failed: killed by signal 9 (out of memory?)`; jobs of a killed pool save and stop",
)
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="finds processes in /proc")
def test_interrupted_in_every_way(tmp_path):
    """Until nothing is left to do. The runs are those that commands by themselves make."""
    command = ("ssl-train", "-m", *SMALL, *GATE, "seed=1,2,3", "hydra/launcher=pool", "hydra.launcher.slots=2")

    def interrupted(step: int, interrupt: Callable[[int], None]) -> tuple[int, str]:
        """By a function of the pool's process, when two jobs are at the gate after a step."""
        with started(tmp_path, *command) as process:
            until(lambda: process.poll() is not None or len(list(tmp_path.glob(f"gate-{step}-*"))) >= 2)
            interrupt(process.pid)
            code, output = ended(process)
            until(lambda: not processes_in(tmp_path))
        return code, output

    def saved() -> list[int]:
        checkpoints = (run.checkpoint for run in runs_by_seed(tmp_path).values())
        return [torch.load(file, weights_only=True)["global_step"] for file in checkpoints]

    code, output = interrupted(1, lambda pid: os.killpg(pid, signal.SIGINT))
    assert code == 130, output
    assert "Traceback" not in output
    assert "SIGINT: 2 jobs are asked to stop" in output
    assert {"#0 stopped", "#1 stopped"} < set(output.splitlines())
    assert "#2" not in output
    assert "Interrupted, 0 of 3 jobs done" in output
    assert saved() == [1, 1]

    code, output = interrupted(2, lambda pid: os.kill(pid, signal.SIGKILL))
    assert code == -signal.SIGKILL
    assert saved() == [2, 2]

    def kill_the_first(pid: int) -> None:
        (first,) = (other for other, line in processes_in(tmp_path).items() if "seed=1 " in line)
        os.kill(first, signal.SIGKILL)
        (tmp_path / "gate").touch()

    code, output = interrupted(3, kill_the_first)
    assert code == 1, output
    assert "#0 failed: killed by signal 9 (out of memory?)" in output.splitlines()
    assert "Error: 2 of 3 jobs done, 1 failed: #0. The same command tries them again." in output.splitlines()
    assert {seed: run.status for seed, run in runs_by_seed(tmp_path).items()} == {
        "s1": "unfinished",
        "s2": "finished",
        "s3": "finished",
    }

    with started(tmp_path, *command) as process:
        code, output = ended(process)
    assert code == 0, output
    assert output.splitlines()[-1] == "3 of 3 jobs done"
    assert "#0 | " + runs_by_seed(tmp_path)["s1"].id + " resumes" in output
    assert output.count("is finished") == 2

    for seed in ("1", "3"):  # one interrupted again and again, and one never
        alone = tmp_path / f"alone-{seed}"
        alone.mkdir()
        (alone / "gate").touch()
        ended_alone = ssl_train(alone, *SMALL, *GATE, f"seed={seed}")
        assert ended_alone.code == 0, ended_alone.output
        ours, theirs = runs_by_seed(tmp_path)[f"s{seed}"], runs_by_seed(alone)[f"s{seed}"]
        assert ours.id == theirs.id
        states = [torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in (ours, theirs)]
        assert_identical(*states)
        assert ours.metrics_file.read_bytes() == theirs.metrics_file.read_bytes()
        assert ours.results()["metrics"] == theirs.results()["metrics"]
        assert ours.results()["environment"] == theirs.results()["environment"]


@pytest.mark.nightly
@pytest.mark.reliability(
    "a job of a sweep is killed from outside, as where memory is short",
    lost="steps since the last checkpoint; with `--retry N` the same call goes on with it",
    read="`#0 failed: killed by signal 9 (out of memory?)`, then `Retry 1 of 2, jobs: 1` and `resumes`",
)
def test_a_sweep_tries_what_was_killed_again(tmp_path):
    """From its checkpoint; but not where the sweep itself is interrupted."""
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, _self_]\nsweep: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1'}}}\n"
    )
    killing = ("+callbacks.killed._target_=tests.processes.Killed", "+callbacks.killed.before=1", "subset.fraction=0.5")
    command = ("ssl-sweep", "grid.yaml", *SMALL, *killing, "checkpoint.every_steps=1", "hydra/launcher=pool")
    with started(tmp_path, *command, "--retry", "2") as process:
        code, output = ended(process)
    assert code == 0, output
    lines = output.splitlines()
    assert lines.count("#0 failed: killed by signal 9 (out of memory?)") == 1
    assert [line for line in lines if line.startswith("Retry ")] == ["Retry 1 of 2, jobs: 1"]
    assert sum(line.endswith("resumes") for line in lines) == 1
    assert lines[-1] == "1 finished"


@pytest.mark.nightly
def test_an_interrupted_sweep_tries_nothing_again(tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, _self_]\nsweep: mine\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2'}}}\n"
    )
    command = ("ssl-sweep", "grid.yaml", *SMALL, *GATE, "hydra/launcher=pool", "hydra.launcher.slots=1", "--retry", "3")
    with started(tmp_path, *command) as process:
        until(lambda: process.poll() is not None or list(tmp_path.glob("gate-1-*")))
        os.kill(process.pid, signal.SIGINT)
        code, output = ended(process)
    assert code == 130, output
    assert "Retry" not in output
    assert "Interrupted, 0 of 2 jobs done" in output
    (run,) = find_runs([tmp_path / "runs"])
    assert run.status == "unfinished"
    assert not any(told.error for file in tmp_path.glob("runs/.sweeps/*") for told in Journal(file).all_told())


@pytest.mark.nightly
def test_jobs_of_ssl_select_are_ssl_select(command):
    outcome = command("ssl-select", "-m", *SMALL, "subset=full", "hydra/launcher=pool")
    assert outcome.code == 1
    assert "#0 | Error: subset=full takes all images" in outcome.out
    assert outcome.err.splitlines() == ["Error: 0 of 1 jobs done, 1 failed: #0. The same command tries them again."]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("hydra.launcher.slots=0", "hydra.launcher.slots is 0: write auto"),
        ("hydra.launcher.slot=2", "did you mean 'hydra.launcher.slots'?"),
    ],
)
def test_wrong_slots(command, override, message):
    outcome = command("ssl-train", "-m", *SMALL, "hydra/launcher=pool", override)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.startswith("Error: ")
    assert outcome.err.count("Error") == 1
