"""What has been killed goes on after the parts that it had, and ends with the same numbers."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ssl_lightning.evaluation.finetune import FineTune
from ssl_lightning.evaluation.kept import Kept
from ssl_lightning.evaluation.universality import Universality
from ssl_lightning.files import write_json
from ssl_lightning.models.encoder import Encoder
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset

VALUES = {"top1": 0.1 + 0.2, "steps": [[1.0, float("inf")], [2.5e-17, -0.0]], "name": "σ"}
FINE_TUNE = FineTune(
    percents=(100.0, 33.333333), learning_rates=(0.01, 0.1), epochs=1, min_steps=3, draws=2, batch_size=8
)
UNIVERSALITY = Universality(
    steps=(1, 2), tasks=3, images=8, ways=3, queries=5, episodes=3, corrupted=5, l2_grid=(1e-2, 1e-3)
)


class KilledError(Exception):
    """In the place of a signal."""


def test_a_part_is_made_once_and_is_what_it_was(tmp_path):
    kept = Kept(tmp_path / "parts")
    assert kept("a", lambda: VALUES) == VALUES
    assert Kept(tmp_path / "parts")("a", lambda: pytest.fail("it is there")) == VALUES
    assert kept("b", lambda: 3) == 3
    kept.forget()
    assert not (tmp_path / "parts").exists()
    assert kept("a", lambda: 4) == 4


def test_the_seconds_of_what_was_there_are_known(tmp_path):
    first = Kept(tmp_path)
    first("a", lambda: time.sleep(0.05))
    first("b", lambda: None)
    assert first.seconds == 0
    again = Kept(tmp_path)
    again("a", lambda: None)
    found = again.seconds
    assert found >= 0.05
    again("c", lambda: None)  # is made, and counts among the caller's own
    assert again.seconds == found


def test_without_a_folder_nothing_is_kept(tmp_path):
    kept = Kept()
    assert [kept("a", lambda value=value: value) for value in (1, 2)] == [1, 2]
    kept.forget()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        json.dumps({"part": "b", "value": 1}),
        json.dumps({"part": "a", "value": 1}),
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_damaged_or_of_another_part_is_made_again(tmp_path, text):
    kept = Kept(tmp_path)
    kept("a", lambda: 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(text.encode(errors="surrogateescape"))
    assert kept("a", lambda: 2) == 2
    assert Kept(tmp_path)("a", lambda: 3) == 2


def test_what_cannot_be_kept_is_made_all_the_same(tmp_path):
    (tmp_path / "file").touch()
    assert Kept(tmp_path / "file" / "parts")("a", lambda: 1) == 1


@pytest.mark.reliability(
    "ssl-evaluate is killed while it fine-tunes, or measures universality",
    lost="the fine-tuning, or the part (probes, episodes, corruptions, each kind of σ), that it was in the middle of",
    read="`Interrupted. The same command goes on from what is saved.`",
)
@pytest.mark.parametrize(("evaluator", "parts"), [(FINE_TUNE, 8), (UNIVERSALITY, 5)], ids=["finetune", "universality"])
def test_one_that_dies_after_every_part_ends_as_one_that_does_not(tmp_path, monkeypatch, evaluator, parts):
    """Also where global generators are drawn from, as by dropout."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    made = subject_of(Encoder(network, [0.5], [0.5]), dataset())
    expected = evaluator.evaluate(made)

    def last_words(file: Path, content: object) -> None:
        write_json(file, content)
        raise KilledError

    monkeypatch.setattr("ssl_lightning.evaluation.kept.write_json", last_words)
    for died in range(parts):
        torch.rand(died)
        with pytest.raises(KilledError):
            evaluator.evaluate(replace(made, kept=Kept(tmp_path)))
        assert len(list(tmp_path.iterdir())) == died + 1
    assert evaluator.evaluate(replace(made, kept=Kept(tmp_path))) == expected


def test_percents_that_differ_in_the_last_digit_have_names_of_their_own():
    evaluator = replace(FINE_TUNE, percents=(33.3333333, 33.3333334, 100.0, 10), learning_rates=(0.1,), draws=1)
    assert list(evaluator.columns) == [
        f"finetune_{percent}pct/top1" for percent in ("33.3333333", "33.3333334", "100", "10")
    ]
