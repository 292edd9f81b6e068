"""What a report reads of runs: the one that came furthest, and curves whose peaks are kept."""

import json
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ssl_lightning.evaluation.protocol import Protocol
from ssl_lightning.files import write_text
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.content import SHOWN
from ssl_lightning.reports.records import MAX_POINTS, records_of
from ssl_lightning.runs.run import Run, find_runs
from tests.reports.test_report import Folder, config_of, forget, markdown, report, results_of, rows, sweep

__all__ = ["forget", "sweep"]


def curves(run: Run) -> dict[str, list[tuple[int, float]]]:
    (record,) = records_of([run])
    return {curve.name: list(zip(curve.steps, curve.values, strict=True)) for curve in record.curves}


def write_curve(run: Run, values: list[float]) -> list[tuple[int, float]]:
    points = [(10 * i, value) for i, value in enumerate(values, 1)]
    write_text(run.metrics_file, "step,epoch,loss\n" + "".join(f"{step},0,{value}\n" for step, value in points))
    return points


def test_short_curves_are_read_as_they_are(sweep):
    run = sweep.begin()
    text = "step,epoch,lr,loss,online/val_top1\n2,0,0.1,3.5,\n4,0,0.05,nan,0.25\n6,1,0.01,1.5,\n8,1,0.0"
    write_text(run.metrics_file, text)  # the last line is torn
    assert curves(run) == {
        "lr": [(2, 0.1), (4, 0.05), (6, 0.01)],
        "loss": [(2, 3.5), (6, 1.5)],
        "online/val_top1": [(4, 0.25)],
    }


def test_a_curve_of_as_many_points_as_are_shown_is_whole(sweep):
    run = sweep.begin()
    points = write_curve(run, [math.sin(i) for i in range(MAX_POINTS)])
    assert curves(run) == {"loss": points}


