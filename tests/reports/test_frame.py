"""Runs as a table for Python: a row a run and protocol, of what is in its files."""

import importlib.util

import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.files import write_json
from ssl_lightning.reports.frame import load_runs
from tests.reports.test_report import Folder, forget, sweep

__all__ = ["forget", "sweep"]


@pytest.fixture
def rows(sweep: Folder, monkeypatch):
    """Without pandas."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    return lambda: load_runs(sweep.folder)


def test_a_row_a_run_with_metrics_cost_and_what_differs(sweep: Folder, rows):
    for seed, temperature in ((1, 0.1), (2, 0.1), (1, 0.5)):
        sweep.finish(0.5 + temperature, f"method.temperature={temperature}", seed=seed, seconds=10.0 * seed)
    found = sorted(rows(), key=lambda row: (row["method.temperature"], row["seed"]))
    assert [(row["method.temperature"], row["seed"], row["linear/top1"]) for row in found] == [
        *((0.1, 1, 0.6), (0.1, 2, 0.6)),
        (0.5, 1, 1.0),
    ]
    assert [row["cost/train_seconds"] for row in found] == [10.0, 20.0, 10.0]
    assert {(row["method"], row["dataset"], row["subset"], row["fraction"]) for row in found} == {
        ("simclr", "digits", "random", 1.0)
    }
    assert {row["status"] for row in found} == {"finished"}
    assert {row["protocol"] for row in found} == {"standard"}
    assert "batch_size" not in found[0]  # the same in all
    assert all((sweep.folder / row["run"]).samefile(row["folder"]) for row in found)


def test_numbers_of_two_protocols_are_two_rows(sweep: Folder, rows):
    run = sweep.finish(0.5)
    results = run.results()
    settings = {**results["evaluation"], "k": 1}
    write_json(run.evaluation_file("digits-k1"), {**results, "metrics": {"knn/top1": 0.9}, "evaluation": settings})
    found = rows()
    assert sorted(row["knn/top1"] for row in found) == [0.25, 0.9]
    assert len({row["protocol"] for row in found}) == 2
    assert len({row["run"] for row in found}) == 1


def test_runs_without_results_have_a_row(sweep: Folder, rows):
    sweep.finish(0.5)
    sweep.begin("method.temperature=0.7")
    sweep.fail(RuntimeError("x"), "method.temperature=0.9")
    found = {row["status"]: row for row in rows()}
    assert found.keys() == {"finished", "unfinished", "failed"}
    assert found["failed"]["method.temperature"] == 0.9
    assert "linear/top1" not in found["failed"]


def test_a_damaged_run_stops_no_other(sweep: Folder, rows):
    sweep.finish(0.5)
    sweep.finish(0.6, "method.temperature=0.7").config_file.write_text("method: [")
    assert sorted(row["status"] for row in rows()) == ["damaged", "finished"]


def test_no_runs(tmp_path):
    with pytest.raises(UserError, match="There are no runs in"):
        load_runs(tmp_path)


def test_a_frame_where_pandas_is(sweep: Folder):
    pandas = pytest.importorskip("pandas")
    sweep.finish(0.5, seed=1)
    sweep.finish(0.7, seed=2)
    sweep.begin(seed=3)
    frame = load_runs(sweep.folder)
    assert isinstance(frame, pandas.DataFrame)
    assert frame.groupby("method")["linear/top1"].mean()["simclr"] == pytest.approx(0.6)
    assert frame["linear/top1"].isna().sum() == 1
