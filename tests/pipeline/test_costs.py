"""The seconds in results.json: what they are of, and that they add up."""

import json
import time
from pathlib import Path

import pytest

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.data.loading import ResidentLoader
from ssl_lightning.runs.results import cost
from ssl_lightning.runs.run import find_runs
from tests.callbacks import fitting
from tests.composing import TINY
from tests.pipeline.test_resume import STEP, only_run
from tests.processes import Signal, ssl_train

SHORT = (*TINY, "subset.fraction=0.1")
PAUSE = 0.01


def seconds(costs: dict[str, float]) -> dict[str, float]:
    return {name.removesuffix("_seconds"): value for name, value in costs.items() if name.endswith("_seconds")}


def timed(command, *arguments: str) -> float:
    """Wall time of a command that ends well."""
    started = time.monotonic()
    done = command("ssl-train", *arguments)
    wall = time.monotonic() - started
    assert done.code == 0, done.err
    return wall


def test_the_parts_of_a_run_are_within_the_time_of_its_command(command):
    wall = timed(command, *SHORT)
    taken = seconds(only_run(Path()).results()["cost"])
    assert list(taken) == ["train", "waiting", "selection", "evaluation"]
    assert all(value > 0 for value in taken.values())
    assert taken["waiting"] < taken["train"]
    assert taken["train"] + taken["selection"] + taken["evaluation"] < wall


@pytest.mark.nightly
def test_a_ranking_costs_what_it_did_when_it_was_made(command):
    proxied = (*TINY, "subset=prototypes", "subset.looks=1", "subset.proxy.trainer.max_epochs=1", "batch_size=64")
    wall = timed(command, *proxied, "subset.fraction=0.1")
    (proxy,) = find_runs([Path("runs/proxies")])
    (first,) = find_runs([Path("runs/default")])
    taken = seconds(first.results()["cost"])
    assert taken["selection"] > 0
    assert 0 < taken["proxy"] <= proxy.results()["cost"]["train_seconds"]
    assert sum(taken.values()) - taken["waiting"] < wall
    timed(command, *proxied, "subset.fraction=0.2")
    (second,) = (run for run in find_runs([Path("runs/default")]) if run != first)
    again = seconds(second.results()["cost"])
    assert (again["selection"], again["proxy"]) == (taken["selection"], taken["proxy"])


def test_a_loader_that_pauses_is_waited_for(monkeypatch):
    prompt = ResidentLoader.batch

    def slow(loader, number):
        time.sleep(PAUSE)
        return prompt(loader, number)

    monkeypatch.setattr(ResidentLoader, "batch", slow)
    recorder = Recorder()
    fitting.fit(recorder)  # 6 steps
    assert 6 * PAUSE <= recorder.waiting_seconds <= recorder.train_seconds


@pytest.mark.nightly
def test_sums_go_on_where_a_run_was_killed(tmp_path):
    arguments = (*SHORT, "checkpoint.every_steps=2")
    ssl_train(tmp_path, *arguments, at=Signal(STEP, 6))
    run = only_run(tmp_path)
    before = recorded(run)
    assert 0 < before["waiting_seconds"] < before["train_seconds"]
    assert ssl_train(tmp_path, *arguments).code == 0
    after = run.results()["cost"]
    assert all(after[name] > before[name] for name in before)


def recorded(run) -> dict[str, float]:
    import torch

    state = torch.load(run.checkpoint, weights_only=True)["callbacks"]["Recorder"]
    return {name: state[name] for name in ("train_seconds", "waiting_seconds")}


def test_a_part_that_nobody_has_measured_is_not_said_to_be_nothing():
    """A run that a former version has begun."""
    recorder = Recorder()
    state = recorder.state_dict()
    del state["waiting_seconds"]
    recorder.load_state_dict(state)
    assert recorder.waiting_seconds != recorder.waiting_seconds
    assert "waiting_seconds" not in cost(1.0, recorder.waiting_seconds, 1, 1, 1.0, 0)
    assert cost(1.0, 0.5, 1, 1, 1.0, 0)["waiting_seconds"] == 0.5


@pytest.mark.nightly
def test_a_further_evaluation_has_its_own(command):
    timed(command, *SHORT)
    timed(command, *SHORT, "evaluation.k=1")
    run = only_run(Path())
    (made,) = run.evaluations()
    assert list(made["cost"]) == ["evaluation_seconds"]
    assert 0 < made["cost"]["evaluation_seconds"] != run.results()["cost"]["evaluation_seconds"]
    assert json.loads(run.results_file.read_text())["cost"].keys() >= {"train_seconds", "evaluation_seconds"}


@pytest.mark.parametrize("said", [None, "12", {"Recorder": []}, {"Recorder": {"train_seconds": "long"}}])
def test_a_foreign_checkpoint_may_say_anything(said):
    from ssl_lightning.runs.loading import LoadedRun

    assert LoadedRun(fitting.method(), {}, {"callbacks": said}).train_seconds is None
    told = {"callbacks": {"Recorder": {"train_seconds": 2.5}}}
    assert LoadedRun(fitting.method(), {}, told).train_seconds == 2.5
