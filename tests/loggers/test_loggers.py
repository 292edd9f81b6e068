"""TensorBoard, several loggers at once, and loggers that fail."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra.core.hydra_config import HydraConfig
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ssl_lightning.loggers.of_run import log_results
from ssl_lightning.loggers.tensorboard import TensorBoard
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import find_runs
from tests.composing import TINY, composed
from tests.pipeline.test_ddp import ARGUMENTS as WITH_TWO_PROCESSES
from tests.processes import ssl_train, two_processes

RESULTS = {"metrics": {"linear/top1": 0.5}, "cost": {"optimizer_steps": 3, "images_seen": 24}}


@pytest.fixture
def forget():
    """What Hydra remembers of a composed config."""
    yield
    HydraConfig.instance().cfg = None


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()


def board(folder: Path) -> TensorBoard:
    logger = TensorBoard()
    logger.folder = folder
    return logger


@pytest.mark.nightly
def test_two_loggers_hold_what_the_run_holds(tmp_path):
    arguments = ("logger=[wandb,tensorboard]", "logger.wandb.mode=offline", "trainer.log_every_n_steps=5")
    ended = ssl_train(tmp_path, *TINY, "batch_size=64", *arguments, figures=True, environment={"HOME": str(tmp_path)})
    assert ended.code == 0, ended.output
    (run,) = find_runs([tmp_path / "runs"])
    assert len(list(tmp_path.glob(f"runs/default/wandb/offline-run-*-{run.id}-*/run-{run.id}-*.wandb"))) == 1
    folder = run.folder / "tensorboard"
    assert all(file.name.startswith("events.out.tfevents.") for file in folder.iterdir())
    shown = events(folder)

    rows = read_metrics(run.metrics_file)
    assert len(rows) > 1
    losses = shown.Scalars("loss")
    assert [event.step for event in losses] == [int(row["step"]) for row in rows]
    assert [event.value for event in losses] == pytest.approx([float(row["loss"]) for row in rows], rel=1e-6)

    results = run.results()
    steps = results["cost"]["optimizer_steps"]
    expected = {f"results/{name}": value for name, value in results["metrics"].items()}
    expected |= {f"cost/{name}": value for name, value in results["cost"].items()}
    for name, value in expected.items():
        (event,) = shown.Scalars(name)
        assert (event.step, event.value) == (steps, pytest.approx(value, rel=1e-6))
    for name in ("curves", "spectrum"):
        (image,) = shown.Images(f"figures/{name}")
        with Image.open(run.folder / "figures" / f"{name}.png") as figure:
            assert (image.width, image.height) == figure.size
    hyper_parameters = shown.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    assert b"optimizer/lr" in hyper_parameters


def test_figures_keep_their_pixels(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "figure.png")
    logger = board(tmp_path / "events")
    log_results([logger], {"seed": 1}, RESULTS, {"noise": tmp_path / "figure.png"})
    (image,) = events(tmp_path / "events").Images("figures/noise")
    (tmp_path / "shown.png").write_bytes(image.encoded_image_string)
    with Image.open(tmp_path / "shown.png") as shown:
        np.testing.assert_array_equal(np.asarray(shown), pixels)


def test_a_resumed_run_forgets_what_came_after_the_checkpoint(tmp_path):
    killed = board(tmp_path)
    for step in (1, 2, 3, 4):
        killed.log_metrics({"loss": step}, step)
    killed.experiment.flush()
    resumed = board(tmp_path)
    resumed.rewind(2)
    for step in (3, 4, 5):
        resumed.log_metrics({"loss": 10 * step}, step)
    resumed.finalize("success")
    assert [(event.step, event.value) for event in events(tmp_path).Scalars("loss")] == [
        (1, 1),
        (2, 2),
        (3, 30),
        (4, 40),
        (5, 50),
    ]
    assert len(list(tmp_path.iterdir())) == 2


def test_tensorboard_that_is_not_installed(command, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    outcome = command("ssl-train", *TINY, "logger=tensorboard")
    assert outcome.code == 1
    assert outcome.err == (
        "Error: logger=tensorboard needs a package that is not installed: pip install 'ssl-lightning[tensorboard]'\n"
    )
    (run,) = find_runs([Path("runs")])
    assert run.status == "failed"
    assert not run.checkpoint.exists()


def test_a_logger_that_fails_at_the_end_stops_no_other(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    failing, working = board(tmp_path / "file"), board(tmp_path / "events")
    log_results([failing, working], {"seed": 1}, RESULTS, {})
    printed = capsys.readouterr()
    assert printed.err.startswith("Warning: TensorBoard has failed, but the run has not: ")
    assert printed.err.count("\n") == 1
    (event,) = events(tmp_path / "events").Scalars("results/linear/top1")
    assert (event.step, event.value) == (3, 0.5)


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("logger=csv", []),
        ("logger=wandb", ["wandb"]),
        ("logger=tensorboard", ["tensorboard"]),
        ("logger=[wandb,tensorboard]", ["wandb", "tensorboard"]),
        ("logger=[csv,tensorboard]", ["tensorboard"]),
    ],
)
@pytest.mark.parametrize("name", ["train", "select"])
@pytest.mark.usefixtures("forget")
def test_choices(name, choice, names):
    assert list(composed(choice, name=name).logger) == names


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("choice", ["wandb", "[wandb,tensorboard]"])
def test_a_grid_chooses_loggers(tmp_path, choice):
    (tmp_path / "grid.yaml").write_text(f"defaults:\n  - /train\n  - override /logger: {choice}\n  - _self_\n")
    assert list(composed(name="grid", folder=tmp_path).logger) == choice.strip("[]").split(",")
    assert list(composed("logger=[tensorboard]", name="grid", folder=tmp_path).logger) == ["tensorboard"]


@pytest.mark.nightly
def test_two_processes_make_one_run(tmp_path):
    """The second process must neither begin a run of its own nor wait for one."""
    arguments = (*WITH_TWO_PROCESSES, "trainer.max_epochs=1", "logger=[wandb,tensorboard]")
    environment = {"HOME": str(tmp_path), "WANDB_API_KEY": ""}
    done, second = two_processes(tmp_path, *arguments, environment=environment, figures=True)
    assert done.code == second.code == 0, done.output + second.output
    (run,) = find_runs([tmp_path / "runs"])
    assert run.results()["environment"]["world_size"] == 2
    assert len(list((tmp_path / "runs/default/wandb").glob("*run-*"))) == 1
    assert done.output.count("wandb goes on offline") == 1
    assert "wandb" not in second.output
    assert [event.step for event in events(run.folder / "tensorboard").Scalars("loss")] == [3, 4]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "code",
    [
        "import ssl_lightning.pipeline.pretrain",
        "import sys; from ssl_lightning.commands.train import main; sys.argv = ['ssl-train', '--cfg', 'job']; main()",
    ],
    ids=["training", "help"],
)
def test_loggers_that_are_not_used_are_not_imported(tmp_path, code):
    after = "; import sys; print([name for name in ('wandb', 'tensorboard') if name in sys.modules], file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code + after], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"
