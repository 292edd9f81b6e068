"""ssl-runs counts each run once, compares only what may be compared, and touches only what was named."""

import csv
import io
import json
import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock

from ssl_lightning.files import write_json
from ssl_lightning.runs.run import Run, find_runs
from tests.reports.test_report import Folder, forget, sweep

__all__ = ["forget", "sweep"]


@pytest.fixture
def runs(sweep: Folder) -> dict[str, Run]:
    return {
        "low": sweep.finish(0.5, seed=1, fraction=0.2, seconds=5.0),
        "high": sweep.finish(0.9, seed=2, fraction=1.0),
        "other": sweep.finish(0.7, "method=byol", seed=1),
        "failed": sweep.fail(RuntimeError("no room"), seed=3),
    }


def listed(command, *words: str) -> dict[str, dict]:
    outcome = command("ssl-runs", "ls", *words, "--json")
    assert outcome.code == 0, outcome.err
    return {row["run"]: row for row in json.loads(outcome.out)}


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["low", "high", "other", "failed"]),
        (["method=simclr"], ["low", "high", "failed"]),
        (["method=simclr", "fraction<0.5"], ["low"]),
        (["status=failed"], ["failed"]),
        (["status!=failed", "seed>=2"], ["high"]),
        (["linear/top1>0.6", "linear/top1<=0.7"], ["other"]),
        (["train_seconds<10"], ["low"]),
        (["run=byol-*"], ["other"]),
        (["batch_size=256"], ["low", "high", "other", "failed"]),
        (["batch_size!=256"], []),
        (["debug=false"], ["low", "high", "other", "failed"]),
    ],
)
def test_filters_choose_by_all_that_is_known(command, runs, filters, names):
    assert listed(command, "runs", *filters).keys() == {runs[name].id for name in names}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "nowhere is no folder, and no filter."),
        (["runs", "fractoin=1"], "No run has 'fractoin'. Is it fraction?"),
        (["runs", "top1>0.6"], "top1 may be knn/top1, linear/top1, linear_5shot/top1. Write one of them in full."),
        (["runs", "method<simclr"], "'simclr' is no number, but < compares numbers."),
    ],
)
def test_words_that_mean_nothing(command, runs, words, said):
    outcome = command("ssl-runs", "ls", *words)
    assert outcome.code == 1
    assert said in outcome.err
    assert outcome.out == ""


