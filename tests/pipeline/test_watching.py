"""Callbacks of Lightning's that watch a number see what a run logs."""

import csv
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import lightning as L
import pytest

from ssl_lightning.commands.train import train
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.pipeline.test_fast_dev_run import place

__all__ = ["place"]
pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = (*TINY, "subset.fraction=0.05", "trainer.max_epochs=2")
STEPS = 63 // 8  # an epoch
SEEN = "+callbacks.seen._target_=tests.pipeline.test_watching.Seen"


class Seen(L.Callback):
    """Keeps what there is to watch at the end of each epoch."""

    changes_training = False
    epochs: ClassVar[list[dict[str, float]]] = []

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


class Watched(NamedTuple):
    """A run, and what there was to watch at the end of each of its epochs."""

    run: Run
    epochs: list[dict[str, float]]


def start(*overrides: str) -> Run:
    return train(composed(*SHORT, *overrides))


def watched(*overrides: str) -> Watched:
    Seen.epochs = []
    return Watched(start(SEEN, *overrides), Seen.epochs)


def rows(run: Run) -> list[dict[str, str]]:
    with run.metrics_file.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Watched]:
    """A run that nothing has stopped, by how often it writes rows; each is trained once."""
    known: dict[int, Watched] = {}

    def of(every: int) -> Watched:
        if every not in known:
            place = f"paths.runs={tmp_path_factory.mktemp('whole')}"
            known[every] = watched(place, f"trainer.log_every_n_steps={every}")
        return known[every]

    return of


@pytest.mark.nightly
@pytest.mark.parametrize("every", [1, 2, 5, 100])
def test_at_the_end_of_an_epoch_they_are_means_over_it(place, whole, every):
    """However often rows are written; and where rows lie across its end, or there is none yet."""
    reference = rows(whole(1).run)
    found = whole(every).epochs
    assert len(found) == 2
    for epoch, metrics in enumerate(found):
        assert {"loss", "online/loss", "online/val_top1"} <= set(metrics)
        losses = [float(row["loss"]) for row in reference if int(row["epoch"]) == epoch]
        assert len(losses) == STEPS
        assert metrics["loss"] == pytest.approx(sum(losses) / STEPS, rel=1e-5)
    assert found[0]["loss"] != found[1]["loss"]


@pytest.mark.nightly
def test_they_are_the_same_after_a_resume(place, whole):
    """Also where the training was stopped within a row that had begun in the epoch before."""
    again = ("trainer.log_every_n_steps=5", "+callbacks.stop={_target_: tests.parts.Stop, step: 9}")
    run, stopped = watched(*again)
    assert run.status == "stopped"
    _, resumed = watched(*again)
    expected = whole(5).epochs
    assert stopped[0] == expected[0]
    assert resumed == expected[1:]


@pytest.mark.nightly
@pytest.mark.parametrize(("monitor", "mode"), [("loss", "max"), ("online/val_top1", "min"), ("online/loss", "max")])
def test_early_stopping_from_the_command_line(place, capsys, monitor, mode):
    """Of what gets better the worst is asked for, so that the second epoch ends it."""
    stop = f"{{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: {monitor}, mode: {mode}, patience: 1}}"
    settings = f"+callbacks.stop={stop}", "trainer.max_epochs=20", "optimizer.lr=0.01", "trainer.log_every_n_steps=4"
    run = start(*settings)
    assert run.status == "stopped"
    steps = run.results()["cost"]["optimizer_steps"]
    assert steps % STEPS == 0
    assert 2 * STEPS <= steps < 20 * STEPS
    assert f"stopped by EarlyStopping after {steps} of {20 * STEPS} optimizer steps\n" in capsys.readouterr().out
    rows_then = rows(run)
    assert max(int(row["epoch"]) for row in rows_then) == steps // STEPS - 1
    assert start(*settings) == run  # for good
    assert run.results()["cost"]["optimizer_steps"] == steps
    assert rows(run) == rows_then
    (run.folder / "results.json").unlink()  # as where it was killed then
    assert start(*settings).results()["cost"]["optimizer_steps"] == steps


@pytest.mark.nightly
def test_model_checkpoints_lie_in_the_run_and_make_no_other_run_of_it(place):
    plain = start()
    monitor = "{_target_: lightning.pytorch.callbacks.ModelCheckpoint, monitor: loss, save_top_k: 1}"
    run = start(f"+callbacks.best={monitor}", "force=true")
    assert run == plain
    assert [file.name[:6] for file in (run.folder / "checkpoints" / "best").iterdir()] == ["epoch="]
    assert {path.name for path in run.checkpoint.parent.iterdir()} == {"last.ckpt", "best"}
    others = [path for path in place.rglob("*.ckpt") if run.folder.absolute() not in path.parents]
    assert all(".former" in path.parts for path in others)


@pytest.mark.nightly
def test_a_bar_shows_loss_accuracy_and_images_a_second(place, capsys, monkeypatch):
    shown: list[dict[str, Any]] = []
    from ssl_lightning.callbacks.progress import Progress

    plain = Progress.get_metrics
    monkeypatch.setattr(Progress, "get_metrics", lambda *given: shown.append(plain(*given)) or shown[-1])
    start("trainer.enable_progress_bar=true", "trainer.log_every_n_steps=7")
    assert shown == []  # where nobody sees it
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    start("trainer.enable_progress_bar=true", "trainer.log_every_n_steps=7", "force=true")
    assert set(shown[-1]) == {"loss", "online/val_top1", "images/s"}
    assert float(shown[-1]["images/s"].replace(",", "")) > 0
