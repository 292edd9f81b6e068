"""Nuisances through whole commands: what is trained on is touched, what is evaluated on is not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ssl_lightning.config.places import CONF
from ssl_lightning.evaluation.protocol import protocol_in
from ssl_lightning.runs.run import find_runs
from tests.composing import TINY
from tests.conftest import Outcome

Command = Callable[..., Outcome]

NAMES = ("long_tail", "duplicates", "noise")


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", NAMES)
def test_a_rehearsal_of_each(command: Command, name: str):
    done = command("ssl-train", *TINY, f"dataset.nuisance={name}", "trainer.fast_dev_run=true")
    assert done.code == 0, done.err
    assert f"digits: nuisance={name}: " in done.out
    assert "Nothing was kept." in done.out


def test_a_dataset_of_ones_own_says_nothing_of_it(command: Command, tmp_path: Path):
    own = tmp_path / "own" / "dataset" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text((CONF / "dataset" / "digits.yaml").read_text().replace("name: digits", "name: mine"))
    mine = ("--config-dir", "own", "dataset=mine", "augment=digits")
    done = command("ssl-train", *mine, *TINY, "dataset.nuisance=noise", "trainer.fast_dev_run=true")
    assert done.code == 0, done.err
    assert "mine: nuisance=noise: " in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("noise", "dataset.nuisance.share=1.0"), "share is 1.0 (command line: dataset.nuisance.share=1.0), but"),
        (("duplicates", "dataset.nuisance.share=0.0"), "it should be greater than 0"),
        (("duplicates", "dataset.nuisance.crop=1.5"), "it should be less than or equal to 1"),
        (("long_tail", "dataset.nuisance.ratio=0.5"), "it should be greater than or equal to 1"),
        (("long_tail", "dataset.nuisance.ration=5"), "did you mean 'dataset.nuisance.ratio'?"),
        (("lang_tail",), "did you mean 'long_tail'?"),
        (
            ("noise", "+dataset@evaluation.dataset=digits", "+evaluation.dataset.nuisance=noise"),
            "see the images as they",
        ),
    ],
    ids=lambda given: given[-1] if isinstance(given, tuple) else "",
)
def test_what_cannot_be_is_refused(command: Command, tmp_path: Path, arguments: tuple[str, ...], said: str):
    done = command("ssl-train", *TINY, f"nuisance@dataset.nuisance={arguments[0]}", *arguments[1:])
    assert done.code == 1
    assert said in done.err
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.nightly
def test_a_run_beside_one_without(command: Command, tmp_path: Path):
    """Both are of one protocol and two cells, and their evaluations by ssl-evaluate share nothing that was touched."""
    for nuisance in ("none", "noise"):
        assert command("ssl-train", *TINY, f"dataset.nuisance={nuisance}", "sweep=both").code == 0
    clean, noisy = sorted(find_runs([tmp_path / "runs" / "both"]), key=lambda run: "-noise-" in run.id)
    protocols = [protocol_in(run.results()) for run in (clean, noisy)]
    assert protocols[0] == protocols[1]
    assert clean.results()["metrics"] != noisy.results()["metrics"]
    report = command("ssl-report", "runs/both")
    assert report.code == 0, report.err
    assert "nuisance=Noise" in (tmp_path / "runs" / "both" / "report" / "report.md").read_text()
    done = command("ssl-evaluate", f"run={noisy.folder}", "trainer=cpu", "evaluation.draws=1")
    assert done.code == 0, done.err
    refused = command("ssl-evaluate", f"run={noisy.folder}", "dataset=digits", "+dataset.nuisance=noise")
    assert refused.code == 1
    assert "dataset.nuisance is set, but evaluations see the images as they are" in refused.err


@pytest.mark.nightly
def test_a_ranking_says_how_many_of_the_copies_it_has_found(command: Command):
    given = ("dataset.nuisance=duplicates", "subset=semdedup", "subset.looks=1", "batch_size=128")
    done = command("ssl-select", *TINY, *given)
    assert done.code == 0, done.err
    words = " ".join(done.out.split())
    assert "semdedup ranking of digits/train-duplicates[1257]:" in words
    assert "copies of earlier images in each tenth of the ranking" in words
    assert "of 251 planted copies, " in words
