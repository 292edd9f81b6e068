"""How far a sweep is, by real runs, and by folders as interruptions leave them."""

import math
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from ssl_lightning.commands.sweep import ONLY, _in_states
from ssl_lightning.config.grid import grid_of
from ssl_lightning.launchers.journal import job_told, journal_of, kept_in, tell_death
from ssl_lightning.pipeline.estimating import makespan
from ssl_lightning.pipeline.sweeps import Job, in_a_line, jobs_of, seconds_left
from ssl_lightning.runs.progress import Progress, in_time, read_progress, write_progress
from ssl_lightning.runs.run import find_runs
from tests.composing import TINY

GRID = (
    "defaults: [/train, _self_]\n"
    "sweep: mine\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {subset.fraction: '0.05,0.0007', method.temperature: '0.5,0.0'}}}\n"
)
"""A job that finishes; one whose subset is smaller than a batch; two whose settings are refused."""
REFUSED = "method.temperature is 0.0 (command line: method.temperature=0.0), but it should be greater than or equal"
TOO_SMALL = "batch_size is 8, but the subset has only 1 image"
PROGRESS = Progress(
    step=30,
    planned_steps=100,
    epoch=2,
    epochs=5,
    images_per_second=1234.0,
    seconds_per_step=0.5,
    train_seconds=15.0,
    time=0.0,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A working directory in which a sweep of four has been run, by processes, of which one was well."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text(GRID)
    sweep(folder)
    return folder


def sweep(folder: Path, *more: str) -> str:
    program = [sys.executable, "-m", "ssl_lightning.commands.sweep", "grid.yaml", *TINY, *more]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    return done.stdout


@pytest.fixture
def copy(made, tmp_path, monkeypatch) -> Path:
    """Of it, to be tampered with; the working directory, as another machine would see it."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def jobs() -> list[Job]:
    return jobs_of(grid_of("grid.yaml", TINY))


def states() -> list[str]:
    return [job.state for job in jobs()]


def test_each_job_has_a_state_and_a_reason(copy, command):
    finished, refused, small, again = jobs()
    assert [job.state for job in (finished, refused, small, again)] == ["finished", "failed", "failed", "failed"]
    assert finished.overrides[:2] == ("subset.fraction=0.05", "method.temperature=0.5")
    assert finished.run is not None
    assert not finished.run.progress_file.exists()
    cost = finished.run.results()["cost"]
    assert finished.seconds >= cost["train_seconds"] + cost["evaluation_seconds"]
    assert refused.reason == again.reason
    assert refused.reason.startswith(REFUSED)
    assert refused.run is None
    assert small.reason.startswith(TOO_SMALL)
    line = in_a_line(jobs())
    assert line.startswith(f"1 finished, 3 failed: {REFUSED}")
    assert f"(2); {TOO_SMALL}" in line
    assert line.endswith("(1)")

    outcome = command("ssl-sweep", "grid.yaml", *TINY, "--status")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "grid: 4 jobs: 1 finished, 3 failed"
    assert lines[1].startswith(f"failed: 2 (#1, #3): {REFUSED}")
    assert lines[2].startswith(f"failed: 1 (#2): {TOO_SMALL}")
    assert lines[3].startswith("spent: ")


@pytest.mark.nightly
def test_runs_that_nobody_has_told_of_are_found_by_their_configs(copy):
    """As those of a former version, or brought from another machine without its journal."""
    shutil.rmtree(copy / "runs/.sweeps")
    assert states() == ["finished", "to do", "failed", "to do"]
    (file,) = (copy / "runs/mine").glob("*-0.05-*/config.yaml")
    file.write_text(file.read_text().replace("batch_size: 8", "batch_size: 16"))
    assert states() == ["to do", "to do", "failed", "to do"]


def test_settings_that_change_no_run_make_the_same_jobs(copy):
    asked = [*TINY, "debug=true", "checkpoint.every_minutes=3", "sweep=mine"]
    assert [job.state for job in jobs_of(grid_of("grid.yaml", asked))] == ["finished", "to do", "failed", "to do"]


def test_other_settings_make_other_jobs(copy):
    seeds = jobs_of(grid_of("grid.yaml", [*TINY, "seed=0,5"]))
    finished = [one.overrides for one in seeds if one.state == "finished"]
    assert len(seeds) == 8
    assert len(finished) == 1  # the same run, whether or not its seed is said
    assert "seed=0" in finished[0]
    other = jobs_of(grid_of("grid.yaml", [*TINY, "backbone.width=8"]))
    assert {one.state for one in other} == {"to do"}


def test_a_lock_that_is_held_says_running(copy, command):
    run = jobs()[0].run
    (run.folder / "DONE").unlink()
    assert "interrupted: #0 " in (shown := command("ssl-sweep", "grid.yaml", *TINY, "--status").out)
    assert "it is evaluated, only its end is missing" in shown
    run.results_file.unlink()
    assert states()[0] == "interrupted"
    write_progress(run.progress_file, PROGRESS)
    with FileLock(run.folder / ".lock"):
        assert states()[0] == "running"
        shown = command("ssl-sweep", "grid.yaml", *TINY, "--status").out.splitlines()
    said = "epoch 2 of 5, step 30 of 100"
    job = "#0 subset.fraction=0.05 method.temperature=0.5"
    assert shown[1] == f"running: {job}: {said}, 1,234 images/s, 35 s of training left"
    assert f"interrupted: {job}: {said}" in command("ssl-sweep", "grid.yaml", *TINY, "--status").out


def test_one_that_makes_its_ranking_is_running(copy, command):
    """A process is at the job, and there is no run yet, or that of a former start."""
    grid = grid_of("grid.yaml", TINY)
    journal = journal_of(grid.runs, grid.file, grid.folders)
    before = states()
    with kept_in(journal), job_told(grid.jobs[1]):
        assert states() == [*before[:1], "running", *before[2:]]
        assert grid.jobs[1] not in _in_states(grid, ONLY["unfinished"])
        shown = command("ssl-sweep", "grid.yaml", *TINY, "--status").out.splitlines()
        assert shown[1].endswith("before its training")
    assert states() == before
    shutil.rmtree(copy / "runs/mine")
    with kept_in(journal), job_told(grid.jobs[0]):
        assert states()[0] == "running"
    assert states()[0] == "to do"


def test_one_that_was_killed_has_failed_and_one_that_was_stopped_has_not(copy, command):
    """Whose run itself cannot say which."""
    grid = grid_of("grid.yaml", TINY)
    job = jobs()[0]
    (job.run.folder / "DONE").unlink()
    job.run.results_file.unlink()
    assert states()[0] == "interrupted"
    assert _in_states(grid, ONLY["failed"]) == list(grid.jobs[1:])
    assert _in_states(grid, ONLY["interrupted"]) == [grid.jobs[0]]
    journal = journal_of(grid.runs, grid.file, grid.folders)
    with kept_in(journal):
        tell_death(grid.jobs[0], "killed by signal 9 (out of memory?)")
    job = jobs()[0]
    assert (job.state, job.reason) == ("failed", "killed by signal 9 (out of memory?)")
    assert _in_states(grid, ONLY["failed"]) == _in_states(grid, ONLY["unfinished"]) == list(grid.jobs)
    outcome = command("ssl-sweep", "grid.yaml", *TINY, "--only", "interrupted")
    assert (outcome.code, outcome.out) == (0, "No job is interrupted.\n")


def test_a_run_that_was_deleted_is_to_do(copy):
    shutil.rmtree(copy / "runs/mine")
    assert states() == ["to do", "failed", "failed", "failed"]  # why a job has failed is still known


def test_damaged_files_are_not_believed(copy):
    for file in (copy / "runs/.sweeps").glob("*/*.json"):
        file.write_text('{"overrides": [1]}')
    assert states() == ["finished", "to do", "failed", "to do"]
    run = jobs()[0].run
    for text in ("", "[]", '{"step": "x"}', "{"):
        run.progress_file.write_text(text)
        assert read_progress(run.progress_file) is None


def test_a_config_that_is_edited_is_another_grid(copy):
    """What was told of the former settings says nothing of these."""
    (copy / "grid.yaml").write_text(GRID + "batch_size: 16\n")
    assert [job.state for job in jobs_of(grid_of("grid.yaml", []))] == ["to do"] * 4


@pytest.mark.nightly
def test_only_what_failed_is_run_again(copy, command, no_figures):
    """And as often as was asked for."""
    outcome = command("ssl-sweep", "grid.yaml", *TINY, "--only", "failed", "--retry", "1")
    assert outcome.code == 1
    assert outcome.out.count("Launching 3 jobs locally") == 2
    assert "Retry 1 of 1, jobs: 3" in outcome.out
    assert outcome.out.splitlines()[-1] == in_a_line(jobs())


@pytest.mark.nightly
def test_none_is_started_after_a_failure(copy, command, no_figures):
    shutil.rmtree(copy / "runs")
    overrides = ("method.temperature=0.0,0.5", "subset.fraction=0.05")
    outcome = command("ssl-sweep", "grid.yaml", *TINY, *overrides, "--fail-fast")
    assert outcome.code == 1
    assert "0 of 2 jobs done, 1 failed: #0, 1 not started." in outcome.err
    assert outcome.out.splitlines()[-1].startswith("1 failed, 1 to do") or "1 to do" in outcome.out.splitlines()[-1]
    assert not list((copy / "runs").glob("mine/*/config.yaml"))


def test_a_launcher_that_hands_over_all_jobs_cannot_fail_fast(copy, command):
    grid = GRID.replace("hydra: {", "hydra: {launcher: {_target_: some.where.ArrayLauncher}, ")
    (copy / "grid.yaml").write_text(grid)
    outcome = command("ssl-sweep", "grid.yaml", *TINY, "--fail-fast")
    assert outcome.err.startswith("Error: --fail-fast: some.where.ArrayLauncher hands over all jobs at once.")


def test_runs_of_the_jobs_alone_are_uploaded(copy, command, no_login):
    """At any time, each once; what is being trained is left alone."""
    finished, small = jobs()[0].run, jobs()[2].run
    shutil.copytree(finished.folder, copy / "runs/other" / finished.id)
    arguments = ("ssl-sweep", "grid.yaml", *TINY, "--sync")
    with FileLock(small.folder / ".lock"):
        outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    lines = [line for line in outcome.out.splitlines() if not line.startswith(("wandb goes", "Upload them: "))]
    assert lines == [
        "2 of 4 jobs have no run yet",
        f"{small.id}: is being trained, and left to its own logger",
        f"{finished.id}: finished, rows: 1",
        "1 built offline, 1 still running",
    ]
    assert command(*arguments).out.splitlines()[-2].startswith("1 built offline, 1 unchanged")
    assert command(*arguments).out.splitlines()[-1] == "2 unchanged"
    assert len(list(copy.glob("runs/*/*/wandb/offline-run-*"))) == 2


def job(state: str, seconds: float, *overrides: str, progress: Progress | None = None) -> Job:
    return Job(0, overrides, state, "", seconds, progress, None)


def test_the_rest_takes_what_like_jobs_took():
    assert math.isnan(seconds_left([job("to do", 0, "a=1")]))
    done = [job("finished", 10, "a=1", "s=1"), job("finished", 14, "a=1", "s=2"), job("finished", 100, "a=2", "s=1")]
    assert seconds_left([*done, job("to do", 0, "a=1", "s=3")]) == 12
    assert seconds_left([*done, job("to do", 0, "a=2", "s=3")]) == 100
    assert seconds_left([*done, job("interrupted", 30, "a=2", "s=3")]) == 70
    assert seconds_left([*done, job("running", 30, "a=2", "s=3", progress=PROGRESS)]) == 35
    assert seconds_left([*done, job("failed", 0, "a=2", "s=3")]) == 0


def test_slots_are_filled_in_order():
    assert makespan([3, 1, 1, 1], 2) == 3
    assert makespan([1, 1, 1, 3], 2) == 4
    assert makespan([5], 4) == 5
    for _ in range(20):  # by a clock that ticks
        times, slots = [random.randint(1, 6) for _ in range(random.randint(1, 9))], random.randint(1, 4)
        waiting, running, clock = list(times), [], 0
        while waiting or running:
            running = [left - 1 for left in running if left > 1]
            while waiting and len(running) < slots:
                running.append(waiting.pop(0))
            clock += bool(running)
        assert makespan(times, slots) == clock


@pytest.mark.nightly
def test_how_long_a_sweep_will_take(copy, command):
    """By its own jobs, by runs of another sweep that are alike, in proportion to epochs and images, or not at all."""
    (results,) = (run.results() for run in find_runs([copy / "runs"]) if run.done)
    (finished,) = (job for job in jobs() if job.state == "finished")
    grid = ("ssl-sweep", "grid.yaml", *TINY, "--dry-run", "method.temperature=0.5")

    def said(*overrides: str) -> str:
        outcome = command(*grid, *overrides)
        assert outcome.code == 0, outcome.err
        return outcome.out.splitlines()[-1]

    line = said("subset.fraction=0.05,0.5")
    assert line == f"About {in_time(finished.seconds)} of work for the other 1 job, as 1 finished job took."

    on_two = ("subset.fraction=0.1", "seed=1,2", "trainer.max_epochs=1000", "sweep=new")
    line = said(*on_two, "hydra/launcher=pool", "hydra.launcher.slots=2")
    one = results["cost"]["train_seconds"] * 2000 + results["cost"]["evaluation_seconds"]
    device = results["environment"]["device"]
    assert line == (
        f"About {in_time(2 * one)} of work, {in_time(one)} at 2 slots, as 1 finished run like them took on {device}."
    )
    line = said(*on_two, "backbone.width=4,8")
    assert line.startswith(f"About {in_time(2 * one)} of work, as 1 finished run like them took on {device}; 2 jobs")
    assert said(*on_two, "backbone.width=8") == "How long they take is not known: no finished run is like them."


def test_times_in_words():
    words = [in_time(seconds) for seconds in (0.4, 89, 90, 3599, 3660, 2 * 86400 + 7200, math.nan)]
    assert words == ["0 s", "89 s", "2 min", "1 h 00 min", "1 h 01 min", "2 d 2 h", "an unknown time"]


@pytest.mark.nightly
def test_a_sweep_that_is_killed(copy, command):
    """Its job runs, as the lock says; afterwards it was interrupted, and what it had done is known."""
    long = [*TINY[:2], "trainer.max_epochs=100000", *TINY[3:], "method.temperature=0.5", "subset.fraction=0.05"]
    arguments = ["grid.yaml", *long, "hydra/launcher=pool", "hydra.launcher.slots=1"]
    program = [sys.executable, "-m", "ssl_lightning.commands.sweep", *arguments]
    with (copy / "out.txt").open("w") as out:
        process = subprocess.Popen(program, cwd=copy, stdout=out, stderr=out)
    try:
        grid = grid_of("grid.yaml", long)

        def only() -> Job:
            assert process.poll() is None, (copy / "out.txt").read_text()
            (one,) = jobs_of(grid)
            return one

        until = time.monotonic() + 240
        while not ((one := only()).state == "running" and one.progress and one.progress.step > 0):
            assert time.monotonic() < until, one
            time.sleep(0.2)
        assert one.progress.epochs == 100000
        assert one.progress.images_per_second > 0
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    while (one := jobs_of(grid)[0]).state == "running":
        assert time.monotonic() < until, one
        time.sleep(0.2)
    assert one.state == "interrupted"
    assert one.progress is not None
    assert one.seconds >= one.progress.train_seconds > 0
