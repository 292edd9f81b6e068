"""Training that something ends before its planned steps is not finished: it is reported as what it is, and goes on."""

import json

import pytest
import torch

from ssl_lightning.commands.train import train
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.run import FORMER, find_runs
from tests.composing import TINY, composed
from tests.pipeline.test_fast_dev_run import place
from tests.reports.test_report import Command, Folder, markdown, report, sweep

__all__ = ["place", "sweep"]
pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = (*TINY, "subset.fraction=0.05", "trainer.max_epochs=3", "trainer.log_every_n_steps=1")
STEPS = 3 * (63 // 8)


def start(*overrides: str):
    return train(composed(*overrides))


def rows(run) -> str:
    return run.metrics_file.read_text()


@pytest.mark.reliability(
    "`trainer.max_time` or early stopping ends training",
    lost="nothing: the run is evaluated, and is *stopped*, not finished",
    read="`stopped after 120 of 400 optimizer steps: the same command goes on`",
)
def test_a_run_out_of_time_is_stopped_and_goes_on(place, capsys):
    whole = start(*SHORT, "sweep=whole")
    assert whole.results()["planned_steps"] == whole.results()["cost"]["optimizer_steps"] == STEPS
    run = start(*SHORT, "trainer.max_time={seconds: 0.000001}")
    assert run.id == whole.id  # how long it may take changes nothing of what is trained
    assert not run.done
    assert run.status == "stopped"
    steps = run.results()["cost"]["optimizer_steps"]
    assert 0 < steps < STEPS == run.results()["planned_steps"]
    assert f"stopped after {steps} of {STEPS} optimizer steps: the same command goes on" in capsys.readouterr().out
    assert run.checkpoint.exists()

    assert start(*SHORT, "trainer.max_time={seconds: 0.000001}") == run  # for as long again
    assert steps < run.results()["cost"]["optimizer_steps"] < STEPS
    assert start(*SHORT) == run
    assert f"{run.id} resumes" in capsys.readouterr().out
    assert run.status == "finished"
    assert rows(run) == rows(whole)
    states = [torch.load(one.checkpoint, weights_only=True)["state_dict"] for one in (whole, run)]
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert run.results()["metrics"] == whole.results()["metrics"]


@pytest.mark.reliability("`trainer.max_time` or early stopping ends training")
def test_early_stopping_stops(place):
    stop = "+callbacks.stop={_target_: tests.parts.Stop, step: 5}"
    run = start(*SHORT, stop)
    assert (run.status, run.results()["cost"]["optimizer_steps"]) == ("stopped", 5)


@pytest.mark.reliability("`trainer.max_time` or early stopping ends training")
def test_stopped_runs_stand_apart_in_reports(command: Command, sweep: Folder):
    whole = sweep.finish(0.9, seed=1)
    for seed, top1 in ((2, 0.1), (3, 0.3)):
        run = sweep.begin(seed=seed)
        results = json.loads(json.dumps(whole.results()))
        results["identity"]["seed"], results["metrics"]["linear/top1"] = seed, top1
        run.finish(results | {"planned_steps": 4000, "cost": {"train_seconds": 1.0, "optimizer_steps": 1200}})
        assert not run.done
    assert {cell.variant: cell.values("linear/top1") for cell in sweep.cells()} == {
        "": [0.9],
        "stopped=early": [0.1, 0.3],
    }
    out = report(command)
    assert "2 of 3 runs were stopped before their end:" in out
    assert f"stopped: {run.id} after 1,200 of 4,000 optimizer steps" in " ".join(out.split())
    assert f"- stopped: {run.id} after" in markdown(sweep)
    whole.folder.joinpath("DONE").unlink()
    assert {cell.variant for cell in cells_of(records_of(find_runs([sweep.folder])))} == {"stopped=early"}


@pytest.mark.nightly
@pytest.mark.reliability(
    "`force=true` on a run that is finished",
    lost="nothing: what there was is kept",
    read="`force=true: what … held is now in …/.former/…`",
)
def test_force_trains_anew_and_keeps_what_there_was(place, capsys):
    arguments = (*TINY[:5], "subset.fraction=0.05", "evaluation=none", "seed=4")
    run = start(*arguments)
    first = run.results()
    for number in (1, 2):
        capsys.readouterr()
        assert start(*arguments, "force=true") == run
        former = run.folder.parent / FORMER / f"{run.id}-{number}"
        out = capsys.readouterr().out
        assert str(former) in out
        assert f"{run.id} starts" in out
        assert (former / "DONE").exists()
        assert run.done
    assert json.loads((run.folder.parent / FORMER / f"{run.id}-1" / "results.json").read_text()) == first
    assert find_runs([place / "runs"]) == [type(run)(run.folder.resolve())]


def test_a_job_that_slurm_starts_again_does_not_begin_anew(place, monkeypatch, capsys):
    run = start(*SHORT, "seed=4")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    start(*SHORT, "seed=4", "force=true")
    assert f"{run.id} is finished" in capsys.readouterr().out


def test_what_another_process_has_finished_meanwhile_is_not_made_again(place, monkeypatch, capsys):
    """A command that has waited for the run puts its evaluation beside, as one that was started later."""
    run = start(*SHORT)
    before = run.results()
    capsys.readouterr()
    done, looks = type(run).done.fget, []

    def not_at_first(self) -> bool:
        looks.append(1)
        return len(looks) > 1 and done(self)

    monkeypatch.setattr(type(run), "done", property(not_at_first))
    assert start(*SHORT, "evaluation.k=1") == run
    assert "resumes" not in capsys.readouterr().out
    assert run.results() == before
    assert len(run.evaluations()) == 1
