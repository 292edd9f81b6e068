"""A damaged file of one run stops no report and no other run; what a whole checkpoint gives again is made again."""

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO
from ssl_lightning.errors import UserError
from ssl_lightning.runs.loading import load_run, resumable
from ssl_lightning.runs.run import Run
from tests.pipeline.test_resume import (
    SMALL,
    STEP,
    assert_ends_alike,
    checkpointed_step,
    interrupt,
    only_run,
    reference,
)
from tests.processes import Signal, ssl_train
from tests.reports.test_report import Command, Folder, forget, markdown, rows, sweep

__all__ = ["forget", "reference", "sweep"]


def empty(file: Path) -> None:
    file.write_bytes(b"")


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def binary(file: Path) -> None:
    file.write_bytes(bytes(range(256)) * 4)


def other(file: Path) -> None:
    """A file of the right kind with something else in it."""
    file.write_text(
        {".json": "[1, 2]", ".yaml": "just: {a: mapping}", ".csv": "step,loss\n1,\0\0\nx,y\n3,0.5,7\n"}.get(
            file.suffix, "something"
        )
    )


def nested(file: Path) -> None:
    file.write_text("[" * 100_000)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def examples(damages: Sequence[Callable[[Path], object]], number: int) -> list[Any]:
    """The first ones; the others are left to the nightly tests."""
    marks = [()] * number + [pytest.mark.nightly] * (len(damages) - number)
    return [pytest.param(damage, id=damage.__name__, marks=mark) for damage, mark in zip(damages, marks, strict=True)]


def each_of_both(names: Sequence[str], damages: Sequence[Callable[[Path], object]]) -> Iterator[Any]:
    """All damages of the first file, and the first damage of all; the rest of the product is left to the nightly
    tests."""
    for name, damage in itertools.product(names, damages):
        marks = () if name == names[0] or damage is damages[0] else pytest.mark.nightly
        yield pytest.param(name, damage, id=f"{name}-{damage.__name__}", marks=marks)


