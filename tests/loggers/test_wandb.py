"""wandb: a run a job that holds what results.json holds and keeps its id, and no server that can hold up a training."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.loggers.wandb import Wandb
from ssl_lightning.loggers.wandb_run import wandb_id
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import Run, find_runs
from tests.processes import Ended, Signal, ssl_train, started

ARGUMENTS = (
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


PATIENCE = ("logger.wandb.start_seconds=1", "logger.wandb.upload_seconds=3")
OFFLINE = ("logger=wandb", "logger.wandb.mode=offline")
LOGIN = {"WANDB_API_KEY": 40 * "a"}
LATER = "Later: wandb sync runs/comparison/wandb/offline-run-*\n"


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """Where all of wandb's requests would go. It accepts connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        yield listening


Answers = dict[str, Callable[[Any], Any]]
"""What a server says to each operation, given its variables."""


class Answering(ThreadingHTTPServer):
    """A wandb server that keeps waiting whatever has no answer."""

    daemon_threads = True

    def __init__(self, answers: Answers) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.answers = answers
        self.asked: list[str] = []
        self.over = threading.Event()


class Request(BaseHTTPRequestHandler):
    server: Answering

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        query = json.loads(body) if self.path == "/graphql" else {"operationName": self.path}
        operation = query["operationName"]
        self.server.asked.append(operation)
        if operation not in self.server.answers:
            self.server.over.wait()
            return
        answer = json.dumps({"data": self.server.answers[operation](query.get("variables"))}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


PROJECT = {"id": "1", "name": "ssl_lightning", "entity": {"id": "1", "name": "team"}}
LOGS_IN: Answers = {"Viewer": lambda _: {"viewer": {"id": "1", "entity": "team", "username": "me"}}}
STARTS: Answers = LOGS_IN | {
    "RunResumeStatus": lambda _: {"model": {**PROJECT, "bucket": None}},
    "UpsertBucket": lambda run: {
        "upsertBucket": {"bucket": {"id": "1", "name": run["name"], "project": PROJECT}, "inserted": True}
    },
}


@pytest.fixture
def answering(request: pytest.FixtureRequest) -> Iterator[Answering]:
    server = Answering(request.param)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.over.set()
    server.shutdown()
    thread.join()
    server.server_close()


def environment(folder: Path, port: int, **changes: str) -> dict[str, str | None]:
    """Of a user without login who has set nothing: it only leads requests to the server."""
    address = f"http://127.0.0.1:{port}"
    return {
        "WANDB_SILENT": None,
        "WANDB_MODE": None,
        "WANDB_API_KEY": None,
        "HOME": str(folder),
        "WANDB_BASE_URL": address,
        "HTTPS_PROXY": address,
        "HTTP_PROXY": address,
        **changes,
    }


def train(
    folder: Path,
    server: socket.socket,
    *arguments: str,
    at: Signal | None = None,
    figures: bool = False,
    **changes: str,
) -> Ended:
    folder.mkdir(exist_ok=True)
    variables = environment(folder, server.getsockname()[1], **changes)
    return ssl_train(folder, *arguments, *ARGUMENTS, at=at, environment=variables, figures=figures)


def train_in_time(folder: Path, port: int, *arguments: str, **changes: str) -> Ended:
    """With a login. Fails where the server holds the command up."""
    variables = environment(folder, port, **LOGIN, **changes)
    with started(folder, *arguments, *PATIENCE, *ARGUMENTS, environment=variables) as wait:
        wait.process.join(120)  # type: ignore[attr-defined]
        assert wait.process.exitcode is not None, "the server held it up"  # type: ignore[attr-defined]
        return wait()


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
    id = wandb_id(run.id, "comparison")
    return sorted(folder.glob(f"runs/comparison/wandb/offline-run-*-{id}/run-{id}.wandb"))


@pytest.mark.nightly
def test_a_sweep_in_one_process_makes_a_run_for_each_job(tmp_path, server):
    own = ("logger.wandb.tags=[tuned,digits]", "logger.wandb.notes=why")
    ended = train(tmp_path, server, "-m", *OFFLINE, *own, "seed=1,2", figures=True)
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output.replace("logger=wandb", "").replace("logger.wandb", "")
    runs = find_runs([tmp_path / "runs"])
    assert len(runs) == 2
    cells = set()
    for run in runs:
        (file,) = offline_runs(tmp_path, run)
        described = description(file)
        assert described["run_id"] == wandb_id(run.id, "comparison")
        assert described["display_name"] == run.id
        assert described["run_group"] == "comparison"
        assert described["job_type"] == "simclr"
        assert described["tags"] == ["digits", "random", "tuned"]
        assert described["notes"] == "why"
        read = summary(file)
        config = {key: value for key, value in read["config"].items() if key != "_wandb"}
        assert config.pop("settings") == run.config()
        cells.add(config.pop("cell"))
        assert config == {
            **{key: getattr(run.described()[0], key) for key in ("method", "dataset", "subset", "seed", "budget")},
            **{"fraction": 0.5, "digest": run.id[-8:], "run": run.id, "sweep": "comparison"},
        }
        results = run.results()
        kept = flat(read["summary"])
        for name, value in results["metrics"].items():
            assert kept[name] == pytest.approx(value, rel=1e-12)
        assert kept["cost/images_seen"] == results["cost"]["images_seen"]
        images = {image.name.partition("_")[0] for image in file.parent.rglob("*.png")}
        assert images == {figure.stem for figure in (run.folder / "figures").iterdir()} == {"curves", "spectrum"}
        steps = [row["trainer/global_step"] for row in histories(file) if "loss" in row]
        assert steps == [2, 4]
        assert kept["protocol.name"].startswith("draws=1, ")
        axes = {metric.get("name", metric.get("glob_name")): metric.get("step_metric") for metric in metrics(file)}
        over_steps = dict.fromkeys(("*", "epoch", "fraction"), "trainer/global_step")
        assert axes == {"trainer/global_step": None, **over_steps, "by_fraction/*": "fraction"}
    assert len(cells) == 1  # they differ in seeds alone


def flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Keys joined by slashes or dots, as written."""
    items = {}
    for key, value in nested.items():
        items |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return items


def metrics(file: Path) -> list[dict[str, Any]]:
    """What curves are drawn over."""
    return [record["metric"] for record in records(file) if record["type"] == "metric"]


def histories(file: Path) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records(file) if record["type"] == "history"]


@pytest.mark.nightly
def test_a_resumed_run_keeps_its_id(tmp_path, server):
    every = "checkpoint.every_steps=1"
    assert train(tmp_path, server, *OFFLINE, every, at=Signal(STEP, 4)).code == -signal.SIGKILL
    (run,) = find_runs([tmp_path / "runs"])
    assert not run.done
    ended = train(tmp_path, server, *OFFLINE, every)
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output
    killed, file = offline_runs(tmp_path, run)  # wandb may not have written anything of the killed one
    assert description(file)["run_id"] == wandb_id(run.id, "comparison")
    assert killed.name == file.name
    rows = [row for row in histories(file) if "loss" in row]
    assert [row["trainer/global_step"] for row in rows] == [2, 4]  # the first is that of the killed one, again
    assert [row["loss"] for row in rows] == pytest.approx(
        [float(row["loss"]) for row in read_metrics(run.metrics_file)]
    )
    assert flat(summary(file)["summary"])["linear/top1"] == run.results()["metrics"]["linear/top1"]


@pytest.mark.nightly
def test_a_failing_job_does_not_hand_its_run_to_the_next(tmp_path, server):
    ended = train(tmp_path, server, "-m", *OFFLINE, "optimizer.lr=1e30,1e-3")
    assert ended.code == 1
    assert "not finite" in ended.output
    failed, finished = sorted(find_runs([tmp_path / "runs"]), key=lambda run: run.done)
    assert not failed.done
    assert finished.done
    for run in (failed, finished):
        (file,) = offline_runs(tmp_path, run)
        assert description(file)["run_id"] == wandb_id(run.id, "comparison")
    (file,) = offline_runs(tmp_path, failed)
    assert "linear/top1" not in flat(summary(file).get("summary", {}))


@pytest.mark.nightly
def test_without_login_a_sweep_goes_offline_at_once_and_says_so_once(tmp_path, server):
    ended = train(tmp_path, server, "-m", "logger=wandb", "seed=1,2")
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    port = server.getsockname()[1]
    said = f"wandb goes on offline: there is no login for http://127.0.0.1:{port}; `wandb login` makes one. {LATER}"
    assert ended.output.count(said) == ended.output.count("wandb goes on offline") == 1
    for run in find_runs([tmp_path / "runs"]):
        (file,) = offline_runs(tmp_path, run)
        assert flat(summary(file)["summary"])["linear/top1"] == run.results()["metrics"]["linear/top1"]


@pytest.mark.nightly
@pytest.mark.reliability("wandb's server does not answer, or stops answering")
@pytest.mark.parametrize("mode", [pytest.param("auto", marks=pytest.mark.nightly), "online"])
def test_a_server_that_never_answers_is_waited_for_once(tmp_path, server, mode):
    port = server.getsockname()[1]
    arguments = ("-m", "logger=wandb", f"logger.wandb.mode={mode}", "seed=1,2")
    ended = train_in_time(tmp_path, port, *arguments, WANDB_HTTP_TIMEOUT="1")  # of the login; wandb's own is 10 s
    assert ended.code == 0, ended.output
    server.accept()
    (said,) = re.findall("wandb goes on offline: .*\n", ended.output)
    assert f"http://127.0.0.1:{port}" in said
    assert said.endswith(LATER)
    runs = find_runs([tmp_path / "runs"])
    assert [run.done for run in runs] == [True, True]
    for run in runs:
        (file,) = offline_runs(tmp_path, run)
        assert flat(summary(file)["summary"])["linear/top1"] == run.results()["metrics"]["linear/top1"]


@pytest.mark.nightly
@pytest.mark.reliability(
    "wandb's server does not answer, or stops answering",
    lost="nothing: the run is kept offline",
    read="one line, with `wandb sync …`",
)
@pytest.mark.parametrize("answering", [LOGS_IN], indirect=True, ids=["login"])
def test_a_server_that_lets_no_run_begin(tmp_path, answering):
    ended = train_in_time(tmp_path, answering.server_port, "-m", "logger=wandb", "seed=1,2")
    assert ended.code == 0, ended.output
    assert [answering.asked.count(name) for name in ("Viewer", "RunResumeStatus", "UpsertBucket")] == [1, 1, 0]
    (said,) = re.findall("wandb goes on offline: .*\n", ended.output)
    assert said.endswith(LATER)
    for run in find_runs([tmp_path / "runs"]):
        assert run.done
        (file,) = offline_runs(tmp_path, run)
        assert description(file)["run_id"] == wandb_id(run.id, "comparison")


@pytest.mark.nightly
@pytest.mark.reliability("wandb's server does not answer, or stops answering")
@pytest.mark.parametrize("answering", [STARTS], indirect=True, ids=["start"])
def test_a_server_that_stops_answering_takes_no_results_along(tmp_path, answering):
    """It also hides no error, and lets the next job of a sweep have a run of its own."""
    arguments = ("-m", "logger=wandb", "optimizer.lr=1e30,1e-3")
    ended = train_in_time(tmp_path, answering.server_port, *arguments)
    assert ended.code == 1
    assert "not finite" in ended.output
    assert "Traceback" not in ended.output
    failed, finished = sorted(find_runs([tmp_path / "runs"]), key=lambda run: run.done)
    assert not failed.done
    assert finished.done
    for run in (failed, finished):
        id = wandb_id(run.id, "comparison")
        (folder,) = tmp_path.glob(f"runs/comparison/wandb/run-*-{id}")
        said = (
            f"wandb: the server did not take all of the run in time. Later: wandb sync {folder.relative_to(tmp_path)}"
        )
        assert said in ended.output
        assert description(folder / f"run-{id}.wandb")["run_id"] == wandb_id(run.id, "comparison")
        assert f"wandb: http://127.0.0.1:{answering.server_port}/team/ssl_lightning/runs/{id}\n" in ended.output
    # The server was to have more, whichever way wandb has tried first.
    assert any(name == "CreateRunFiles" or name.endswith("file_stream") for name in answering.asked)


def test_how_long_a_server_is_waited_for(tmp_path, monkeypatch):
    def timeouts(**seconds: float) -> tuple[float, float]:
        settings = Wandb("project", str(tmp_path), mode="offline", **seconds)._wandb_init["settings"]
        return settings["init_timeout"], settings["finish_timeout"]

    monkeypatch.delenv("WANDB_FINISH_TIMEOUT", raising=False)
    assert timeouts() == (8, 30)
    assert timeouts(start_seconds=0.5, upload_seconds=2) == (0.5, 2)
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "7")
    assert timeouts(upload_seconds=2) == (8, 7)


@pytest.mark.parametrize("tags", ["[a,'']", f"[{65 * 'a'}]"])
def test_tags_that_wandb_would_refuse_are_refused_before(command, tags):
    ended = command("ssl-train", "logger=wandb", f"logger.wandb.tags={tags}")
    assert ended.code == 1
    assert ended.err.startswith("Error: logger.wandb.tags")


@pytest.mark.parametrize("key", ["start_seconds", "upload_seconds"])
def test_no_time_is_no_waiting_time(command, key):
    ended = command("ssl-train", "logger=wandb", f"logger.wandb.{key}=0")
    assert ended.code == 1
    assert ended.err.startswith(f"Error: logger.wandb.{key} is 0")
    assert "greater than 0" in ended.err


def test_online_without_login_is_an_error_before_training(tmp_path, server):
    ended = train(tmp_path, server, "logger=wandb", "logger.wandb.mode=online")
    assert ended.code == 1
    assert_nobody_connected(server)
    (run,) = find_runs([tmp_path / "runs"])
    message = (
        f"wandb is to be online, but there is no login for http://127.0.0.1:{server.getsockname()[1]}. "
        "Log in with `wandb login` or WANDB_API_KEY, or choose logger.wandb.mode=offline.\n"
    )
    assert ended.output == f"Error: {message}"
    assert run.error_file.read_text() == message
    assert run.status == "failed"
    assert not run.checkpoint.exists()
    assert not run.metrics_file.exists()


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        pytest.param(("logger.wandb.mode=disabled",), {}, id="key", marks=pytest.mark.nightly),
        pytest.param((), {"WANDB_MODE": "disabled"}, id="variable"),
    ],
)
def test_disabled_writes_nothing(tmp_path, server, arguments, variables):
    ended = train(tmp_path, server, "logger=wandb", *arguments, **variables)
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output
    (run,) = find_runs([tmp_path / "runs"])
    assert run.done
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.nightly
def test_auto_does_what_the_environment_says(tmp_path, server):
    ended = train(tmp_path, server, "logger=wandb", **LOGIN, WANDB_MODE="offline")
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    assert "wandb" not in ended.output
    (run,) = find_runs([tmp_path / "runs"])
    assert len(offline_runs(tmp_path, run)) == 1
    ended = train(tmp_path, server, "logger=wandb", "seed=1", WANDB_MODE="online")
    assert ended.code == 1
    assert "wandb is to be online, but there is no login" in ended.output


@pytest.mark.nightly
def test_lightnings_own_logger_is_told_which_run_it_is(tmp_path, server):
    mine = {"_target_": "lightning.pytorch.loggers.WandbLogger", "offline": True, "save_dir": ".", "name": "mine"}
    ended = train(tmp_path, server, *(f"+logger.mine.{key}={value}" for key, value in mine.items()))
    assert ended.code == 0, ended.output
    assert_nobody_connected(server)
    (run,) = find_runs([tmp_path / "runs"])
    id = wandb_id(run.id, "comparison")
    (file,) = tmp_path.glob(f"wandb/offline-run-*-{id}/run-{id}.wandb")
    described = description(file)
    assert (described["run_id"], described["display_name"], described["run_group"]) == (id, "mine", "comparison")
    assert flat(summary(file)["summary"])["linear/top1"] == run.results()["metrics"]["linear/top1"]
