"""sweeps/wandb_agent.yaml: what `wandb agent` makes of it is a run, and `ssl-sweep` takes it for no grid."""

import subprocess
import sys
from typing import Any

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from ssl_lightning.config.places import CONF, SWEEPS, grids
from ssl_lightning.config.resolve import resolve
from ssl_lightning.runs.run import find_runs
from tests.composing import composed
from tests.loggers.test_wandb import description, environment, flat, summary
from tests.processes import ssl_train

FILE = SWEEPS / "wandb_agent.yaml"


def sweep() -> dict[str, Any]:
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def commands() -> list[list[str]]:
    """As the agent builds them: for each value of each parameter, and both ends of ranges, at least one."""
    parameters = sweep()["parameters"]
    values = {
        key: said.get("values") or [said["value"]] if "distribution" not in said else [said["min"], said["max"]]
        for key, said in parameters.items()
    }
    found = []
    for number in range(max(map(len, values.values()))):
        chosen = {key: {"value": of[number % len(of)]} for key, of in values.items()}
        words = create_sweep_command_args({"args": chosen})["args_no_hyphens"]
        command: list[str] = []
        for word in create_sweep_command(sweep()["command"]):
            command += words if word == "${args_no_hyphens}" else [word]
        found.append(command)
    return found


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_every_command_is_what_ssl_train_takes(command):
    name, *overrides = command
    assert name == "ssl-train"
    assert not any("${" in word for word in overrides)
    config = resolve(composed(*overrides, name="train", folder=CONF))
    assert config["sweep"] == "wandb_agent"
    assert "wandb" in config["logger"]


@pytest.mark.nightly
def test_the_agents_run_is_the_wandb_run(tmp_path):
    """It has the id that the agent gives, and the metric that the sweep maximises."""
    parameters = tmp_path / "config-sweep.yaml"
    said = {"seed": 1, "method": "simclr", "subset.fraction": 0.5}
    parameters.write_text(yaml.safe_dump({"wandb_version": 1, **{key: {"value": it} for key, it in said.items()}}))
    variables = environment(tmp_path, 1, WANDB_MODE="offline", WANDB_RUN_ID="ofagent", WANDB_SWEEP_ID="ofsweep")
    variables["WANDB_SWEEP_PARAM_PATH"] = str(parameters)
    small = ("trainer.max_epochs=1", "backbone.width=8", "evaluation.l2_grid=[0.01]", "evaluation.few_percents=[]")
    ended = ssl_train(tmp_path, *commands()[0][1:], *small, "evaluation.draws=1", environment=variables)
    assert ended.code == 0, ended.output
    (run,) = find_runs([tmp_path / "runs"])
    (file,) = tmp_path.glob("runs/wandb_agent/wandb/offline-run-*-ofagent/*.wandb")
    told, kept = description(file), summary(file)
    assert (told["run_id"], told["display_name"], told["sweep_id"]) == ("ofagent", run.id, "ofsweep")
    assert kept["config"]["method"] == "simclr"  # a name in both, the agent's and ours
    assert flat(kept["summary"])[sweep()["metric"]["name"]] == run.results()["metrics"]["linear/val_top1"]


def test_it_is_no_grid():
    assert FILE.exists()
    assert FILE not in grids(SWEEPS)
    assert len(grids(SWEEPS)) == len(list(SWEEPS.glob("*.yaml"))) - 1
    listed = subprocess.run(
        [sys.executable, "-m", "ssl_lightning.commands.sweep", "--help"], capture_output=True, text=True, check=True
    )
    assert "wandb_agent" not in listed.stdout
    assert "quickstart" in listed.stdout
