"""Searches of Optuna's: what jobs answer, from this process and from a pool, and the same command once more."""

import json
import re
import sqlite3

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from ssl_lightning.errors import UserError
from ssl_lightning.launchers.answer import learns, refuse_to_answer, returned
from ssl_lightning.runs.results import objective
from ssl_lightning.runs.run import find_runs
from tests.composing import TINY, composed

RESULTS = {"run": "mine", "metrics": {"linear/val_top1": 0.5, "knn/top1": float("nan")}}
GRID = """\
defaults: [/train, override /hydra/sweeper: optuna, _self_]
sweep: mine
hydra:
  mode: MULTIRUN
  sweeper:
    direction: maximize
    n_trials: 3
    n_jobs: 1
    sampler: {seed: 3}
    params: {method.temperature: 'interval(0.05, 0.5)'}
"""


@pytest.fixture
def grid(command, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_optuna_sweeper", reason="the extra optuna is not installed")
    (tmp_path / "mine.yaml").write_text(GRID)
    return lambda *overrides: command("ssl-sweep", "mine.yaml", *TINY, *overrides)


def tried(folder) -> dict[str, tuple[float, float]]:
    """Temperature and objective of each run."""
    return {
        run.id: (run.config()["method"]["temperature"], run.results()["metrics"]["linear/val_top1"])
        for run in find_runs([folder])
    }


def best_in(folder) -> tuple[float, float]:
    found = OmegaConf.load(folder / "optimization_results.yaml")
    return found.best_params["method.temperature"], found.best_value


@pytest.mark.nightly
def test_the_best_is_that_of_the_validation_part_and_the_same_command_goes_on(grid, tmp_path):
    assert grid("hydra.sweeper.n_trials=2").code == 0
    first = tried(tmp_path / "runs")
    assert len(first) == 2
    outcome = grid()
    assert outcome.code == 0, outcome.err
    assert outcome.out.count(" is finished") == 2
    assert outcome.out.count(" starts") == 1
    runs = tried(tmp_path / "runs")
    assert first.items() < runs.items()
    assert len(runs) == 3
    assert best_in(tmp_path / "runs" / "mine") == max(runs.values(), key=lambda one: one[1])
    assert outcome.out.endswith("3 finished\n")


def test_a_dry_run_looks_at_the_first_trial(grid, tmp_path):
    outcome = grid("--dry-run")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert sum(line.startswith("#0 ") for line in lines) == 1
    assert not any(line.startswith("#1 ") for line in lines)
    assert "hydra/sweeper chooses the others by what jobs have reached." in outcome.err
    assert "1 job, none of which was run" in lines
    assert not (tmp_path / "runs").exists()


@pytest.mark.nightly
def test_a_pool_answers_too_and_failures_are_told(grid, tmp_path):
    pool = ("hydra/launcher=pool", "hydra.launcher.slots=2", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=4")
    studies = f"hydra.sweeper.storage='sqlite:///{tmp_path}/studies.db'"
    outcome = grid(*pool, studies, "hydra.sweeper.study_name=mine")
    assert outcome.code == 0, outcome.err
    runs = tried(tmp_path / "runs")
    assert len(runs) == 4
    assert best_in(tmp_path / "runs" / "mine") == max(runs.values(), key=lambda one: one[1])
    with sqlite3.connect(tmp_path / "studies.db") as kept:
        assert sorted(value for (value,) in kept.execute("select value from trial_values")) == pytest.approx(
            sorted(value for _, value in runs.values())
        )
    outcome = grid(*pool, "objective=nothing")
    assert outcome.code == 1
    assert len(re.findall(r"objective=nothing is no metric of simclr-", outcome.out)) == 2
    assert "has failed, with exit code 1" in outcome.err


def test_the_objective_is_a_finite_metric():
    assert objective(RESULTS, "linear/val_top1") == 0.5
    with pytest.raises(UserError, match=r"objective=other is no metric of mine\. It has knn/top1, linear/val_top1\."):
        objective(RESULTS, "other")
    with pytest.raises(UserError, match="objective=knn/top1 is nan in mine"):
        objective(RESULTS, "knn/top1")


def test_what_a_sweeper_is_given(tmp_path):
    (tmp_path / "4").write_text(json.dumps(0.25))
    good, bad = returned({4: ["a=1"], 5: ["a=2"]}, {4: 0, 5: -9}, tmp_path)
    assert (good.status, good.return_value, good.overrides) == (JobStatus.COMPLETED, 0.25, ["a=1"])
    assert bad.status == JobStatus.FAILED
    with pytest.raises(UserError, match=r"Job #5 has failed, with exit code -9\."):
        _ = bad.return_value


def test_hydras_own_sweeper_learns_nothing():
    composed()
    assert not learns(HydraConfig.get())
    HydraConfig.instance().cfg = None
    optuna = OmegaConf.create({"sweeper": {"_target_": "some.Optuna"}})
    assert learns(optuna)
    with pytest.raises(UserError, match="hydra/launcher=slurm does not hand back"):
        refuse_to_answer(optuna, "slurm")