def test_a_run_counts_once_however_many_ways_lead_to_it(command, runs, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/link").symlink_to(tmp_path / "runs/grid")
    shutil.copytree(runs["low"].folder, tmp_path / "more/copied" / runs["low"].id)
    (tmp_path / "runs/grid").rename(tmp_path / "runs/moved")
    (tmp_path / "more/link").unlink()
    (tmp_path / "more/link").symlink_to(tmp_path / "runs/moved")
    assert len(listed(command, "runs", "more", "more/link", "runs/moved")) == 4
    outcome = command("ssl-runs", "ls", "runs", "more")
    assert len(outcome.out.splitlines()) == 5  # and the heading
    assert outcome.err == "4 runs\n"


def test_tables_for_other_programs(command, runs):
    rows = listed(command, "runs")
    assert rows[runs["low"].id]["linear/top1"] == 0.5
    assert rows[runs["low"].id]["fraction"] == 0.2
    assert rows[runs["failed"].id]["status"] == "failed"
    assert rows[runs["failed"].id]["reason"].startswith("RuntimeError: no room")
    table = list(csv.DictReader(io.StringIO(command("ssl-runs", "ls", "runs", "--csv").out)))
    assert {row["run"]: row["linear/top1"] for row in table} == {
        run: str(row["linear/top1"]) if "linear/top1" in row else "" for run, row in rows.items()
    }


def test_the_best_of_one_protocol(command, runs):
    def best(*words: str) -> list[str]:
        return [row["run"] for row in json.loads(command("ssl-runs", "best", "runs", "--json", *words).out)]

    assert best() == [runs[name].id for name in ("high", "other", "low")]
    assert best("-n", "1") == [runs["high"].id]
    assert best("method=simclr", "--lowest", "--by", "train_seconds") == [runs[name].id for name in ("low", "high")]
    results = runs["low"].results()
    other = {**results, "metrics": {"linear/top1": 0.99}, "evaluation": {**results["evaluation"], "k": 1}}
    write_json(runs["low"].evaluation_file("digits-k1"), other)
    heads = [line for line in command("ssl-runs", "best", "runs").out.splitlines() if line.startswith("digits")]
    assert heads == [
        "digits, evaluation standard: linear/top1 of 3 runs",
        "digits, evaluation k=1: linear/top1 of 1 run",
    ]
    outcome = command("ssl-runs", "best", "runs", "status=failed")
    assert outcome.err.startswith("Error: No run with results has linear/top1.")


def test_a_run_is_shown(command, runs):
    shown = command("ssl-runs", "show", str(runs["failed"].folder)).out
    assert shown.splitlines()[0] == str(runs["failed"].folder)
    assert "  reason: RuntimeError: no room" in shown
    assert "linear/top1: 0.9" in command("ssl-runs", "show", "runs", "seed=2").out


# What changes something


def left(folder: str = "runs") -> set[str]:
    return {run.id for run in find_runs([Path(folder)])}


def test_only_what_is_named_is_deleted(command, runs):
    everything = {run.id for run in runs.values()}
    outcome = command("ssl-runs", "rm", "runs", "status=failed")
    assert outcome.code == 1
    assert "nothing was deleted, as nobody can be asked. Add --yes." in outcome.err
    assert left() == everything
    outcome = command("ssl-runs", "rm", "runs", "--yes", "status=failed")
    assert outcome.code == 0, outcome.err
    assert str(runs["failed"].folder) in outcome.out
    assert left() == everything - {runs["failed"].id}
    assert not runs["failed"].folder.exists()
    assert not list(Path("runs").rglob(".going-*"))


@pytest.mark.parametrize(("answer", "deletes"), [("y", True), ("n", False), ("", False)])
def test_somebody_is_asked(command, runs, monkeypatch, answer, deletes):
    reading, writing = os.openpty()
    os.write(reading, f"{answer}\n".encode())
    with os.fdopen(writing) as terminal:
        monkeypatch.setattr("sys.stdin", terminal)
        outcome = command("ssl-runs", "rm", "runs/grid", "method=byol")
    os.close(reading)
    assert "Delete 1 run, " in outcome.out
    assert (runs["other"].id not in left()) == deletes


def test_nothing_is_meant_unless_a_folder_is_named(command, runs):
    for verb, more in (("rm", ["--yes"]), ("mv", ["runs/two"])):
        outcome = command("ssl-runs", verb, "method=simclr", *more)
        assert outcome.code == 1
        assert "Name the folders of the runs that are meant" in outcome.err
    assert len(left()) == 4


def test_what_a_link_leads_to_is_not_deleted(command, runs, tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / "more/link").symlink_to(tmp_path / "runs/grid")
    assert "No run is meant." in command("ssl-runs", "rm", "more", "--yes").out
    assert "more/link is a link to " in command("ssl-runs", "rm", "more/link", "--yes").err
    assert len(left()) == 4


@pytest.mark.parametrize("verb", [["rm", "runs", "--yes"], ["mv", "runs", "runs/two"]], ids=lambda verb: verb[0])
def test_a_run_at_work_is_left_alone_and_all_others_too(command, runs, verb):
    run = runs["failed"]
    with FileLock(run.folder / ".lock"):
        outcome = command("ssl-runs", *verb)
    assert outcome.code == 1
    assert f"A process is working on {run.folder}." in outcome.err
    assert left("runs/grid") == {run.id for run in runs.values()}


def test_a_run_in_the_folder_of_another_is_not_deleted_unnamed(command, runs):
    inner = runs["high"].folder / "inner"
    shutil.move(runs["other"].folder, inner)
    outcome = command("ssl-runs", "rm", "runs", "seed=2", "--yes")
    assert f"has another run in it, {inner}." in outcome.err
    assert (inner / "config.yaml").exists()
    assert runs["high"].folder.exists()


def test_runs_are_moved_whole_into_another_sweep(command, runs):
    before = {path.name: path.stat().st_size for path in runs["low"].folder.rglob("*") if path.is_file()}
    outcome = command("ssl-runs", "mv", "runs/grid", "method=simclr", "fraction<0.5", "runs/two")
    assert outcome.code == 0, outcome.err
    assert left("runs/two") == {runs["low"].id}
    assert left("runs/grid") == {run.id for run in runs.values()} - {runs["low"].id}
    moved = Run(Path("runs/two") / runs["low"].id)
    assert {path.name: path.stat().st_size for path in moved.folder.rglob("*") if path.is_file()} == before
    assert moved.status == "finished"
    shutil.copytree(moved.folder, runs["low"].folder)
    outcome = command("ssl-runs", "mv", "runs/grid", "runs/two")
    assert f"{moved.folder} would be there twice." in outcome.err
    assert len(left("runs/grid")) == 4


def test_a_run_is_no_place_for_runs(command, runs):
    outcome = command("ssl-runs", "mv", "runs", "seed=1", str(runs["high"].folder))
    assert "is a run. Name the folder of a sweep" in outcome.err
    assert len(left()) == 4