@pytest.mark.parametrize("n", [MAX_POINTS + 1, 300, 12_345])
def test_thinning_keeps_the_ends_and_every_peak(sweep, n):
    run = sweep.begin()
    values = [5 * math.exp(-i / n) for i in range(n)]
    values[n // 3], values[n // 2] = 40.0, -40.0
    points = write_curve(run, values)
    found = curves(run)["loss"]
    assert MAX_POINTS // 2 <= len(found) <= MAX_POINTS
    assert set(found) <= set(points)
    assert found == sorted(found)
    assert {points[0], points[-1], points[n // 3], points[n // 2]} <= set(found)
    gaps = [after - before for (before, _), (after, _) in pairwise(found)]
    assert max(gaps) <= 10 * 2 * math.ceil(n / (MAX_POINTS // 2 - 1))


def test_a_run_without_metrics_has_no_curves(sweep):
    assert curves(sweep.begin()) == {}


def test_of_the_same_run_in_two_sweeps_the_furthest_counts(command, sweep, tmp_path):
    other = Folder(tmp_path / "runs" / "other")
    finished = sweep.finish(0.5)
    other.fail(ValueError("no luck"))
    failed = sweep.fail(ValueError("no luck"), seed=1)
    other.begin(seed=1)
    records = records_of(find_runs([sweep.folder, other.folder]))
    assert {(record.run.id, record.status) for record in records} == {(finished.id, "finished"), (failed.id, "failed")}
    out = report(command, "runs/grid", "runs/other")
    assert "1 of 2 runs are not in the table" in out


def test_what_several_sweeps_have_evaluated_a_run_with_is_shown(sweep, tmp_path):
    """One run is one seed, under each protocol once."""
    other = Folder(tmp_path / "runs" / "other")
    first, second = sweep.finish(0.5, "evaluation.k=1"), other.finish(0.7)
    assert first.id == second.id
    cells = cells_of(records_of(find_runs([sweep.folder, other.folder])))
    assert {cell.protocol: cell.values("linear/top1") for cell in cells} == {"k=1": [0.5], "standard": [0.7]}


def test_what_another_sweep_has_stopped_elsewhere_is_another_encoder(sweep, tmp_path):
    other = Folder(tmp_path / "runs" / "other")
    for folder, steps, k in ((sweep, 3, 1), (other, 7, 20)):
        run = folder.begin(f"evaluation.k={k}")
        results = results_of(run.config(), steps / 10)
        run.finish(results | {"planned_steps": 9, "cost": results["cost"] | {"optimizer_steps": steps}})
    (record,) = records_of(find_runs([sweep.folder, other.folder]))
    assert record.status == "stopped"
    assert record.evaluations == []


def test_evaluations_of_an_encoder_that_was_trained_further_are_not_those_of_the_run(command, sweep):
    run = sweep.finish(0.5)
    steps = 1234
    run.finish(run.results() | {"cost": run.results()["cost"] | {"optimizer_steps": steps}})
    for name, made_after in (("now", steps), ("once", 3)):
        kept = {"metrics": {"linear/top1": 0.1}, "spectra": {"representation": [1.0]}, "optimizer_steps": made_after}
        protocol = {"protocol": Protocol("digits", "", {"k": made_after}).as_dict()}
        write_text(run.evaluation_file(name), json.dumps(kept | protocol))
    assert {cell.protocol for cell in sweep.cells()} == {"standard", f"k={steps}"}
    assert "evaluations holds 1 made before the run had taken its 1,234 optimizer steps" in report(command)


def test_a_config_that_is_none_of_a_run(command, sweep):
    """Other programs leave files of this name."""
    sweep.finish(0.5)
    write_text(sweep.folder / "foreign/config.yaml", "seed:\n    value: 0\nmethod:\n    value: {a: 1}\n")
    write_text(sweep.folder / "empty/config.yaml", "")
    out = report(command)
    assert "unfinished: foreign" in out
    assert "damaged: empty: " in out


READ_ONLY = """
mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" || exit 77
shift
exec "$@"
"""


def on_read_only(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to whom nothing in the folder can be written."""
    if os.getuid() == 0:  # to whom permissions mean nothing
        command = ("unshare", "--mount", "sh", "-c", READ_ONLY, "sh", str(folder), *command)
        done = subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=120)
        if done.returncode == 77 or "unshare failed" in done.stderr:
            pytest.skip("as root, a read-only folder needs the right to mount, which is missing here")
        return done
    everything = [folder, *folder.rglob("*")]
    modes = {path: path.stat().st_mode for path in everything}
    for path in everything:
        path.chmod(modes[path] & ~0o222)
    try:
        return subprocess.run(command, cwd=folder.parent, capture_output=True, text=True, timeout=120)
    finally:
        for path in everything:
            path.chmod(modes[path])


@pytest.mark.nightly
def test_folders_that_cannot_be_written_to(tmp_path, sweep):
    sweep.finish(0.5)
    begun = sweep.begin(seed=1)
    failed = sweep.fail(ValueError("no luck"), seed=2)
    (sweep.begin(seed=3).folder / ".lock").unlink()
    command = str(Path(sys.executable).parent / "ssl-report")
    refused = on_read_only(tmp_path / "runs", command, "runs/grid")
    assert refused.returncode == 1
    assert refused.stdout == ""
    assert refused.stderr.startswith("Error: The report cannot be written to runs/grid/report: ")
    assert refused.stderr.endswith(". Name another folder: --output FOLDER.\n")
    assert refused.stderr.count("\n") == 1
    done = on_read_only(tmp_path / "runs", command, "runs/grid", "--output", "elsewhere")
    assert (done.returncode, done.stderr) == (0, "")
    text = (tmp_path / "elsewhere/report.md").read_text(encoding="utf-8")
    assert f"- unfinished: {begun.id}" in text.splitlines()
    assert f"- failed: {failed.id}: ValueError: no luck (" in text
    assert "3 of 4 runs are not in the table:" in text
    assert [row["linear %"] for row in rows(text)] == ["50.0"]
    assert (tmp_path / "elsewhere/report.html").exists()


def test_a_failure_s_reason_is_its_first_line(command, sweep):
    failed = sweep.fail(ValueError("no luck\nand more of it"))
    report(command)
    assert f"- failed: {failed.id}: ValueError: no luck and more of it (" in markdown(sweep)
    (record,) = records_of([failed])
    assert re.fullmatch(r"ValueError: no luck and more of it \(.*test_report.py:\d+\)", record.reason)
    assert "\n\nTraceback" in record.error
    failed.finish(results_of(config_of(), 0.5))
    (record,) = records_of([failed])
    assert (record.status, record.error) == ("finished", "")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("number", [SHOWN, SHOWN + 1])
def test_runs_that_failed_alike_are_told_in_one_line(command, sweep, number):
    """As where the data of a whole grid are missing."""
    ids = [sweep.fail(ValueError("no such data"), seed=seed).id for seed in range(number)]
    other = sweep.fail(ValueError("no luck"), seed=number).id
    out = report(command)
    assert f"{number + 1} of {number + 1} runs are not in the table" in out
    assert out.count("no such data") == (number if number == SHOWN else 1)
    assert number == SHOWN or f"failed: {number} runs, such as {ids[0]}: ValueError: no such data" in out
    assert f"failed: {other}: ValueError: no luck" in out
