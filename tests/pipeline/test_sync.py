"""ssl-sync: a run's folder becomes one wandb run, with and without a server, once."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from ssl_lightning.loggers.wandb_run import wandb_id
from ssl_lightning.pipeline.sync import MARKER
from ssl_lightning.runs.metrics import MetricsWriter
from ssl_lightning.runs.run import Run, find_runs
from tests.loggers.test_wandb import ARGUMENTS, description, flat, histories, records, summary
from tests.processes import ssl_train
from tests.reports.test_report import Folder, results_of

pytestmark = pytest.mark.usefixtures("no_login")


def log(run: Run, *steps: int) -> None:
    writer = MetricsWriter(run.metrics_file)
    for step in steps:
        writer.append({"step": step, "epoch": step // 4, "loss": 1 / step})


def draw(run: Run, name: str) -> Path:
    file = run.folder / "figures" / f"{name}.png"
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", (2, 1)).save(file)
    return file


def steps(history: list[dict[str, Any]]) -> list[tuple[int, int, float]]:
    return [(row["trainer/global_step"], row["epoch"], row["loss"]) for row in history if "loss" in row]


def built(run: Run) -> Path:
    (file,) = run.folder.glob("wandb/offline-run-*/*.wandb")
    return file


def evaluate(run: Run, k: int) -> None:
    """Under another protocol, as ssl-evaluate does."""
    results = run.results()
    protocol = {"dataset": "digits", "content": "", "settings": {"k": k}, "reading": {}}
    run.evaluation_file("digits-1").parent.mkdir()
    text = json.dumps({"metrics": {"knn/top1": 0.25}, "spectra": results["spectra"], "protocol": protocol})
    run.evaluation_file("digits-1").write_text(text)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_run_made_without_wandb_and_without_a_server(tmp_path, command, monkeypatch, rank):
    monkeypatch.setattr(rank_zero_only, "rank", rank)  # as of RANK=1, when Lightning is imported
    run = Folder(tmp_path / "runs" / "grid").finish(0.75, seed=3)
    log(run, 2, 4)
    draw(run, "curves")
    secret = tmp_path / "secret.png"
    shutil.copy(draw(run, "other"), secret)
    (run.folder / "figures" / "leads_out.png").symlink_to(secret)

    done = command("ssl-sync", "runs")
    assert done.code == 0, done.err
    assert f"{run.id}: finished, rows: 2\n1 built offline\nUpload them: wandb sync " in done.out
    assert "there is no login for http://127.0.0.1:9" in done.out
    file, told, kept = built(run), description(built(run)), summary(built(run))
    assert told["run_id"] == wandb_id(run.id, run.config()["sweep"])
    assert (told["display_name"], told["job_type"]) == (run.id, "simclr")
    assert {key: kept["config"][key] for key in ("method", "fraction", "seed")} == {
        **{"method": "simclr", "fraction": run.results()["identity"]["fraction"], "seed": 3}
    }
    assert kept["config"]["settings"] == {key: value for key, value in run.config().items() if value != {}}
    assert kept["state"] == "finished"
    assert steps(histories(file)) == [(2, 0, 0.5), (4, 1, 0.25)]
    values = flat(kept["summary"])
    assert values["linear/top1"] == 0.75
    assert values["status"] == "finished"
    assert values["protocol.dataset"] == "digits"
    images = {image.name.rpartition("_")[0].rpartition("_")[0] for image in file.parent.rglob("*.png")}
    assert images == {"curves", "other"}
    assert {record["type"] for record in records(file)}.isdisjoint({"stats", "environment", "output"})

    assert command("ssl-sync", "runs").out.endswith("1 unchanged\n")
    assert built(run) == file
    shutil.rmtree(run.folder / "wandb")  # what only this machine has is made again
    assert "1 built offline" in command("ssl-sync", "runs").out


def test_a_killed_and_resumed_run_is_one_history(tmp_path, command, wandb_server):
    """Also where its pieces lie in two copies of the sweep, and where it is evaluated further."""
    run = Folder(tmp_path / "runs" / "grid").begin()
    log(run, 2, 4)
    with run.metrics_file.open("a") as file:
        file.write("6,1,0.1")  # torn
    id = wandb_id(run.id, run.config()["sweep"])
    done = command("ssl-sync", "runs")
    assert done.code == 0, done.err
    assert done.out.endswith("1 uploaded\n")
    kept = wandb_server.runs.pop(id)
    assert steps(kept.history) == [(2, 0, 0.5), (4, 1, 0.25)]
    assert kept.summary["status"] == "unfinished"
    assert kept.exit_code == 1
    assert not (run.folder / "wandb").exists()

    shutil.copytree(run.folder, tmp_path / "old" / run.id)
    log(run, 6, 8)
    run.finish(results_of(run.config(), 0.75))
    evaluate(run, 5)
    done = command("ssl-sync", "old", "runs")
    assert done.out.endswith("1 uploaded\n"), done.err
    assert list(wandb_server.runs) == [id]
    assert [step for step, *_ in steps(wandb_server.run(id).history)] == [2, 4, 6, 8]
    assert wandb_server.run(id).exit_code == 0
    assert wandb_server.run(id).summary["linear/top1"] == 0.75
    ((name, protocol),) = wandb_server.run(id).summary["protocols"].items()
    assert protocol["name"] == "k=5"
    assert wandb_server.run(id).summary[f"evaluations/{name}/knn/top1"] == 0.25

    asked = len(wandb_server.asked)
    assert command("ssl-sync", "runs").out.endswith("1 unchanged\n")
    assert "UpsertBucket" not in wandb_server.asked[asked:]
    assert command("ssl-sync", "runs", "--project", "other").out.endswith("1 uploaded\n")
    assert "other" in [one["project"] for one in wandb_server.run(id).upserts]


@pytest.mark.nightly
def test_what_its_own_logger_has_uploaded_is_left_alone(tmp_path, command, wandb_server):
    name = {"WANDB_BASE_URL": wandb_server.address, "WANDB_API_KEY": 40 * "a", "NO_PROXY": "127.0.0.1"}
    ended = ssl_train(tmp_path, "logger=wandb", *ARGUMENTS, environment=name)
    assert ended.code == 0, ended.output
    (run,) = find_runs([tmp_path / "runs"])
    id = wandb_id(run.id, "comparison")
    assert list(wandb_server.runs) == [id]
    live = wandb_server.runs.pop(id)
    assert live.summary["linear/top1"] == run.results()["metrics"]["linear/top1"]
    assert command("ssl-sync", "runs").out.endswith("1 unchanged\n")
    assert not wandb_server.runs
    assert command("ssl-sync", "runs", "--again").out.endswith("1 uploaded\n")
    rows = [[row for row in kept.history if "loss" in row] for kept in (live, wandb_server.run(id))]
    assert steps(rows[0]) == steps(rows[1])


@pytest.mark.nightly
def test_one_that_cannot_be_read_or_is_being_trained_stops_no_other(tmp_path, command):
    sweep = Folder(tmp_path / "runs" / "grid")
    damaged, trained = sweep.finish(0.5, seed=1), sweep.begin(seed=2)
    failed = sweep.fail(ValueError("what went wrong"), seed=3)
    damaged.results_file.write_text("{")
    with trained.held():
        done = command("ssl-sync", "runs", "--mode", "offline")
    assert done.code == 1
    assert done.out.startswith(
        f"{trained.id}: is being trained, and left to its own logger\n"
        f"{failed.id}: failed, rows: 0\n1 built offline, 1 still running, 1 failed\n"
    )
    assert "1 of 3 runs were not uploaded" in done.err
    assert f"{damaged.id}: {damaged.results_file} is damaged" in done.err
    assert not (damaged.folder / MARKER).exists()
    assert not (trained.folder / MARKER).exists()
    assert "what went wrong" in flat(summary(built(failed))["summary"])["error"]


@pytest.mark.nightly
def test_what_the_config_said_of_wandb_counts(tmp_path, command):
    own = ("logger=wandb", "logger.wandb.project=mine", "logger.wandb.tags=[tuned]", "logger.wandb.notes=why")
    run = Folder(tmp_path / "runs" / "grid").finish(0.5, *own)
    assert command("ssl-sync", "runs", "--mode", "offline").code == 0
    told = description(built(run))
    assert (told["project"], told["notes"]) == ("mine", "why")
    assert told["tags"] == ["digits", "random", "tuned"]


@pytest.mark.parametrize(("arguments", "said"), [(("nowhere",), "nowhere is no folder"), ((".",), "There are no runs")])
def test_where_there_are_no_runs(command, arguments, said):
    done = command("ssl-sync", *arguments)
    assert done.code == 1
    assert said in done.err
