"""Jobs of a real SLURM: handed over, judged, stopped and started again."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ssl_lightning.runs.run import Run, find_runs
from tests.launchers.cluster import MISSING, Cluster, cluster, ended, until
from tests.pipeline.test_resume import assert_identical
from tests.processes import ssl_train, two_processes

__all__ = ["cluster"]
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(MISSING), reason=f"needs {', '.join(MISSING)}"),
]

# 629 images in batches of 128 are 4 steps an epoch, 12 in all.
SMALL = (
    "dataset=digits",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=5",
    "trainer.enable_progress_bar=false",
    "backbone.width=4",
    "method.projector.hidden=32",
    "batch_size=128",
    "subset.fraction=0.5",
    "checkpoint.every_minutes=60",
    "evaluation=none",
)
GATE = ("+callbacks.gate._target_=tests.processes.Gate", "+callbacks.gate.file=gate", "+callbacks.gate.first=6")
ON_SLURM = ("hydra/launcher=slurm", "hydra.launcher.cpus_per_task=1")
TWO_NODES = ("trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2")


def runs_of(folder: Path) -> dict[str, Run]:
    return {run.id: run for run in find_runs([folder / "runs"])}


def step_of(run: Run) -> int:
    return torch.load(run.checkpoint, weights_only=True)["global_step"]


def assert_ends_alike(folder: Path, reference: Path) -> None:
    """The runs in one folder equal those of the same names in the other, bit for bit."""
    ours, theirs = runs_of(folder), runs_of(reference)
    assert ours
    for name, run in ours.items():
        assert run.done
        states = [torch.load(one.checkpoint, weights_only=True) for one in (run, theirs[name])]
        for key in ("state_dict", "optimizer_states", "global_step"):
            assert_identical(states[0][key], states[1][key], key)
        assert run.metrics_file.read_text() == theirs[name].metrics_file.read_text()
        assert run.results()["metrics"] == theirs[name].results()["metrics"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process, without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "gate").touch()
    done = ssl_train(folder, *SMALL, *GATE)
    assert done.code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def undisturbed_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two processes, without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed-pair")
    (folder / "gate").touch()
    for done in two_processes(folder, *SMALL, *GATE, "trainer=ddp_cpu"):
        assert done.code == 0, done.output
    return folder


def at_the_gate(folder: Path, process: subprocess.Popen[str]) -> int:
    """How many processes wait after the sixth step."""
    assert process.poll() is None, process.communicate()[0]
    return len(list(folder.glob("gate-6-*")))


def starts_again(cluster: Cluster, job: str) -> bool:
    """Whether it is put back into the queue, and nothing of its first start runs any more."""
    shown = cluster.shown(job)
    return (shown["Restarts"], shown["JobState"]) in {("1", "PENDING"), ("1", "RUNNING")}


def submitted(cluster: Cluster, folder: Path, command: str, *arguments: str) -> str:
    """Number of the job whose script starts a command by srun. What it prints is in the file `said`."""
    words = shlex.join(["srun", str(Path(sys.executable).parent / command), *arguments])
    options = ("--parsable", "--requeue", f"--chdir={folder}", "--output=said", "--open-mode=append")
    return cluster("sbatch", *options, f"--wrap={words}").strip()


def log_of(folder: Path, job: str, process: int = 0) -> str:
    return (folder / "runs" / ".submitit" / job / f"{job}_{process}_log.out").read_text()


def test_a_sweep_is_an_array(cluster: Cluster, tmp_path: Path):
    """Of which one half fails."""
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, _self_]\n"
        "sweep: mine\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {seed: '1,2', subset.fraction: '0.5,1.5'}}}\n"
    )
    arguments = [value for value in SMALL if "fraction" not in value]
    done = cluster.run(tmp_path, "ssl-sweep", "grid.yaml", *arguments, *ON_SLURM, "hydra.launcher.array_parallelism=2")
    lines = done.output.splitlines()
    assert done.code == 1, done.output
    (name,) = re.findall(r"^SLURM's job (\d+): 4 jobs, at most 2 at a time$", done.output, flags=re.M)
    assert lines[1:5] == [
        f"#{number} is {name}_{number}: seed={seed} subset.fraction={fraction}"
        for number, (seed, fraction) in enumerate([(1, 0.5), (1, 1.5), (2, 0.5), (2, 1.5)])
    ]
    assert {"#0 done", "#2 done"} < set(lines)
    for number in (1, 3):
        assert any(line.startswith(f"#{number} failed: subset.fraction is 1.5") for line in lines), done.output
    assert "Error: 2 of 4 jobs done, 2 failed: #1, #3. The same command tries them again." in lines
    assert any(line.startswith("2 finished, 2 failed: subset.fraction is 1.5") for line in lines), done.output
    assert cluster.shown(f"{name}_0")["ArrayTaskThrottle"] == "2"
    assert sorted(run.id.split("-")[4] for run in runs_of(tmp_path).values()) == ["s1", "s2"]
    assert all(run.done for run in runs_of(tmp_path).values())


def test_two_nodes_train_as_two_processes_do(cluster: Cluster, tmp_path: Path, undisturbed_pair: Path):
    (tmp_path / "gate").touch()
    done = cluster.run(tmp_path, "ssl-train", "-m", *SMALL, *GATE, *TWO_NODES, *ON_SLURM)
    assert done.code == 0, done.output
    (job,) = re.findall(r"^#0 is (\d+):", done.output, flags=re.M)
    assert cluster.shown(job)["NumNodes"] == "2"
    (run,) = runs_of(tmp_path).values()
    assert run.results()["environment"]["world_size"] == 2
    assert_ends_alike(tmp_path, undisturbed_pair)


@pytest.mark.reliability(
    "SLURM ends a job: at its time limit, to preempt it, or by scancel",
    lost="nothing where it is told before: the step is finished and saved by all processes; else steps since the last "
    "checkpoint",
    read="`SLURM is going to end this job: step 6 is saved.`; then `resumes`, but after scancel",
)
def test_a_job_that_is_told_of_its_end_starts_again_where_it_was(
    cluster: Cluster, tmp_path: Path, undisturbed_pair: Path
):
    """On two nodes. What it logs is one run of wandb's."""
    offline = ("logger=wandb", "logger.wandb.mode=offline")
    with cluster.started(tmp_path, "ssl-train", "-m", *SMALL, *GATE, *TWO_NODES, *ON_SLURM, *offline) as process:
        until(lambda: at_the_gate(tmp_path, process) == 2)
        (job,) = cluster.jobs()
        cluster("scancel", "--signal=USR2", job)
        until(lambda: starts_again(cluster, job))
        (run,) = runs_of(tmp_path).values()
        assert step_of(run) == 6
        (tmp_path / "gate").touch()
        done = ended(process)
    assert done.code == 0, done.output
    assert [line for line in done.output.splitlines() if line.startswith("#0 ")][1:] == [
        "#0 runs",
        "#0 waits to go on",
        "#0 runs",
        "#0 done",
    ]
    said = log_of(tmp_path, job)
    assert said.count("SLURM is going to end this job: step 6 is saved.") == 1
    assert said.count(f"{run.id} resumes") == 1
    assert "Traceback" not in said + log_of(tmp_path, job, 1)
    assert_ends_alike(tmp_path, undisturbed_pair)
    folders = [folder.name for folder in tmp_path.glob("runs/default/wandb/offline-run-*")]
    assert len(folders) == 2
    assert len({folder.split("-", 3)[3] for folder in folders}) == 1


