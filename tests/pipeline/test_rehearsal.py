"""fast_dev_run goes through all that a run does, and finds what would fail hours later."""

import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from ssl_lightning.commands.train import train
from ssl_lightning.data.dataset import Split
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.splits import FEW, Splits, few_of
from ssl_lightning.evaluation.suite import RanksOnly
from ssl_lightning.loggers.tensorboard import TensorBoard
from ssl_lightning.methods.simclr import SimCLR
from tests.composing import TINY, composed
from tests.pipeline.test_fast_dev_run import place

__all__ = ["place"]

REHEARSED = (*TINY, "trainer.fast_dev_run=true", "subset.fraction=0.1")


def start(*overrides: str):
    return train(composed(*overrides))


class Unrankable(RanksOnly):
    """A suite with a mistake."""

    def __call__(self, *_):
        raise ZeroDivisionError("in the suite")


class Unloadable(SimCLR):
    """A method with a mistake: what it trains is not what it is made with."""

    def on_train_start(self) -> None:
        self.backbone.more = torch.nn.Linear(1, 1)


class Mute(CSVLogger):
    """A logger of the user's."""

    def log_metrics(self, *_, **__):
        raise AssertionError("a rehearsal writes nothing to other places")


@pytest.mark.one_in(2)
@pytest.mark.reliability("what is drawn, logged, saved or evaluated after a long training has a mistake")
@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        (
            (*TINY[:5], "evaluation=none", f"evaluation._target_={__name__}.Unrankable"),
            ZeroDivisionError,
            "in the suite",
        ),
        ((*TINY, f"method._target_={__name__}.Unloadable"), RuntimeError, r"backbone\.more"),
    ],
)
def test_what_would_fail_after_training_fails_now(place, overrides, error, words):
    with pytest.raises(error, match=words):
        start(*overrides, "trainer.fast_dev_run=true")
    assert list(place.iterdir()) == []


@pytest.mark.reliability("what is drawn, logged, saved or evaluated after a long training has a mistake")
@pytest.mark.parametrize("place_of_it", ["ssl_lightning.reports.figures.save", "torch.save"])
def test_what_cannot_be_drawn_or_saved_fails_now(place, monkeypatch, place_of_it):
    def fail(*_):
        raise RuntimeError("not here")

    monkeypatch.setattr(place_of_it, fail)
    with pytest.raises(RuntimeError, match="not here"):
        start(*REHEARSED)
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("no_figures")
def test_loggers_are_rehearsed_where_nothing_of_it_is_seen(place, capsys):
    start(*REHEARSED, "logger=tensorboard", f"+logger.mine={{_target_: {__name__}.Mute, save_dir: {place}}}")
    assert "fast_dev_run: 1 optimizer step, a checkpoint," in capsys.readouterr().out
    assert list(place.iterdir()) == []


@pytest.mark.reliability(
    "what is drawn, logged, saved or evaluated after a long training has a mistake",
    lost="nothing, where `trainer.fast_dev_run=true` was tried",
    read="the error",
)
def test_a_logger_that_would_fail_fails_now(place, monkeypatch):
    def fail(*_):
        raise RuntimeError("no such project")

    monkeypatch.setattr(TensorBoard, "log_metrics", fail)
    with pytest.raises(UserError, match="TensorBoard failed"):
        start(*REHEARSED, "logger=tensorboard")
    assert list(place.iterdir()) == []


@pytest.mark.usefixtures("no_figures")
def test_steps_are_counted_also_where_a_budget_of_steps_is_asked_for(place, capsys):
    start(*REHEARSED, "trainer.fast_dev_run=3", "budget=steps")
    assert "fast_dev_run: 3 optimizer steps" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_a_finished_run_is_left_alone(place, capsys):
    arguments = (*TINY, "subset.fraction=0.1")
    run = start(*arguments)
    before = {file: file.read_bytes() for file in place.rglob("*") if file.is_file()}
    assert start(*arguments, "trainer.fast_dev_run=true") == run
    assert "Nothing was kept" in capsys.readouterr().out
    assert {file: file.read_bytes() for file in place.rglob("*") if file.is_file()} == before


def test_a_few_images_are_of_as_many_classes_as_there_are():
    labels = torch.arange(2000) // 20  # 100 classes
    images = torch.arange(2000).reshape(-1, 1, 1, 1)
    splits = Splits(Split(images, labels), Split(images[:9], labels[:9]), torch.zeros(2000, dtype=torch.bool))
    train, test, validation = few_of(splits)
    assert len(train.labels) == FEW
    assert train.labels.bincount().tolist() == [3] * 56 + [2] * 44
    assert len(train.images.unique()) == FEW
    assert torch.equal(labels[train.images.flatten()], train.labels)
    assert sorted(test.images.flatten().tolist()) == list(range(9))
    assert 0 < int(validation.sum()) < FEW


def test_a_size_that_changes_is_not_compiled(place):
    with pytest.raises(UserError, match=r"compile is default, but resolution changes.*compile=null"):
        start(*REHEARSED, "compile=default", "resolution=progressive")
