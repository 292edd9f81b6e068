"""One value of another kind in a file of one run stops no report, and the file and the value are named."""

import json
from datetime import date
from typing import Any

import pytest
import yaml

from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.run import find_runs
from tests.reports.test_report import Command, Folder, forget, markdown, report, rows, sweep

__all__ = ["forget", "sweep"]


def put(content: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for parent in parents:
        content = content.setdefault(parent, {})
    content[last] = value


RESULTS = [
    ("identity", {}),
    ("identity.fraction", "x"),
    ("identity.fraction", None),
    ("identity.seed", [1]),
    ("identity.seed", True),
    ("identity.dataset", {}),
    ("cost.train_seconds", "abc"),
    ("cost.train_seconds", None),
    ("cost.peak_memory_bytes", "much"),
    ("cost.optimizer_steps", 0.5),
    ("cost.waiting_seconds", "long"),
    ("planned_steps", "many"),
    ("mask", {}),
    ("mask.size", "x"),
    ("metrics.linear/top1", 10**400),
    ("metrics.linear/top1", [0.5]),
    ("spectra", "abc"),
    ("spectra.representation", {}),
    ("spectra.representation", []),
    ("spectra.representation", ["x"]),
    ("protocol", "x"),
    ("protocol", {}),
    ("protocol.settings", [1]),
    ("protocol.reading", 5),
    ("untrained", "x"),
    ("untrained", None),
    ("untrained.linear/top1", "x"),
    ("environment", "x"),
    ("environment", None),
]
CONFIG = [
    ("identity", 5),
    ("identity.ignored", 5),
    ("identity.ignored", [{}]),
    ("identity.contents", [1]),
    ("identity.contents", {"data": 1}),
    ("identity.method", 1),
    ("extra", date(2020, 1, 1)),
    ("extra", b"bytes"),
    ("extra", {"a"}),
    ("extra", {1: 2, "a": 3}),
    ("extra", 10**400),
]


def damage(sweep: Folder, file: str) -> str:
    """What a report is to say of the damaged file of one of two runs."""
    damaged, whole = sorted(records_of(find_runs([sweep.folder])), key=lambda record: record.status)
    assert (damaged.status, whole.status) == ("damaged", "finished")
    assert f"{file} is damaged: " in damaged.error
    assert len(cells_of([damaged, whole])) == 1
    return damaged.error


def told(command: Command, sweep: Folder, file: str) -> str:
    """What is said of the damaged file, in a report whose other run is shown."""
    out = " ".join(report(command).split())
    assert f"{file} is damaged: " in out
    assert [row["linear %"] for row in rows(markdown(sweep))] == ["50.0"]
    return out


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("path", "value"), RESULTS, ids=[f"{path}={str(value)[:9]}" for path, value in RESULTS])
def test_results(sweep: Folder, path, value):
    sweep.finish(0.5)
    run = sweep.finish(0.9, seed=1)
    content = json.loads(run.results_file.read_text())
    content.setdefault("protocol", {"dataset": "digits", "content": "", "settings": {}})
    put(content, path, value)
    run.results_file.write_text(json.dumps(content))
    assert path.partition(".")[0].removesuffix("_steps") in damage(sweep, "results.json")


@pytest.mark.parametrize(("path", "value"), CONFIG, ids=[f"{path}={str(value)[:9]}" for path, value in CONFIG])
def test_config(sweep: Folder, path, value):
    sweep.finish(0.5)
    run = sweep.finish(0.9, seed=1)
    content = yaml.safe_load(run.config_file.read_text())
    put(content, path, value)
    run.config_file.write_text(yaml.dump(content))
    assert path.partition(".")[0] in damage(sweep, "config.yaml")


def test_a_config_that_is_nested_deeply(command: Command, sweep: Folder):
    sweep.finish(0.5)
    run = sweep.finish(0.9, seed=1)
    run.config_file.write_text(run.config_file.read_text() + f"extra: {'[' * 900}{']' * 900}\n")
    assert "levels deep" in told(command, sweep, "config.yaml")


def test_ignored_keys_that_lead_nowhere(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    content = yaml.safe_load(run.config_file.read_text())
    content["identity"]["ignored"] += ["batch_size.x.y", "augment.views.7.z", "no.such.key"]
    run.config_file.write_text(yaml.dump(content))
    report(command)
    assert [row["linear %"] for row in rows(markdown(sweep))] == ["50.0"]


def test_an_evaluation(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    file = run.evaluation_file("x")
    file.parent.mkdir()
    file.write_text(json.dumps({"metrics": {}, "spectra": {}, "protocol": 5}))
    assert "protocol is no mapping" in told(command, sweep, "evaluations/x.json")


@pytest.mark.parametrize("cost", [5, {"evaluation_seconds": "long"}])
def test_what_an_evaluation_has_cost(command: Command, sweep: Folder, cost):
    run = sweep.finish(0.5)
    file = run.evaluation_file("x")
    file.parent.mkdir()
    file.write_text(json.dumps({"metrics": {}, "spectra": {}, "cost": cost}))
    assert "its cost" in told(command, sweep, "evaluations/x.json")


def test_an_evaluation_without_a_spectrum(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    file = run.evaluation_file("x")
    file.parent.mkdir()
    protocol = {"dataset": "other", "content": "", "settings": {}}
    file.write_text(json.dumps({"metrics": {"linear/top1": 0.25}, "spectra": {}, "protocol": protocol}))
    report(command)
    assert {"25.0", "50.0"} <= {row["linear %"] for row in rows(markdown(sweep))}
