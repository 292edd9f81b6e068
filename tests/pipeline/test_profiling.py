"""A profile lies in the run's folder, of each process and command, and is no part of what the run is."""

import signal
from pathlib import Path

import pytest
import torch

from ssl_lightning.runs.run import Run, find_runs
from tests.composing import TINY
from tests.pipeline.test_resume import STEP, only_run
from tests.processes import Signal, ssl_train, two_processes

SHORT = (*TINY, "subset.fraction=0.1")  # 126 images, 15 steps
TARGET = "++trainer.profiler._target_=lightning.pytorch.profilers."


@pytest.fixture(scope="module")
def unprofiled(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("unprofiled")
    assert ssl_train(folder, *SHORT).code == 0
    return only_run(folder)


def weights(run: Run) -> dict[str, torch.Tensor]:
    return torch.load(run.checkpoint, weights_only=True)["state_dict"]


def profiles(run: Run) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(run.profiles.glob("*"))}


def named(out: str) -> Path:
    """What the last line of a command names as its profile."""
    return Path(out.splitlines()[-1].removeprefix("Profile: ")).resolve()


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        pytest.param(
            *(("trainer.profiler=simple",), {"fit-simple-*.txt": b"SimCLR.optimizer_step"}), marks=pytest.mark.nightly
        ),
        (("trainer.profiler=advanced",), {"fit-advanced-*.txt": b"cumulative"}),
        (
            ("trainer.profiler=pytorch",),
            {"fit-pytorch-*.txt": b"aten::conv", "fit-pytorch-*training_step*.pt.trace.json": b"traceEvents"},
        ),
        (
            (f"{TARGET}SimpleProfiler", "++trainer.profiler.extended=false", "++trainer.profiler.filename=mine"),
            {"fit-mine-*.txt": b"SimCLR.optimizer_step"},
        ),
    ],
    ids=["simple", "advanced", "pytorch", "target"],
)
def test_a_profile_lies_in_the_folder_of_the_same_run(command, unprofiled, arguments, written):
    done = command("ssl-train", *SHORT, *arguments)
    assert done.code == 0, done.err
    run = only_run(Path())
    assert run.id == unprofiled.id
    assert named(done.out) == run.profiles
    assert len(profiles(run)) == len(written)
    for name, content in written.items():
        (file,) = run.profiles.glob(name)
        assert content in file.read_bytes()
    for name, value in weights(run).items():
        assert torch.equal(value, weights(unprofiled)[name]), name


@pytest.mark.nightly
def test_of_each_command_that_an_interrupted_run_takes(tmp_path, unprofiled):
    profiled = (*SHORT, "trainer.profiler=simple", "checkpoint.every_steps=2")
    ended = ssl_train(tmp_path, *profiled, at=Signal(STEP, 6, number=signal.SIGTERM))
    run = only_run(tmp_path)
    assert not run.done
    assert f"Profile: {run.profiles.relative_to(tmp_path)}" in ended.output
    first = profiles(run)
    assert b"".join(first.values()).count(b"Profiler Report") == 1
    killed = ssl_train(tmp_path, *profiled, at=Signal(STEP, 3, number=signal.SIGKILL))
    assert killed.code == -signal.SIGKILL
    assert profiles(run) == first  # a process that is killed says nothing
    assert ssl_train(tmp_path, *profiled).code == 0
    both = profiles(run)
    assert b"".join(both.values()).count(b"Profiler Report") == 2
    assert all(both[name].startswith(content) for name, content in first.items())
    for name, value in weights(run).items():
        assert torch.equal(value, weights(unprofiled)[name]), name


@pytest.mark.nightly
def test_of_each_process(tmp_path):
    arguments = (*SHORT, "trainer=ddp_cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=1")
    for ended in two_processes(tmp_path, *arguments, "trainer.profiler=simple"):
        assert ended.code == 0, ended.output
    names = list(profiles(only_run(tmp_path)))
    assert [name.rpartition("-")[2] for name in sorted(names, key=lambda name: name[-5])] == ["0.txt", "1.txt"]


def test_of_a_run_that_fails(command):
    done = command("ssl-train", *SHORT, "trainer.profiler=advanced", "method._target_=tests.parts.FaultyLoss")
    assert done.code == 1
    run = only_run(Path())
    assert len(profiles(run)) == 1
    assert named(done.out) == run.profiles


@pytest.mark.nightly
def test_where_there_is_none(command):
    """A rehearsal keeps nothing, and what is finished is not trained again."""
    done = command("ssl-train", *SHORT, "trainer.profiler=pytorch", "trainer.fast_dev_run=true")
    assert done.code == 0, done.err
    assert "Profile" not in done.out
    assert find_runs([Path("runs")]) == []
    assert command("ssl-train", *SHORT).code == 0
    assert "rofile" not in command("ssl-train", *SHORT).out
    done = command("ssl-train", *SHORT, "trainer.profiler=simple")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == "No profile: nothing was trained. force=true trains anew."
    run = only_run(Path())
    done = command("ssl-evaluate", f"run={run.folder}", "trainer.profiler=simple")
    assert done.code == 1
    assert "ssl-evaluate trains nothing. Leave it out." in done.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("trainer.profiler=fast",), "trainer.profiler is 'fast' (command line: trainer.profiler=fast), but it should"
         " be 'simple', 'advanced' or 'pytorch', or null."),
        ((f"{TARGET}SimpleProfiler", "++trainer.profiler.dirpath=here"), "trainer.profiler.dirpath is 'here', but"),
        ((f"{TARGET}SimpleProfiler", "++trainer.profiler.rows=3"), "unknown key 'trainer.profiler.rows'"),
        (("++trainer.profiler._target_=torch.nn.Identity",), "does not make a lightning.pytorch.profilers"),
    ],
)  # fmt: skip
def test_what_is_refused(command, arguments, said):
    done = command("ssl-train", *SHORT, *arguments)
    assert done.code == 1
    assert said in done.err
    assert not Path("runs").exists() or find_runs([Path("runs")]) == []


def test_no_profile_is_written_through_a_link(command, tmp_path):
    done = command("ssl-train", *SHORT, "method._target_=tests.parts.FaultyLoss")
    run = only_run(Path())
    (tmp_path / "elsewhere").mkdir()
    run.profiles.symlink_to(tmp_path / "elsewhere")
    done = command("ssl-train", *SHORT, "method._target_=tests.parts.FaultyLoss", "trainer.profiler=simple")
    assert done.code == 1
    assert "profiles is a link" in done.err
    assert list((tmp_path / "elsewhere").iterdir()) == []