def unreadable(file: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root reads files of mode 0")
    file.chmod(0)


DAMAGE = (cut, empty, binary, other, nested, folder, unreadable)
FILES = ("results.json", "config.yaml", "metrics.csv", "evaluations/digits-0.json", "DONE")


@pytest.mark.one_in(3)
@pytest.mark.reliability(
    "any file of one run damaged, when a report is made",
    lost="that run's row",
    read="`damaged: <run>: <file> is damaged: …`",
)
@pytest.mark.parametrize(("name", "damage"), list(each_of_both(FILES, DAMAGE)))
def test_a_report_names_what_is_damaged_and_shows_the_others(command: Command, sweep: Folder, name, damage):
    for seed, top1 in ((1, 0.5), (2, 0.7)):
        run = sweep.finish(top1, seed=seed)
        run.metrics_file.write_text("step,epoch,loss\n1,0,0.5\n2,0,0.25\n")
        run.evaluation_file("digits-0").parent.mkdir()
        run.evaluation_file("digits-0").write_text(run.results_file.read_text())
    damage(run.folder / name)
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    if name in ("results.json", "config.yaml"):
        assert [row["linear %"] for row in rows(markdown(sweep))] == ["50.0"]
        (line,) = (line for line in done.out.splitlines() if line.startswith("damaged: "))
        assert f"{run.folder / name} is damaged" in line or f"{run.id}/{name}" in line
    else:
        assert [row["seeds"] for row in rows(markdown(sweep))] == ["2"]
        if name.startswith("evaluations"):
            assert f"{name} is damaged" in done.out


def test_done_without_results_is_no_finished_run(command: Command, sweep: Folder):
    sweep.finish(0.5, seed=1)
    run = sweep.finish(0.7, seed=2)
    run.results_file.unlink()
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert "results.json is damaged: No such file or directory" in done.out


@pytest.mark.nightly
@pytest.mark.reliability(
    "`results.json` damaged or gone",
    lost="nothing: it is made again from the checkpoint",
    read="`results.json is damaged: …. It is made again`",
)
@pytest.mark.parametrize("damage", examples([cut, Path.unlink, empty, binary, other], 1))
def test_results_are_made_again_from_the_checkpoint(tmp_path, reference, damage):
    assert ssl_train(tmp_path, *SMALL).code == 0
    run = only_run(tmp_path)
    damage(run.results_file)
    ended = ssl_train(tmp_path, *SMALL, at=Signal(STEP, 1))  # which would be killed in a step
    assert ended.code == 0, ended.output
    assert f"Warning: {run.results_file.relative_to(tmp_path)} is damaged: " in ended.output
    assert_ends_alike(tmp_path, reference(SMALL))


@pytest.mark.nightly
@pytest.mark.reliability("`config.yaml` or `metrics.csv` damaged", lost="rows of the curve", read="the run goes on")
@pytest.mark.parametrize("name", ["config.yaml", "metrics.csv"])
@pytest.mark.parametrize("damage", examples([empty, cut, binary, other], 1))
def test_a_run_goes_on_whatever_has_become_of_its_text_files(tmp_path, reference, name, damage):
    interrupt(tmp_path, SMALL, Signal(STEP, 8))
    damage(only_run_folder(tmp_path) / name)
    ended = ssl_train(tmp_path, *SMALL)
    assert ended.code == 0, ended.output
    assert "resumes" in ended.output
    made, whole = only_run(tmp_path).results(), reference(SMALL).results
    assert made["metrics"] == whole["metrics"]


def only_run_folder(folder: Path) -> Path:
    (found,) = folder.glob("runs/default/*/")
    return found


# Checkpoints


def flipped(file: Path) -> None:
    """A bit of a weight that has changed on the disk."""
    content = bytearray(file.read_bytes())
    place = len(content) // 2
    content[place] ^= 1
    file.write_bytes(content)


CHECKPOINT_DAMAGE = (cut, flipped, empty, binary)


@pytest.mark.one_in(4)
@pytest.mark.reliability(
    "`last.ckpt` cut, emptied, overwritten, or one bit of it flipped",
    lost="steps since the checkpoint before it, which serves instead",
    read="`last.ckpt is damaged (…). Going on from the one before it`",
)
@pytest.mark.parametrize("damage", examples(CHECKPOINT_DAMAGE, 2))
def test_the_checkpoint_before_a_damaged_one_serves(tmp_path, reference, damage):
    interrupt(tmp_path, SMALL, Signal(STEP, 8))
    assert checkpointed_step(tmp_path) == 6
    run = only_run(tmp_path)
    assert torch.load(run.previous_checkpoint, weights_only=True)["global_step"] == 3
    damage(run.checkpoint)
    ended = ssl_train(tmp_path, *SMALL)
    assert ended.code == 0, ended.output
    assert "last.ckpt is damaged" in ended.output
    assert "Going on from the one before it, previous.ckpt." in ended.output
    assert_ends_alike(tmp_path, reference(SMALL))
    assert not run.previous_checkpoint.exists()  # of a finished run there is one


@pytest.mark.reliability(
    "all checkpoints damaged",
    lost="the training, if you delete them; nothing is deleted for you",
    read="both files, and what to do",
)
@pytest.mark.parametrize("damage", CHECKPOINT_DAMAGE, ids=lambda damage: damage.__name__)
def test_checkpoints_that_are_all_damaged_are_named(tmp_path, damage):
    run = Run(tmp_path)
    for step in (1, 2):
        AtomicCheckpointIO().save_checkpoint({"state_dict": {"w": torch.randn(1000)}, "step": step}, run.checkpoint)
    assert torch.load(run.previous_checkpoint, weights_only=True)["step"] == 1
    assert resumable(run) == run.checkpoint
    for file in (run.checkpoint, run.previous_checkpoint):
        damage(file)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged \(.*\); .*previous\.ckpt is damaged .* Copy it again"):
        resumable(run)
    run.config_file.write_text("")
    with pytest.raises(UserError, match=r"last\.ckpt is damaged, or no checkpoint of a run: "):
        load_run(tmp_path)


def test_at_no_moment_is_there_no_checkpoint(tmp_path, monkeypatch):
    """Whichever rename is the last that a killed process has made."""
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()

    def steps() -> set[int]:
        return {torch.load(file, weights_only=True)["step"] for file in path.parent.glob("*.ckpt")}

    seen = []
    rename = Path.replace

    def watched(self, target):
        made = rename(self, target)
        seen.append(steps())
        return made

    monkeypatch.setattr(Path, "replace", watched)
    for step in (1, 2, 3):
        AtomicCheckpointIO().save_checkpoint({"step": step}, path)
    assert seen == [{1}, {1}, {1, 2}, {2}, {2, 3}]
    assert torch.load(path, weights_only=True)["step"] == 3
