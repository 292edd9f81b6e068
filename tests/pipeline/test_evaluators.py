"""Evaluations beside the standard one, from the command to the report."""

import json
from dataclasses import dataclass

import pytest
import torch

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.calibration import Calibration
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.pictures import bars, matrix
from tests.composing import TINY
from tests.conftest import Outcome
from tests.pipeline.test_evaluating import Command, error, only_run
from tests.processes import two_processes
from tests.reports.test_report import rows

SETTINGS = {
    "calibration": (),
    "corruptions": ("evaluation.kinds=[contrast]", "evaluation.limit=50"),
    "episodes": ("evaluation.episodes=5",),
    "map": (),
    "universality": (
        "evaluation.tasks=2",
        "evaluation.steps=[1]",
        "evaluation.episodes=5",
        "evaluation.corrupted=50",
        "evaluation.untrained=false",
    ),
}
HEADINGS = {
    "calibration": "ECE %",
    "corruptions": "corrupted %",
    "episodes": "5-shot ridge %",
    "map": "worst class %",
    "universality": "σ labels, T=1",
}


def evaluate(command: Command, run, name: str, *more: str) -> Outcome:
    done = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", f"evaluation={name}", *SETTINGS[name], *more)
    assert done.code == 0, done.err
    return done


@pytest.mark.nightly
def test_each_has_a_file_a_table_and_pictures(command: Command, tmp_path):
    assert command("ssl-train", *TINY).code == 0
    run = only_run(tmp_path)
    results = run.results_file.read_bytes()
    for name in SETTINGS:
        first = evaluate(command, run, name)
        assert "looks at 1,257 and 540 images of digits" in first.out
        again = evaluate(command, run, name)  # is there
        assert "looks at" not in again.out
        assert again.out.splitlines()[-1] == first.out.splitlines()[-1]
    assert run.results_file.read_bytes() == results
    made = {one["protocol"]["settings"]["suite"].lower(): one for one in run.evaluations()}
    assert made.keys() == SETTINGS.keys()
    assert all(one["explanation"] for one in made.values())
    assert all(one["pictures"] and one["cost"]["evaluation_seconds"] > 0 for one in made.values())
    done = command("ssl-report", "runs/default")
    assert done.code == 0, done.err
    report = tmp_path / "runs/default/report"
    parts = (report / "report.md").read_text().partition("\n## Seconds\n")[0].split("\n## evaluation: ")[1:]
    tables = {part.split("\n", 1)[0].split(",")[0].lower(): rows(part.split("\n", 1)[1]) for part in parts}
    for name, heading in HEADINGS.items():
        (row,) = tables[name]
        assert row["method"] == "simclr"
        assert row[heading] != "–"
        assert (report / f"cells_{name}.csv").read_text().count("\n") == 2
        assert list(report.glob(f"accuracy_against_fraction_{name}*.png"))


@pytest.mark.nightly
def test_the_untrained_encoder_stands_beside(command: Command, tmp_path, monkeypatch):
    assert command("ssl-train", *TINY, "seed=3").code == 0
    run = only_run(tmp_path)
    plain = evaluate(command, run, "calibration")
    assert "value  untrained" not in plain.out
    (alone,) = run.evaluations()
    seen: list[Subject] = []

    def spy(evaluator: Calibration, subject: Subject) -> Evaluation:
        seen.append(subject)
        return measured_by(evaluator, subject)

    measured_by = Calibration.evaluate
    monkeypatch.setattr(Calibration, "evaluate", spy)
    beside = evaluate(command, run, "calibration", "evaluation.untrained=true")
    assert "value  untrained" in beside.out
    assert f"{run.id}, untrained, looks at" in beside.out
    assert len(seen) == 1  # what is known of the trained one stays
    (made,) = run.evaluations()
    assert made["metrics"] == alone["metrics"]
    next(run.folder.glob("evaluations/*.json")).unlink()
    evaluate(command, run, "calibration", "evaluation.untrained=true")
    (at_once,) = run.evaluations()
    assert {**at_once, "cost": made["cost"]} == made
    assert made["cost"]["evaluation_seconds"] > alone["cost"]["evaluation_seconds"]
    assert made["untrained"].keys() == made["metrics"].keys()
    assert made["untrained"] != made["metrics"]
    titles = [picture["title"] for picture in made["pictures"]]
    assert titles == ["Reliability of the linear probe", "Reliability of the linear probe, untrained"]
    # That of the run's seed, which `evaluation.untrained` in training measures too.
    done = command("ssl-train", *TINY, "seed=3", "evaluation.untrained=true", "sweep=other")
    assert done.code == 0, done.err
    (folder,) = (tmp_path / "runs" / "other").glob("simclr*")
    measured = json.loads((folder / "results.json").read_text())["untrained"]
    few = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "evaluation.untrained=true", "dataset=digits")
    assert few.code == 0, few.err
    standard = next(one for one in run.evaluations() if one["protocol"]["settings"] == {})
    assert standard["untrained"]["knn/top1"] == pytest.approx(measured["knn/top1"])


def test_training_takes_the_standard_one_alone(command: Command):
    message = error(command("ssl-train", "dataset=digits", "evaluation=calibration"))
    assert "evaluation._target_ is 'ssl_lightning.evaluation.calibration.Calibration'" in message
    assert "ssl-evaluate run=<folder> evaluation=" in message
    message = error(command("ssl-train", "dataset=digits", "evaluation=transfer"))
    assert "unknown key 'evaluation.datasets'" in message
    assert "ssl-evaluate run=<folder> evaluation=transfer" in message


@dataclass(frozen=True, kw_only=True)
class Own(Evaluator):
    """A user's, who gives tensors for numbers, and pictures that no report can draw."""

    fails: bool = False

    def evaluate(self, subject: Subject) -> Evaluation:
        if self.fails:
            raise UserError("evaluation.fails is true")
        many = [[0.0] * 200] * 200
        pictures = [matrix("too many", "a", "b", many), bars("kept", "%", {"x": 1}), {"title": "no kind"}]
        return Evaluation({"own/share": torch.tensor(0.5)}, pictures=pictures)  # type: ignore[dict-item]


OWN = "evaluation._target_=tests.pipeline.test_evaluators.Own"


@pytest.mark.nightly
def test_what_cannot_be_drawn_costs_no_result(command: Command, tmp_path):
    assert command("ssl-train", *TINY).code == 0
    run = only_run(tmp_path)
    done = command(
        "ssl-evaluate", f"run={run.folder}", "trainer=cpu", "~evaluation", f"+{OWN}", "+evaluation.dataset=null"
    )
    assert done.code == 0, done.err
    (made,) = run.evaluations()  # which refuses what cannot be drawn
    assert made["metrics"] == {"own/share": 0.5}
    assert [picture["title"] for picture in made["pictures"]] == ["kept"]
    assert "Warning: 'too many' is left out, as it cannot be drawn" in done.err
    assert "Warning: 'no kind' is left out" in done.err


@pytest.mark.nightly
def test_of_two_processes_the_second_waits_for_what_the_first_measures(tmp_path, command: Command):
    assert command("ssl-train", *TINY).code == 0
    run = only_run(tmp_path)
    asked = (f"run={run.folder}", "trainer=ddp_cpu", "~evaluation", f"+{OWN}", "+evaluation.dataset=null")
    first, second = two_processes(tmp_path, *asked, "+evaluation.fails=true", command="ssl-evaluate")
    assert (first.code, second.code) == (1, 1), first.output + second.output
    assert first.output.count("Error: evaluation.fails is true") == 1
    assert "Error" not in second.output
