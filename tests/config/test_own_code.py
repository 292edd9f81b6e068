"""What is wrong in code of one's own is said with its file and line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import explained
from tests.composing import composed
from tests.config.configs import forget, refused

__all__ = ["forget"]

CODE = {
    "unfinished": """
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.methods.method import SSLMethod


class Data(ImageDataset):
    def prepare(self):
        pass


class Method(SSLMethod):
    def __init__(self, backbone, optimizer=None):
        super().__init__(optimizer)
""",
    "unannotated": """
from ssl_lightning.methods.simclr import SimCLR


class Method(SimCLR):
    def __init__(self, backbone, projector, optimizer, name, sizes=(1, 2), table=None):
        super().__init__(backbone, projector, optimizer=optimizer)
        self.first = table[name][sizes[0]]
""",
    "mistyped": "x = 1\nclass Method\n    pass\n",
    "failing": "\nimport torch\n\nx = undefined\n",
    "returning": """
from dataclasses import dataclass

import numpy as np

from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.subsets.random import Random
from ssl_lightning.subsets.rule import SubsetRule


class Data(Digits):
    given = None

    def read(self, split):
        return self.given


class Rule(Random):
    def rank(self, dataset, proxies=(), processes=None):
        return np.arange(3)


@dataclass(frozen=True, kw_only=True)
class Nameless(SubsetRule):
    def rank(self, dataset, proxies=(), processes=None):
        return None


class Method(SimCLR):
    def ssl_loss(self, batch, gather, draw):
        return self.encode(batch.views, draw)[1].mean()
""",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder of modules, whose names begin with own_."""
    folder = tmp_path_factory.mktemp("own")
    for name, text in CODE.items():
        (folder / f"own_{name}.py").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
    for name in CODE:  # another process may have taken a test that lies between, so that the folder is made anew
        sys.modules.pop(f"own_{name}", None)


def line_of(file: Path, text: str) -> str:
    """`file:line` of the first line with this text."""
    return f"{file}:{next(i for i, line in enumerate(file.read_text().splitlines(), 1) if text in line)}"


@pytest.mark.parametrize(
    ("override", "line", "lacks"),
    [
        ("dataset._target_=own_unfinished.Data", "class Data", "count_classes and read"),
        ("method._target_=own_unfinished.Method", "class Method", "ssl_loss"),
    ],
)
def test_a_class_that_lacks_what_its_base_asks_for(own, override, line, lacks):
    message = refused(override, "~method.projector", "~method.temperature", "~method.loss")
    assert f"({line_of(own / 'own_unfinished.py', line)}) lacks {lacks}." in message
    assert f"(command line: {override})" in message


UNANNOTATED = ("~method.temperature", "~method.loss", "method._target_=own_unannotated.Method")


def test_parameters_without_annotation_take_what_they_are_given(own):
    config = resolve(composed(*UNANNOTATED, "+method.name=a", "+method.sizes=[2]", "+method.table={a: {2: 5}}"))
    assert make(config["method"]).first == 5


def test_what_they_cannot_take_is_blamed_on_their_line(own):
    config = resolve(composed(*UNANNOTATED, "+method.name=b", "+method.table={a: 1}"))
    with pytest.raises(Exception, match="b") as caught:
        make(config["method"])
    assert f"KeyError: 'b' ({line_of(own / 'own_unannotated.py', 'self.first')})" in explained(caught.value)


def test_one_that_is_not_given_is_named_with_who_asks(own):
    message = refused(*UNANNOTATED)
    place = line_of(own / "own_unannotated.py", "class Method")
    assert (
        message
        == f"method.name has no value (command line: {UNANNOTATED[-1]}): give it one. Method ({place}) asks for it."
    )


@pytest.mark.parametrize(
    ("module", "error", "line"),
    [
        ("mistyped", "SyntaxError: expected ':'", "class Method"),
        ("failing", "NameError: name 'undefined'", "undefined"),
    ],
)
def test_a_module_that_cannot_be_imported(own, module, error, line):
    message = refused(f"method._target_=own_{module}.Method")
    assert error in message
    assert message.endswith(f"({line_of(own / f'own_{module}.py', line)})")


@pytest.mark.parametrize(
    "given",
    [
        (np.zeros((4, 1, 8, 8)), np.arange(4)),
        (np.zeros((4, 8, 8), np.uint8), np.arange(4)),
        (np.zeros((4, 1, 8, 8), np.uint8), np.arange(3)),
        (np.zeros((4, 1, 8, 8), np.uint8), np.zeros(4)),
        (np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 2, 3]),
    ],
    ids=["floats", "no channels", "too few labels", "labels that are no integers", "no array"],
)
def test_a_dataset_that_reads_something_else(own, monkeypatch, given):
    dataset = make(resolve(composed("dataset._target_=own_returning.Data"))["dataset"])
    monkeypatch.setattr(type(dataset), "given", given)
    with pytest.raises(UserError) as caught:
        dataset.train()
    assert str(caught.value).startswith(f"Data.read ({line_of(own / 'own_returning.py', 'def read')}) returned ")
    assert "Return two NumPy arrays, images as uint8 [n, c, h, w] and labels as integers [n]." in str(caught.value)


def test_a_rule_that_ranks_nothing(own):
    config = resolve(composed("subset._target_=own_returning.Rule"))
    dataset, subset = make(config["dataset"]), make({"_target_": "own_returning.Rule", "seed": 0})
    with pytest.raises(UserError) as caught:
        subset.ranking(dataset)
    place = line_of(own / "own_returning.py", "def rank")
    assert str(caught.value).startswith(f"Rule.rank ({place}) returned a ndarray. Return a Ranking")


def test_a_rule_without_a_name(own):
    with pytest.raises(UserError) as caught:
        make({"_target_": "own_returning.Nameless"})
    place = line_of(own / "own_returning.py", "@dataclass")
    assert str(caught.value).startswith(f"Nameless ({place}) has no name. Give it one there")


def test_a_loss_that_is_no_objective(own, command):
    outcome = command("ssl-train", "method._target_=own_returning.Method", "trainer=cpu", "trainer.fast_dev_run=true")
    place = line_of(own / "own_returning.py", "def ssl_loss")
    assert outcome.err.splitlines()[-1].startswith(
        f"Error: Method.ssl_loss ({place}) returned a Tensor. Return Objective("
    )
