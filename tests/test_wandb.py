"""wandb offline: no login, no network, a run a job that holds what results.json holds, and that keeps its id."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.runs import Run, find_runs
from tests.processes import Ended, Signal, ssl_train

ARGUMENTS = (
    "logger=wandb",
    "sweep=comparison",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.log_every_n_steps=2",
    "trainer.enable_progress_bar=false",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    "subset.fraction=0.5",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)
STEP = "ssl_lightning.methods.method.SSLMethod.training_step"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Where all of wandb's requests would go. Nobody answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


def train(folder: Path, server: socket.socket, *arguments: str, at: Signal | None = None) -> Ended:
    """As a user without login who has set nothing: the environment only leads requests to the server."""
    folder.mkdir(exist_ok=True)
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    environment: dict[str, str | None] = {
        "WANDB_SILENT": None,
        "WANDB_MODE": None,
        "WANDB_API_KEY": None,
        "HOME": str(folder),
        "WANDB_BASE_URL": address,
        "HTTPS_PROXY": address,
        "HTTP_PROXY": address,
    }
    return ssl_train(folder, *arguments, *ARGUMENTS, at=at, environment=environment, figures=True)


def assert_nobody_connected(server: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        server.accept()


def records(file: Path) -> list[dict[str, Any]]:
    """The transaction log of an offline run."""
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--json", str(file)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return [json.loads(line) for line in lines.splitlines()]


def description(file: Path) -> dict[str, Any]:
    (run,) = [record["run"] for record in records(file) if record["type"] == "run"]
    return run


def summary(file: Path) -> dict[str, Any]:
    command = [str(Path(sys.executable).parent / "wandb"), "leet", "inspect", "--summary", "--json", str(file)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


def offline_runs(folder: Path, run: Run) -> list[Path]:
    return sorted(folder.glob(f"runs/comparison/wandb/offline-run-*-{run.id}/run-{run.id}.wandb"))


def test_a_sweep_in_one_process_makes_a_run_for_each_job(tmp_path, server):
    ended = train(tmp_path, server, "-m", "seed=1,2")
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output.replace("logger=wandb", "")
    runs = find_runs([tmp_path / "runs"])
    assert len(runs) == 2
    for run in runs:
        (file,) = offline_runs(tmp_path, run)
        described = description(file)
        assert described["run_id"] == described["display_name"] == run.id
        assert described["run_group"] == "comparison"
        assert described["job_type"] == "simclr"
        assert sorted(described["tags"]) == ["digits", "random"]
        read = summary(file)
        config = {key: value for key, value in read["config"].items() if key != "_wandb"}
        assert config == run.config()
        results = run.results()
        kept = flat(read["summary"])
        for name, value in results["metrics"].items():
            assert kept[name] == pytest.approx(value, rel=1e-12)
        assert kept["cost/images_seen"] == results["cost"]["images_seen"]
        images = {image.name.partition("_")[0] for image in file.parent.rglob("*.png")}
        assert images == {figure.stem for figure in (run.folder / "figures").iterdir()} == {"curves", "spectrum"}
        steps = [row["trainer/global_step"] for row in histories(file) if "loss" in row]
        assert steps == [2, 4]


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys joined by slashes or dots, as written."""
    items = {}
    for key, value in nested.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return items


def histories(file: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records(file) if record["type"] == "history"]


def test_a_resumed_run_keeps_its_id(tmp_path, server):
    every = "checkpoint.every_steps=1"
    assert train(tmp_path, server, every, at=Signal(STEP, 4)).code == -signal.SIGKILL
    (run,) = find_runs([tmp_path / "runs"])
    assert not run.done
    ended = train(tmp_path, server, every)
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output
    killed, file = offline_runs(tmp_path, run)  # wandb may not have written anything of the killed one
    assert description(file)["run_id"] == run.id
    assert killed.name == file.name
    assert [row["trainer/global_step"] for row in histories(file) if "loss" in row] == [4]
    assert flat(summary(file)["summary"])["linear/top1"] == run.results()["metrics"]["linear/top1"]


def test_a_failing_job_does_not_hand_its_run_to_the_next(tmp_path, server):
    ended = train(tmp_path, server, "-m", "optimizer.lr=1e30,1e-3")
    assert ended.code == 1
    assert "not finite" in ended.output
    failed, finished = sorted(find_runs([tmp_path / "runs"]), key=lambda run: run.done)
    assert not failed.done
    assert finished.done
    for run in (failed, finished):
        (file,) = offline_runs(tmp_path, run)
        assert description(file)["run_id"] == run.id
    (file,) = offline_runs(tmp_path, failed)
    assert "linear/top1" not in flat(summary(file).get("summary", {}))
