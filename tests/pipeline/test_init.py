"""A training starts from the weights of another."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ssl_lightning.commands.train import train
from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.models.teacher import Teacher
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.initial import backbone_weights, start_from
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.pipeline.test_fast_dev_run import place

__all__ = ["place"]
pytestmark = pytest.mark.usefixtures("no_figures")

SHORT = (*TINY, "subset.fraction=0.05", "trainer.limit_train_batches=3")


def start(*overrides: str) -> Run:
    return train(composed(*SHORT, *overrides))


def of_backbone(run: Run, prefix: str = "backbone.") -> dict[str, torch.Tensor]:
    state = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    return {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return start("method=directclr", f"paths.runs={tmp_path_factory.mktemp('former')}")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("kind", ["folder", "checkpoint", "safetensors", "exported", "wrapped"])
def test_where_weights_come_from(former, kind, tmp_path):
    expected = of_backbone(former)
    source: Path = former.folder
    if kind == "checkpoint":
        source = former.checkpoint
    elif kind == "safetensors":
        source = tmp_path / "encoder.safetensors"
        save_file(expected, source)
    elif kind == "exported":
        source = tmp_path
        save_file({f"backbone.{name}": value for name, value in expected.items()}, tmp_path / "model.safetensors")
    elif kind == "wrapped":
        run = start("method=gessl", "method.base.temperature=0.3")
        source, expected = run.folder, of_backbone(run, "base.backbone.")
    assert expected
    assert same(backbone_weights(source), expected)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("method", ["simclr", "gessl", "byol", "moco", "dino"])
def test_backbone_and_teachers_start_from_them(former, method):
    made = make(resolve(composed(*SHORT, f"method={method}"))["method"])
    expected = of_backbone(former)
    assert not same(made.backbone.state_dict(), expected)
    start_from(made, str(former.folder))
    assert same(dict(made.backbone.state_dict()), expected)
    teachers = [part for part in made.modules() if isinstance(part, Teacher)]
    assert len(teachers) == (method in ("byol", "moco", "dino"))
    assert all(same(dict(teacher.networks[0].state_dict()), expected) for teacher in teachers)


@pytest.mark.nightly
def test_they_are_a_part_of_what_a_run_is(former, capsys):
    """By what they are, not by where they lie."""
    plain, run = start(), start(f"init={former.folder}")
    assert run.id != plain.id
    assert not same(of_backbone(run), of_backbone(plain))
    assert start(f"init={former.checkpoint}") == run
    assert "is finished" in capsys.readouterr().out
    other = start("method=directclr", "seed=1")
    assert start(f"init={other.folder}").id not in (plain.id, run.id)
    identity, _ = run.described()
    assert set(identity.contents) - set(plain.described()[0].contents) == {"init"}


@pytest.mark.nightly
def test_cells_are_told_apart_by_what_they_are(former):
    """Not by a null where former runs say nothing, nor by a path."""
    plain, seeds = start(), [start(f"init={former.folder}", "seed=1"), start(f"init={former.checkpoint}", "seed=2")]
    older = start("seed=3")
    text = older.config_file.read_text()
    older.config_file.write_text(text.replace("init: null\n", "").replace("extend: false\n", ""))
    assert older.config_file.read_text() != text
    cells = cells_of(records_of([plain, older, *seeds]))
    assert sorted(len(cell.records) for cell in cells) == [2, 2]


@pytest.mark.nightly
def test_a_run_that_resumes_does_not_start_again(former):
    whole = start(f"init={former.folder}", "trainer.max_epochs=2", "sweep=whole")
    run = start(f"init={former.folder}", "trainer.max_epochs=2", "trainer.max_time={seconds: 0.000001}")
    assert run.status == "stopped"
    assert start(f"init={former.folder}", "trainer.max_epochs=2") == run
    assert same(of_backbone(run), of_backbone(whole))


CONTENTS = {
    "number.ckpt": {"state_dict": {"backbone.a": 5}},
    "list.ckpt": {"state_dict": [torch.zeros(2)]},
    "keys.ckpt": {"state_dict": {3: torch.zeros(2)}},
    "model.ckpt": {"model": {"a": torch.zeros(2)}},
    "nan.ckpt": {"backbone.a": torch.tensor([0.0, torch.nan])},
    "code.ckpt": {"state_dict": Path("x")},
}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("init", "said"),
    [
        ("runs/none", "init=runs/none: there is no such file or folder. Check the path."),
        ("none.safetensors", "init=none.safetensors: there is no such file"),
        ("''", "init=: there is no such file"),
        (".", "init=.: . has neither checkpoints/last.ckpt, as a run that has trained, nor model.safetensors"),
        ("other", "holds the weights of another network, or under other names: "),
        *((f"{name}.ckpt", f"init={name}.ckpt holds more than named weights") for name in ("number", "list", "keys")),
        ("model.ckpt", "init=model.ckpt holds more than named weights"),
        ("code.ckpt", "holds more than tensors and plain values, of which nothing is executed. Give a run's folder"),
        ("nan.ckpt", "init=nan.ckpt holds weights that are not finite, such as backbone.a. Give others."),
        ("cut.safetensors", "init=cut.safetensors cannot be read: "),
    ],
)
def test_what_cannot_be_started_from(former, init, said, tmp_path):
    if init == "other":
        init = str(start("backbone.width=16").folder)
    elif init.endswith(".ckpt"):
        torch.save(CONTENTS[init], init)
    elif init == "cut.safetensors":
        Path(init).write_bytes(b"half")
    with pytest.raises(UserError) as error:
        start(f"init={init}")
    assert said in str(error.value)
