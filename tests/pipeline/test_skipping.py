"""A sweep that is started again has no process for jobs that nothing is left to do for, and one for every other."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.config.grid import grid_of
from ssl_lightning.pipeline.skipping import Contents, _as_it_is, done_jobs
from ssl_lightning.runs.run import Run
from tests.composing import TINY
from tests.conftest import Outcome
from tests.data.synthetic import synthetic_images
from tests.pipeline.test_evaluating import only_run

Command = Callable[..., Outcome]

GRID = (
    "defaults: [/train, _self_]\n"
    "sweep: mine\n"
    "hydra: {mode: MULTIRUN, sweeper: {params: {subset.fraction: '0.05,0.06'}}}\n"
)
POOL = ("hydra/launcher=pool", "hydra.launcher.slots=1")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A working directory in which one of the two jobs has been run, in a process of its own."""
    folder = tmp_path_factory.mktemp("skipping")
    (folder / "grid.yaml").write_text(GRID)
    program = [sys.executable, "-m", "ssl_lightning.commands.sweep", "grid.yaml", *TINY, "subset.fraction=0.05"]
    done = subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def here(made, tmp_path, monkeypatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def done(*more: str) -> list[tuple[str, ...]]:
    return [job.overrides for job in done_jobs(grid_of("grid.yaml", [*TINY, *more]))]


def test_a_finished_job_is_done(here):
    assert [job[0] for job in done()] == ["subset.fraction=0.05"]
    shutil.rmtree(here / "runs" / ".sweeps")  # as where the runs were brought from elsewhere
    assert [job[0] for job in done()] == ["subset.fraction=0.05"]


@pytest.mark.parametrize(
    "more", ["evaluation.k=3", "force=true", "sweep=other", "seed=4", "logger=tensorboard", "trainer.max_epochs=2"]
)
def test_one_that_is_asked_for_more_is_not(here, more):
    assert done(more) == []


def drawn(run: Path) -> None:
    """A figure, which runs in this process are made without."""
    (run / "figures").mkdir(exist_ok=True)
    (run / "figures" / "a.png").touch()


def replaced(text: str, by: str) -> Callable[[Run], object]:
    """In the config of a run, where it stands."""

    def replace(run: Run) -> None:
        config = run.config_file.read_text()
        assert text in config
        run.config_file.write_text(config.replace(text, by))

    return replace


TAMPERED: dict[str, Callable[[Run], object]] = {
    "results": lambda run: run.results_file.write_text("{"),
    "config": lambda run: run.config_file.write_text(""),
    "another config": replaced("fraction: 0.05", "fraction: 0.07"),
    "figures": lambda run: shutil.rmtree(run.folder / "figures"),
    "a part of a figure": lambda run: (run.folder / "figures/.a.png.x.part").touch(),
    "done": lambda run: (run.folder / "DONE").unlink(),
    "code": replaced("contents: {}", "contents: {code: ab}"),
    "folder": lambda run: run.folder.rename(run.folder.with_name("renamed")),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_one_of_which_something_is_missing_or_other_is_not(here, what):
    (file,) = here.glob("runs/mine/*/config.yaml")
    TAMPERED[what](Run(file.parent))
    assert done() == []


def test_what_it_reads_is_looked_at(command: Command, tmp_path):
    """Images of one's own, and a list of them."""
    train = tmp_path / "images" / "train"
    train.mkdir(parents=True)
    for i, image in enumerate(synthetic_images(48, 3, 3, 16)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(train / f"{i:02d}.png")
    np.save(tmp_path / "list.npy", np.arange(40))
    made = command(
        "ssl-train", *(item for item in TINY if not item.startswith("evaluation.")), "evaluation=none",
        "dataset=image_folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=16",
        "subset=file", f"subset.path={tmp_path / 'list.npy'}", "subset.fraction=null",
    )  # fmt: skip
    assert made.code == 0, made.err
    run = only_run(tmp_path)
    drawn(run.folder)
    config = run.config()
    assert Contents().of(config) == dict(run.described()[0].contents)
    assert Contents().of(config).keys() == {"data", "subset"}
    assert _as_it_is(config, run, Contents())
    np.save(tmp_path / "list.npy", np.arange(39))
    assert not _as_it_is(config, run, Contents())
    np.save(tmp_path / "list.npy", np.arange(40))
    assert _as_it_is(config, run, Contents())
    (train / "47.png").write_bytes((train / "46.png").read_bytes())
    assert not _as_it_is(config, run, Contents())
    shutil.rmtree(train)
    assert not _as_it_is(config, run, Contents())


def test_started_again_the_pool_runs_the_rest_alone_and_the_report_is_of_all(here, command: Command, no_figures):
    first = command("ssl-sweep", "grid.yaml", *TINY, *POOL)
    assert first.code == 0, first.err
    assert "1 of 2 jobs are finished" in first.out
    assert "Jobs: 1, slots: 1" in first.out
    assert "#1 starts on slot 0: " in first.out
    assert first.out.splitlines()[-1] == "2 finished"
    shutil.rmtree(here / "runs/mine/report")
    for file in here.glob("runs/mine/*/config.yaml"):
        drawn(file.parent)
    again = command("ssl-sweep", "grid.yaml", *TINY, *POOL)
    assert again.code == 0, again.err
    assert "2 of 2 jobs are finished" in again.out
    assert "Jobs:" not in again.out
    assert again.out.splitlines()[-1] == "2 finished"
    assert len((here / "runs/mine/report/runs.csv").read_text().splitlines()) == 3
