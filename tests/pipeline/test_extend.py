"""A longer training goes on from a shorter one, and is what it would have been from the start."""

import pytest
import torch

from ssl_lightning.commands.train import train
from ssl_lightning.errors import UserError
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.pipeline.test_fast_dev_run import place

__all__ = ["place"]
pytestmark = pytest.mark.usefixtures("no_figures")

CONSTANT = (
    *(*TINY, "subset.fraction=0.05", "trainer.log_every_n_steps=7", "optimizer.schedule=constant"),
    "optimizer.warmup_epochs=0.4",  # 3 of 7 steps, in a training of one epoch too: it is at most half of a training
)


def start(epochs: int, *overrides: str, settings: tuple[str, ...] = CONSTANT) -> Run:
    return train(composed(*settings, f"trainer.max_epochs={epochs}", *overrides))


def weights(run: Run) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    return state


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["simclr", "moco", "gessl"])
def test_an_extended_run_is_the_longer_run(place, capsys, method):
    """Bit for bit: weights, rows where they lie alike, metrics, and what it has cost in images."""
    own = f"method={method}"
    whole = start(2, own, "sweep=whole")
    shorter = start(1, own)
    longer = start(2, own, "extend=true")
    assert f"extend: goes on from {shorter.id}.\n" in capsys.readouterr().out
    assert longer.id == whole.id
    assert all(torch.equal(value, weights(longer)[name]) for name, value in weights(whole).items())
    assert longer.metrics_file.read_text() == whole.metrics_file.read_text()
    assert longer.results()["metrics"] == whole.results()["metrics"]
    assert longer.results()["cost"]["images_seen"] == whole.results()["cost"]["images_seen"]
    assert start(1, own) == shorter  # it is what it was


def test_a_subset_of_another_name_is_the_same(place, capsys):
    """Its runs are found, and gone on from, where they lie."""
    first = start(1)
    assert start(1, "subset.name=mine") == first
    assert f"{first.id} is finished" in capsys.readouterr().out
    longer = start(2, "subset.name=mine", "extend=true")
    assert f"extend: goes on from {first.id}.\n" in capsys.readouterr().out
    assert "-mine-" in longer.id
    assert longer.results()["identity"]["subset"] == longer.described()[0].subset == "mine"
    assert start(2) == longer
    (longer.folder / "DONE").unlink()
    assert start(2).described()[0].subset == "mine"  # by which wandb knows it
    elsewhere = start(2, "sweep=elsewhere")
    assert len(records_of([longer, elsewhere])) == 1
    assert len(list(first.folder.parent.glob("*-s0-*"))) == 2


@pytest.mark.nightly
def test_it_goes_on_from_the_longest_of_its_settings(place, capsys):
    start(1)
    shorter = start(2)
    other = start(3, "optimizer.lr=0.02")
    longer = start(4, "extend=true")
    assert f"extend: goes on from {shorter.id}.\n" in capsys.readouterr().out
    assert other.id != longer.id
    assert longer.results()["cost"]["optimizer_steps"] == 4 * (63 // 8)


def test_without_a_shorter_run_it_starts_from_the_beginning(place, capsys):
    start(1, "seed=1")
    start(3)
    run = start(2, "extend=true")  # a longer one is no beginning
    assert "has no finished shorter run of these settings" in capsys.readouterr().out
    assert run.results()["cost"]["optimizer_steps"] == 2 * (63 // 8)


@pytest.mark.nightly
def test_a_warm_up_that_was_cut_short_is_no_beginning(place, capsys):
    own = "optimizer.warmup_epochs=1"
    cut = start(1, own)  # which warms up in half of it
    start(2, own, "extend=true")
    out = capsys.readouterr().out
    assert f"{cut.id} is left out, as its warm-up was cut short" in out
    assert "goes on from" not in out
    start(3, own, "extend=true")
    assert "goes on from" in capsys.readouterr().out


@pytest.mark.nightly
@pytest.mark.parametrize("damage", ["checkpoint", "rows", "results"])
def test_a_damaged_run_is_left_out(place, capsys, damage):
    shortest, shorter = start(1), start(2)
    if damage == "checkpoint":
        content = bytearray(shorter.checkpoint.read_bytes())
        content[len(content) // 2] ^= 1
        shorter.checkpoint.write_bytes(content)
    elif damage == "rows":
        shorter.metrics_file.unlink()
    else:
        shorter.results_file.write_text("{")
    capsys.readouterr()
    assert start(3, "extend=true").status == "finished"
    out = capsys.readouterr().out
    assert f"{shorter.id} is damaged, and left out" in out
    assert f"goes on from {shortest.id}" in out


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ((*TINY, "subset.fraction=0.05"), "the schedule of lr is made for trainer.max_epochs=2"),
        ((*CONSTANT, "schedule=one_cycle"), "the schedule of lr is made for"),
        ((*CONSTANT, "method=byol"), "BYOL changes something over the length of the training"),
        ((*CONSTANT, "method=gessl", "method@method.base=byol"), "GeSSL changes something over the length"),
        ((*CONSTANT, "resolution=progressive"), "resolution grows over the length"),
        ((*CONSTANT, "selection=scan"), "selection may choose images by how much of the training is done"),
        ((*CONSTANT, "budget=steps"), "the training ends after a number of steps"),
        ((*CONSTANT, "trainer.max_steps=3"), "the training ends after a number of steps"),
        (
            (*CONSTANT, "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: loss}"),
            "callbacks.stop may depend on the length",
        ),
    ],
)
def test_what_depends_on_its_length_is_refused(place, settings, said):
    with pytest.raises(UserError) as error:
        start(2, "extend=true", settings=settings)
    assert said in str(error.value)
    assert "extend=false" in str(error.value)
