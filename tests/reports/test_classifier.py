"""Accuracies of classifiers are a column of the tables that have one."""

import pytest

from tests.reports.test_report import Folder, markdown, report, rows


def finish(sweep: Folder, top1: float, *overrides: str, **options) -> None:
    """A run of a method that classifies, which is right in half of what the linear probe gets."""
    run = sweep.finish(top1, *overrides, **options)
    results = run.results()
    results["metrics"]["classifier/top1"] = top1 / 2
    run.finish(results)


@pytest.mark.nightly
def test_where_a_method_classifies(command, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sweep = Folder(tmp_path / "runs" / "grid")
    for seed, top1 in ((1, 0.6), (2, 0.8)):
        finish(sweep, top1, "method=supervised", seed=seed, fraction=0.25, seconds=1234.5, untrained=0.3 + seed / 10)
        sweep.finish(0.5, seed=seed, fraction=0.25)
    sweep.finish(0.5, "dataset=cifar10")
    out = report(command)
    text = markdown(sweep)
    seconds = text.partition("\n## Seconds\n")[2]
    compared = text.partition("\n## Differences")[0]
    cifar, digits = (table for table in compared.split("\n\n") if table.startswith("| method"))
    assert "classifier %" not in cifar
    found = {row["method"]: row["classifier %"] for row in rows(digits)}
    assert found == {"untrained": "–", "simclr": "–", "supervised": "35.0 ± 7.1"}
    assert "classifier: the method's own" in text
    assert "classifier" not in seconds
    assert "35.0 ± 7.1" in out
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


@pytest.mark.nightly
def test_where_none_does(command, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    sweep.finish(0.5)
    assert "classifier" not in report(command) + markdown(sweep)
