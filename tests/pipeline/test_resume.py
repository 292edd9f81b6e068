"""A run that is interrupted at any moment and started again ends as one that never was: bit for bit on the CPU."""

import itertools
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import Run, find_runs
from tests.processes import Ended, Signal, ssl_train, started

# 629 images in batches of 128 are 4 steps an epoch, 12 in all; rows of metrics.csv at steps 5, 10 and 12.
SMALL = (
    "dataset=digits",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    "subset.fraction=0.5",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.log_every_n_steps=5",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=3",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)
METHODS = {
    "simclr": SMALL,
    "directclr": (*(a for a in SMALL if "projector" not in a), "method=directclr"),
    "gessl": (*(a for a in SMALL if "projector" not in a), "method=gessl", "method.base.projector.hidden=64"),
    "compiled": (*SMALL, "compile=default"),
    "muon in one cycle": (*SMALL, "optimizer=muon", "schedule=one_cycle_momentum", "trainer.gradient_clip_val=1.0"),
    "progressive resolution": (*SMALL, "resolution=progressive", "resolution.multiple=1"),  # from 4 pixels to 8
    # Epochs of 9 steps, or fewer where images are left out.
    "infobatch": (*SMALL, "selection=infobatch", "selection.until=1.0", "batch_size=64", "trainer.max_epochs=4"),
    "scan": (*SMALL, "selection=scan", "selection.cycle=2", "batch_size=64"),
    "equal steps": (*SMALL, "budget=steps", "trainer.max_epochs=2"),  # 18 steps
    "max_steps": (*SMALL, "trainer.max_steps=10"),
    "spectra": (*SMALL, "callbacks=spectrum"),
}
STEP = "ssl_lightning.methods.method.SSLMethod.training_step"
STOPPED = {
    signal.SIGINT: "Interrupted. The same command goes on from what is saved.",
    signal.SIGTERM: "Terminated. The same command goes on from what is saved.",
}
SAVE = "ssl_lightning.callbacks.checkpoint.AtomicCheckpointIO.save_checkpoint"


class Trained(NamedTuple):
    """All that a run leaves and that does not tell the time."""

    checkpoint: dict[str, Any]
    results: dict[str, Any]
    metrics: bytes


def only_run(folder: Path) -> Run:
    (run,) = find_runs([folder / "runs"])
    return run


def trained(run: Run) -> Trained:
    assert run.done
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    results = run.results()
    for key in [
        *(key for key in results["cost"] if key.endswith("_seconds")),
        "images_per_second",
        "peak_memory_bytes",
    ]:
        del results["cost"][key]
    for state in checkpoint["callbacks"].values():
        for key in ("train_seconds", "watching_seconds", "waiting_seconds", "selecting_seconds", "peak_memory"):
            state.pop(key, None)
    return Trained(checkpoint, results, run.metrics_file.read_bytes())


