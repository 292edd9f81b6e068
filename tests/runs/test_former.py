"""Runs that a former version has left stay readable, beside those of this one.

`former/` holds a run of schema 1: `ssl-train dataset=digits trainer=cpu backbone.width=2 method.projector.hidden=4
method.projector.outputs=4 trainer.max_epochs=1 batch_size=64 subset.fraction=0.1 evaluation.few_percents=[]
evaluation.draws=1`, without its figures.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.loading import load_encoder, load_run
from ssl_lightning.runs.run import Run, find_runs
from tests.conftest import Outcome
from tests.reports.test_report import rows

(FORMER,) = (file.parent for file in Path(__file__).parent.glob("former/*/config.yaml"))
SAME = (
    *("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "batch_size=64"),
    *("backbone.width=2", "method.projector.hidden=4", "method.projector.outputs=4", "subset.fraction=0.1"),
    *("evaluation.few_percents=[]", "evaluation.draws=1"),
)

Command = Callable[..., Outcome]


@pytest.fixture
def former(tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(FORMER, tmp_path / "runs" / "both" / FORMER.name)))


def test_what_it_has_trained_is_loaded(former):
    method, config, checkpoint, _ = load_run(former.folder)
    assert config["dataset"]["_target_"] == "ssl_lightning.data.sources.digits.Digits"
    assert all(torch.equal(value, checkpoint["state_dict"][name]) for name, value in method.state_dict().items())
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    representations = load_encoder(former.folder)(images)
    mean, std = config["dataset"]["mean"][0], config["dataset"]["std"][0]
    torch.testing.assert_close(representations, method((images / 255 - mean) / std), rtol=0, atol=1e-5)


def test_it_is_evaluated_again(command: Command, former):
    done = command(
        "ssl-evaluate", f"run={former.folder}", "trainer=cpu", "evaluation.few_percents=[]", "evaluation.draws=1"
    )
    assert done.code == 0, done.err
    (file,) = former.folder.glob("evaluations/digits-*.json")
    expected = former.results()["metrics"]
    assert expected.pop("linear_5shot/top1_std") == 0  # of one draw, which has no deviation today
    assert json.loads(file.read_text())["metrics"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.nightly
def test_it_stands_beside_new_runs_in_one_report(command: Command, former, tmp_path):
    """It has no line in common with them: what is left out of a cell and what is not has changed."""
    for seed in (1, 2):
        done = command("ssl-train", *SAME, f"seed={seed}", "sweep=both")
        assert done.code == 0, done.err
    runs = find_runs([tmp_path / "runs"])
    assert [run.status for run in runs] == ["finished"] * 3
    cells = cells_of(records_of(runs))
    assert sorted(len(cell.records) for cell in cells) == [1, 2]
    keys = ("method", "dataset", "subset", "fraction")
    assert {tuple(cell.identity[key] for key in keys) for cell in cells} == {("simclr", "digits", "random", 0.1)}
    assert command("ssl-report", "runs/both").code == 0
    table = rows((tmp_path / "runs/both/report/report.md").read_text())
    assert sorted((row["fraction"], row["images"], row["seeds"]) for row in table) == [
        ("0.1", "126", "1"),
        ("0.1", "126", "2"),
    ]
    (old,) = (row for row in table if row["seeds"] == "1")
    assert old["linear %"] == f"{100 * former.results()['metrics']['linear/top1']:.1f}"


def test_seeds_of_former_runs_are_one_cell(former):
    other = Run(Path(shutil.copytree(former.folder, former.folder.with_name("another-s1"))))
    text = other.config_file.read_text()
    other.config_file.write_text(text.replace("\nseed: 0\n", "\nseed: 1\n").replace("sweep: former", "sweep: other"))
    (cell,) = cells_of(records_of([former, other]))
    assert len(cell.records) == 2
    assert cell.variant == ""