@pytest.mark.reliability("SLURM ends a job: at its time limit, to preempt it, or by scancel")
def test_a_job_at_its_time_limit_starts_again(cluster: Cluster, tmp_path: Path, undisturbed: Path):
    """The limit comes near once there is something to save. Up to ten minutes, submitit counts each start as one."""
    limits = ("hydra.launcher.timeout_min=10", "hydra.launcher.max_num_timeout=1", "hydra.launcher.signal_delay_s=100")
    with cluster.started(tmp_path, "ssl-train", "-m", *SMALL, *GATE, *ON_SLURM, *limits) as process:
        until(lambda: at_the_gate(tmp_path, process) == 1)
        (job,) = cluster.jobs()
        hours, minutes, _ = map(int, cluster.shown(job)["RunTime"].split(":"))
        cluster("scontrol", "update", f"JobId={job}", f"TimeLimit={60 * hours + minutes + 2}")
        until(lambda: starts_again(cluster, job))
        cluster("scontrol", "update", f"JobId={job}", "TimeLimit=10")
        (tmp_path / "gate").touch()
        done = ended(process)
    assert done.code == 0, done.output
    assert "(0 remaining timeouts)" in log_of(tmp_path, job)
    assert_ends_alike(tmp_path, undisturbed)


@pytest.mark.reliability("SLURM ends a job: at its time limit, to preempt it, or by scancel")
def test_a_preempted_job_starts_again_and_a_cancelled_one_does_not(cluster: Cluster, tmp_path: Path, undisturbed: Path):
    """Nor is a job lost that is a whole pool: it ends when SLURM ends it, not before."""
    pooled = tmp_path / "pooled"
    pooled.mkdir()
    with cluster.started(tmp_path, "ssl-train", "-m", *SMALL, *GATE, *ON_SLURM, "seed=0,1") as process:
        until(lambda: at_the_gate(tmp_path, process) == 2)
        (name,) = cluster.jobs()
        pool = submitted(cluster, pooled, "ssl-train", "-m", *SMALL, *GATE, "hydra/launcher=pool")
        until(lambda: list(pooled.glob("gate-6-*")))
        cluster("scancel", f"{name}_1")
        until(lambda: cluster.shown(f"{name}_1")["JobState"] == "CANCELLED")
        high = ("--partition=high", "--nodes=2", "--exclusive", "--output=/dev/null", "--wrap=sleep 1")
        cluster("sbatch", *high)
        for job in (f"{name}_0", pool):
            until(lambda job=job: starts_again(cluster, job))
        for folder in (tmp_path, pooled):
            (folder / "gate").touch()
        done = ended(process)
        until(lambda: cluster.shown(pool)["JobState"] == "COMPLETED")
    said = (pooled / "said").read_text()
    assert "SLURM is going to end this job" in said
    assert " resumes\n" in said
    assert_ends_alike(pooled, undisturbed)
    assert done.code == 1, done.output
    assert re.search(r"^#1 failed: it was ended: .*CANCELLED", done.output, flags=re.M), done.output
    assert "Error: 1 of 2 jobs done, 1 failed: #1." in done.output
    assert cluster.shown(f"{name}_1")["Restarts"] == "0"
    for number in (0, 1):
        assert "SLURM is going to end this job: step 6 is saved." in log_of(tmp_path, f"{name}_{number}")
    cancelled = next(run for run in runs_of(tmp_path).values() if "-s1-" in run.id)
    assert (cancelled.status, step_of(cancelled) >= 6) == ("unfinished", True)
    assert "resumes" in log_of(tmp_path, f"{name}_0")
    cancelled.folder.rename(tmp_path / "cancelled")
    assert_ends_alike(tmp_path, undisturbed)