def assert_identical(a: Any, b: Any, where: str = "") -> None:
    """Equal values of equal types throughout; tensors bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype, where
        assert torch.equal(a, b), where
    elif isinstance(a, Mapping):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_identical(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_identical(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def _first_difference(resumed: Trained, reference: Trained) -> str:
    lines = itertools.zip_longest(resumed.metrics.splitlines(), reference.metrics.splitlines())
    return "metrics.csv: " + next(f"{a!r} instead of {b!r}" for a, b in lines if a != b)


def assert_alike(resumed: Trained, reference: Trained) -> None:
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "callbacks", "global_step"):
        assert_identical(resumed.checkpoint[key], reference.checkpoint[key], key)
    assert resumed.metrics.splitlines() == reference.metrics.splitlines(), _first_difference(resumed, reference)
    assert_identical(resumed.results, reference.results, "results")


def assert_ends_alike(folder: Path, reference: Trained) -> None:
    assert_alike(trained(only_run(folder)), reference)
    left = {file.name for file in only_run(folder).folder.rglob(".*")}
    assert left <= {".lock"}, "temporary files of killed processes remain"


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory):
    """What an uninterrupted run leaves, by the name of its arguments, each run once."""
    known: dict[tuple[str, ...], Trained] = {}

    def of(arguments: tuple[str, ...]) -> Trained:
        if arguments not in known:
            folder = tmp_path_factory.mktemp("reference")
            ended = ssl_train(folder, *arguments)
            assert ended.code == 0, ended.output
            known[arguments] = trained(only_run(folder))
        return known[arguments]

    return of


def interrupt(folder: Path, arguments: tuple[str, ...], at: Signal) -> Ended:
    ended = ssl_train(folder, *arguments, at=at)
    assert not only_run(folder).done
    if at.number == signal.SIGKILL:
        assert ended.code == -signal.SIGKILL, ended.output
    return ended


def checkpointed_step(folder: Path) -> int:
    file = only_run(folder).checkpoint
    return torch.load(file, weights_only=True)["global_step"] if file.exists() else 0


MOMENTS = {
    "before the first checkpoint": ("simclr", 0, Signal(STEP, 3)),
    "in an epoch after a checkpoint": ("simclr", 6, Signal(STEP, 8)),
    "between backward and optimizer step": ("simclr", 3, Signal(STEP, 5, "after")),
    "while a first checkpoint is written": ("simclr", 0, Signal("torch.save", 1, "within")),
    "while a checkpoint is written": ("simclr", 3, Signal("torch.save", 2, "within")),
    "before the last checkpoint of an epoch": ("simclr", 9, Signal(SAVE, 4)),
    "after the last checkpoint": ("simclr", 12, Signal(SAVE, 4, "after")),
    "after the last row of metrics": (
        "simclr",
        12,
        Signal("ssl_lightning.callbacks.checkpoint.LastCheckpoint.on_train_end"),
    ),
    "before evaluation": ("simclr", 12, Signal("ssl_lightning.pipeline.measuring.extract")),
    "in evaluation": ("simclr", 12, Signal("ssl_lightning.pipeline.measuring.extract", 2)),
    "between results and DONE": ("simclr", 12, Signal("ssl_lightning.runs.run.write_text", 2)),
    "directclr": ("directclr", 6, Signal(STEP, 8)),
    "gessl": ("gessl", 6, Signal(STEP, 8)),
    "compiled": ("compiled", 6, Signal(STEP, 8)),
    "muon in one cycle": ("muon in one cycle", 6, Signal(STEP, 8)),
    "progressive resolution": ("progressive resolution", 3, Signal(STEP, 6)),
    "infobatch, in a shorter epoch": ("infobatch", 12, Signal(STEP, 14)),
    "infobatch, at the end of an epoch": ("infobatch", 9, Signal(SAVE, 3, "after")),
    "scan, in a shorter epoch": ("scan", 21, Signal(STEP, 23)),
    "equal steps, in an epoch": ("equal steps", 9, Signal(STEP, 11)),
    "equal steps, at the end of an epoch": ("equal steps", 12, Signal(SAVE, 4, "after")),
    "equal steps, at the end": ("equal steps", 18, Signal(SAVE, 6, "after")),
    "max_steps, in an epoch": ("max_steps", 6, Signal(STEP, 8)),
    "spectra, of which no row tells yet": ("spectra", 6, Signal(STEP, 8)),
    "max_steps, before evaluation": ("max_steps", 10, Signal("ssl_lightning.pipeline.measuring.extract")),
}


EXAMPLES = (
    *("while a checkpoint is written", "after the last row of metrics", "in evaluation", "between results and DONE"),
    *("before the first checkpoint", "gessl", "equal steps, at the end", "spectra, of which no row tells yet"),
)
"""The other moments are left to the nightly tests."""


@pytest.mark.one_in(4)
@pytest.mark.reliability("SIGKILL of a run, at any moment")
@pytest.mark.parametrize(
    ("name", "step", "moment"),
    [
        pytest.param(*how, id=when, marks=() if when in EXAMPLES else pytest.mark.nightly)
        for when, how in MOMENTS.items()
    ],
)
def test_killed(tmp_path, reference, name, step, moment):
    arguments = METHODS[name]
    interrupt(tmp_path, arguments, moment)
    assert checkpointed_step(tmp_path) == step
    assert only_run(tmp_path).status == "unfinished"
    ended = ssl_train(tmp_path, *arguments)
    assert ended.code == 0, ended.output
    assert ("resumes" if step else "starts") in ended.output
    assert_ends_alike(tmp_path, reference(arguments))


@pytest.mark.nightly
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(Signal(SAVE, 1, "after"), id="at"),
        pytest.param(Signal(STEP, 6), id="after", marks=pytest.mark.nightly),
    ],
)
def test_killed_when_checkpoints_lie_at_the_ends_of_epochs(tmp_path, reference, moment):
    arguments = (*SMALL, "checkpoint.every_steps=4")
    interrupt(tmp_path, arguments, moment)
    assert checkpointed_step(tmp_path) == 4
    assert ssl_train(tmp_path, *arguments).code == 0
    assert_ends_alike(tmp_path, reference(SMALL))  # how often checkpoints are made changes nothing


@pytest.mark.nightly
def test_killed_time_and_again(tmp_path, reference):
    for call, step in ((5, 3), (3, 3), (5, 6), (5, 9)):
        interrupt(tmp_path, SMALL, Signal(STEP, call))
        assert checkpointed_step(tmp_path) == step
    interrupt(tmp_path, SMALL, Signal("ssl_lightning.pipeline.measuring.extract"))
    interrupt(tmp_path, SMALL, Signal("ssl_lightning.pipeline.measuring.extract", 2))
    assert ssl_train(tmp_path, *SMALL).code == 0
    assert_ends_alike(tmp_path, reference(SMALL))


@pytest.mark.nightly
def test_killed_from_outside(tmp_path, reference):
    """Wherever the process happens to be once the files that it leaves show progress."""
    arguments = (*SMALL, "trainer.log_every_n_steps=1")
    for rows in (2, 5, 8):
        with started(tmp_path, *arguments) as wait:
            while wait.process.is_alive() and sum(len(r) for r in _rows(tmp_path)) < rows:
                time.sleep(0.005)
            os.kill(wait.process.pid, signal.SIGKILL)
            assert wait().code == -signal.SIGKILL
    assert ssl_train(tmp_path, *arguments).code == 0
    assert_ends_alike(tmp_path, reference(arguments))


def _rows(folder: Path) -> list[list[dict[str, str]]]:
    return [read_metrics(file) for file in folder.glob("runs/*/*/metrics.csv")]


@pytest.mark.one_in(2)
@pytest.mark.reliability("Ctrl-C, or SIGTERM to one of several processes")
@pytest.mark.parametrize(
    ("number", "code", "call"),
    [
        pytest.param(signal.SIGTERM, 143, 7, id="SIGTERM", marks=pytest.mark.nightly),
        pytest.param(signal.SIGTERM, 143, 4, id="SIGTERM in an epoch's last step", marks=pytest.mark.nightly),
        pytest.param(signal.SIGTERM, 143, 12, id="SIGTERM in the last step"),
        pytest.param(signal.SIGINT, 130, 7, id="SIGINT"),
    ],
)
def test_stopped(tmp_path, reference, number, code, call):
    """Asked to stop in a step, which is finished and saved."""
    arguments = (*SMALL, "checkpoint.every_steps=null")
    ended = interrupt(tmp_path, arguments, Signal(STEP, call, "before", number))
    assert ended.code == code, ended.output
    assert "Traceback" not in ended.output
    assert checkpointed_step(tmp_path) == call
    assert STOPPED[number] in ended.output
    assert not only_run(tmp_path).error_file.exists()
    assert ssl_train(tmp_path, *arguments).code == 0
    assert_ends_alike(tmp_path, reference(SMALL))


@pytest.mark.reliability("a second Ctrl-C, also where a process waits in a library")
def test_a_second_interrupt_ends_at_once(tmp_path, reference):
    """The step is broken off, so that there is nothing consistent to save."""
    ended = interrupt(tmp_path, SMALL, Signal(STEP, 7, "before", signal.SIGINT, times=2))
    assert ended.code == 130, ended.output
    assert "Ctrl-C again stops at once" in ended.output
    assert STOPPED[signal.SIGINT] in ended.output
    assert "Traceback" not in ended.output
    assert checkpointed_step(tmp_path) == 6
    assert ssl_train(tmp_path, *SMALL).code == 0
    assert_ends_alike(tmp_path, reference(SMALL))


@pytest.mark.nightly
@pytest.mark.parametrize("place", ["an error of its own making", "evaluation"])
def test_stopped_elsewhere(tmp_path, place):
    """A signal has its own exit code and line, also where what it breaks off reports another error."""
    at = "ssl_lightning.pipeline.measuring.extract"
    trouble = place != "evaluation"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        ended = interrupt(tmp_path, SMALL, Signal(at, 1, "before", number, disguised=trouble))
        assert ended.code == code, ended.output
        assert STOPPED[number] in ended.output
        assert "Error" not in ended.output
        assert "Traceback" not in ended.output


@pytest.mark.nightly
@pytest.mark.reliability(
    "SIGKILL while figures are drawn",
    lost="nothing: the run is finished by then, and the same command draws them",
    read="`… is finished`",
)
def test_killed_while_it_draws(tmp_path):
    """The run is finished by then. The same command draws what is missing, and leaves no part of a figure."""
    ended = ssl_train(tmp_path, *SMALL, figures=True, at=Signal("matplotlib.figure.Figure.savefig"))
    run = only_run(tmp_path)
    assert ended.code == -signal.SIGKILL, ended.output
    assert run.done
    assert list(run.folder.glob("figures/.*.part"))
    ended = ssl_train(tmp_path, *SMALL, figures=True)
    assert f"{run.id} is finished" in ended.output
    assert {file.name for file in (run.folder / "figures").iterdir()} == {"curves.png", "spectrum.png"}


def test_resumed_epoch_goes_on_with_the_samples_not_yet_seen(tmp_path):
    def seen(folder: Path, *signals: Signal | None) -> list[tuple[int, list[int]]]:
        recorder = ("+callbacks.seen._target_=tests.processes.SeenSamples", "+callbacks.seen.file=seen.txt")
        for at in signals:
            ended = ssl_train(folder, *SMALL, *recorder, at=at)
            assert ended.code == (-signal.SIGKILL if at else 0), ended.output
        lines = (folder / "seen.txt").read_text().splitlines()
        return [(int(step), list(map(int, rest))) for step, *rest in map(str.split, lines)]

    never = seen(tmp_path / "never", None)
    killed = seen(tmp_path / "killed", Signal(STEP, 8), None)  # the step in progress wrote its line too
    assert [step for step, _ in never] == list(range(12))
    assert [step for step, _ in killed] == [*range(8), *range(6, 12)]
    assert killed == never[:8] + never[6:]
    for epoch in range(3):
        samples = list(itertools.chain.from_iterable(index for _, index in never[4 * epoch : 4 * epoch + 4]))
        assert len(set(samples)) == len(samples) == 4 * 128


@pytest.mark.nightly  # as a command; tests of short runs prove it within one process
def test_finished_run_is_not_trained_again(tmp_path, reference):
    reference(SMALL)
    assert ssl_train(tmp_path, *SMALL).code == 0
    run = only_run(tmp_path)
    before = {file: file.stat().st_mtime_ns for file in run.folder.rglob("*") if file.name != ".lock"}
    ended = ssl_train(tmp_path, *SMALL, "checkpoint.every_steps=null")
    assert ended.code == 0
    assert "is finished" in ended.output
    assert {file: file.stat().st_mtime_ns for file in before} == before
