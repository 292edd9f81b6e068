"""Halves of a sweep from two machines: copied together, linked, renamed, or given as two folders."""

import json
import shutil
from pathlib import Path

import pytest

from ssl_lightning.pipeline.sync import MARKER
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.progress import Progress, write_progress
from ssl_lightning.runs.run import Run, find_runs
from tests.reports.test_report import Folder, forget, report, rows, sweep

__all__ = ["forget", "sweep"]


def reach(run: Run, step: int) -> None:
    write_progress(run.progress_file, Progress(step, 100, 1, 5, 10.0, 0.5, 1.0, 0.0))


@pytest.fixture
def halves(sweep, tmp_path) -> tuple[Path, Path]:
    """Seeds 1 and 2 here; there 3 and 4, beside a half of 2, and a 5 that has come further there."""
    there = Folder(tmp_path / "there" / "grid")
    for seed, top1 in ((1, 0.1), (2, 0.2)):
        sweep.finish(top1, seed=seed)
    for seed, top1 in ((3, 0.3), (4, 0.4)):
        there.finish(top1, seed=seed)
    reach(there.begin(seed=2), 40)
    reach(sweep.fail(ValueError("no luck"), seed=5), 10)
    reach(there.begin(seed=5), 90)
    return sweep.folder, there.folder


def two(here: Path, there: Path) -> list[Path]:
    return [here, there]


def copied(here: Path, there: Path) -> list[Path]:
    """What is there already stays: `cp -rn`."""
    for folder in there.iterdir():
        if not (here / folder.name).exists():
            shutil.copytree(folder, here / folder.name)
    shutil.copytree(there, here / "of another machine")
    return [here]


def linked(here: Path, there: Path) -> list[Path]:
    """The one in the other, by a name, and back."""
    (here / "there").symlink_to(there)
    (there / "here").symlink_to(here)
    return [here]


def linked_one_by_one(here: Path, there: Path) -> list[Path]:
    together = here.parent / "together"
    together.mkdir()
    for name, half in (("a", here), ("b", there)):
        for folder in half.iterdir():
            (together / f"{name}-{folder.name}").symlink_to(folder)
    return [together]


def moved_and_renamed(here: Path, there: Path) -> list[Path]:
    elsewhere = here.parent / "elsewhere"
    elsewhere.mkdir()
    for number, folder in enumerate([*here.iterdir(), *there.iterdir()]):
        folder.rename(elsewhere / f"run {number}")
    return [elsewhere]


def given_twice(here: Path, there: Path) -> list[Path]:
    return [here, there, here.parent / "grid" / ".." / "grid", *sorted(there.iterdir())]


@pytest.mark.parametrize("bring", [two, copied, linked, linked_one_by_one, moved_and_renamed, given_twice])
def test_each_run_counts_once(halves, bring, command):
    folders = bring(*halves)
    records = records_of(find_runs(folders))
    assert sorted((one.identity.seed, one.status, one.steps) for one in records if one.status != "finished") == [
        (5, "unfinished", 90)
    ]
    (cell,) = cells_of(records)
    assert sorted(cell.values("linear/top1")) == [0.1, 0.2, 0.3, 0.4]


@pytest.mark.parametrize("bring", [two, moved_and_renamed])
def test_commands_see_one_sweep(halves, bring, command):
    folders = [str(folder) for folder in bring(*halves)]
    report(command, *folders)
    (row,) = rows((Path(folders[0]) / "report" / "report.md").read_text(encoding="utf-8"))
    assert row["seeds"] == "4"
    listed = json.loads(command("ssl-runs", "ls", *folders, "--json").out)
    assert sorted(row["seed"] for row in listed) == [1, 2, 3, 4, 5]


def test_a_run_is_uploaded_once_whatever_its_folder_is_called(halves, command, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    outcome = command("ssl-sync", *map(str, moved_and_renamed(*halves)), "--mode", "offline")
    assert outcome.code == 0, outcome.err
    assert "5 built offline" in outcome.out
    built = [file.parent for file in halves[0].parent.rglob(MARKER)]
    assert sorted(Run(folder).described()[0].seed for folder in built) == [1, 2, 3, 4, 5]
