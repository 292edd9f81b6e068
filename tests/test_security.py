"""What a foreign file can do: be read, and be refused with its name. `SECURITY.md` says the same in words."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from ssl_lightning.commands.train import train
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.sources.listing import image_files
from ssl_lightning.errors import UserError
from ssl_lightning.files import read_text, safe_name
from ssl_lightning.runs.loading import load_encoder
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.reports.test_report import Command, Folder, forget, markdown, sweep

__all__ = ["forget", "sweep"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    paths = [f"paths.{name}={folder / name}" for name in ("runs", "data", "cache")]
    return train(composed(*TINY, *paths, "subset.fraction=0.1"))


@pytest.fixture
def foreign(trained: Run, tmp_path: Path) -> Run:
    """A run that somebody else has sent, to be tampered with."""
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "sent" / trained.id)))


def tamper(run: Run, **changes: Any) -> None:
    """Dots in keys are written as two underscores."""
    config = yaml.safe_load(run.config_file.read_text())
    for key, value in changes.items():
        node = config
        *parents, last = key.split("__")
        for parent in parents:
            node = node[parent]
        node[last] = value
    run.config_file.write_text(yaml.safe_dump(config))


def new_files(folder: Path, before: set[Path]) -> set[str]:
    return {str(file.relative_to(folder)) for file in set(folder.rglob("*")) - before}


# Code

FUNCTIONS = {
    "writes a file": {"_target_": "ssl_lightning.files.write_text", "path": "EVIL", "text": "x"},
    "writes a file, of torchvision": {"_target_": "torchvision.io.write_file", "filename": "EVIL", "data": None},
    "logs": {"_target_": "lightning.pytorch.loggers.CSVLogger", "save_dir": "EVIL"},
    "starts a command": {"_target_": "ssl_lightning.commands.train.main"},
    "fetches": {"_target_": "torchvision.datasets.utils.download_url", "url": "http://127.0.0.1:9/x", "root": "EVIL"},
    "makes a dataset that fetches": {"_target_": "torchvision.datasets.MNIST", "root": "EVIL", "download": True},
    "evaluates": {"_target_": "sympy.sympify", "a": "__import__('os').mkdir('EVIL')"},
    "loads a pickle": {"_target_": "torch.load", "f": "EVIL", "weights_only": False},
}


@pytest.mark.parametrize("component", FUNCTIONS.values(), ids=FUNCTIONS.keys())
@pytest.mark.parametrize("place", ["itself", "below what takes anything", "in a list of it"])
def test_a_foreign_config_calls_nothing_but_parts_of_methods_and_datasets(
    foreign, tmp_path, monkeypatch, component, place
):
    monkeypatch.chdir(tmp_path)
    inner = {key: "EVIL" if value == "EVIL" else value for key, value in component.items()}
    anything = {"_target_": "torch.nn.Identity", "any": inner} if place.startswith("below") else inner
    anything = {"_target_": "torch.nn.Identity", "_args_": [[inner]]} if place.startswith("in") else anything
    tamper(foreign, method__backbone=anything)
    before = set(tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"config\.yaml is .*(A run may come from anywhere|which makes no part)"):
        load_encoder(foreign.folder)
    assert new_files(tmp_path, before) == set()


# Places


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a/b", "..", ".", "", "a\\b", "a\0b", "a\nb", ".hidden", "-option", "x" * 101], ids=ascii
)
def test_names_that_lead_elsewhere_are_refused(name):
    with pytest.raises(UserError, match=r"dataset\.name is "):
        safe_name(name, "dataset.name")


@pytest.mark.parametrize("name", ["digits", "tiny_imagenet", "my-data.v2", "größe", "a" * 100, "2024"])
def test_names_that_name_a_folder(name):
    assert safe_name(name, "dataset.name") == name


@pytest.mark.parametrize("key", ["dataset.name", "subset.name", "sweep"])
def test_names_on_the_command_line_lead_nowhere(command: Command, tmp_path, key):
    done = command("ssl-train", *TINY, f"{key}='../escaped'")
    assert done.code == 1
    assert done.err.startswith(f"Error: {key} is '../escaped', which becomes a part of the names of folders.")
    assert not (tmp_path.parent / "escaped").exists()


def test_names_that_are_too_long_for_a_folder_are_refused(command: Command):
    done = command("ssl-train", *TINY, f"subset.name={'x' * 300}")
    assert done.err.startswith("Error: subset.name is 'xxx"), done.err


def test_an_evaluation_of_a_foreign_run_writes_into_its_folder_alone(command: Command, foreign, tmp_path):
    tamper(foreign, paths__cache=str(tmp_path / "evil"), paths__runs=str(tmp_path / "evil"))
    before = set(tmp_path.rglob("*"))
    done = command("ssl-evaluate", f"run={foreign.folder}", *(item for item in TINY if "evaluation" in item))
    assert done.code == 0, done.err
    written = {name for name in new_files(tmp_path, before) if not name.startswith("cache") and name != "runs"}
    assert [name for name in written if not name.startswith(f"sent/{foreign.id}/evaluations")] == []
    tamper(foreign, dataset__name="../../escaped")
    done = command("ssl-evaluate", f"run={foreign.folder}")
    assert done.code == 1
    assert "dataset.name is '../../escaped'" in done.err


def test_a_foreign_run_s_folder_for_evaluations_may_be_no_link(command: Command, foreign, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (foreign.folder / "evaluations").symlink_to(tmp_path / "elsewhere")
    done = command("ssl-evaluate", f"run={foreign.folder}")
    assert done.code == 1
    assert "evaluations is a link. Put a folder in its place" in done.err
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_report_on_foreign_runs_writes_into_its_folder_alone(command: Command, sweep: Folder, tmp_path):
    up = "../" * 12 + str(tmp_path)[1:]
    for seed, name in ((1, "digits"), (2, f"x/{up}/escaped/plot")):
        run = sweep.finish(0.5, seed=seed)
        results = run.results()
        results["identity"]["dataset"] = name
        run.finish(results)
    before = set(tmp_path.rglob("*"))
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert all(name.startswith("runs/grid/report") for name in new_files(tmp_path, before))


def test_names_of_foreign_runs_are_text_in_markdown(command: Command, sweep: Folder):
    evil = "<img src=x onerror=alert(1)> | [x](javascript:alert(1)) `"
    run = sweep.finish(0.5, "method.temperature=0.1")
    results = run.results()
    results["identity"]["method"] = evil
    run.finish(results)
    sweep.fail(RuntimeError(evil), "method.temperature=0.2")
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert "<img" not in markdown(sweep)
    assert "&lt;img src=x" in markdown(sweep)


def test_a_report_is_written_through_no_link_unasked(command: Command, sweep: Folder, tmp_path):
    sweep.finish(0.5)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "report.html").write_text("mine")
    (sweep.folder / "report").symlink_to(tmp_path / "elsewhere")
    done = command("ssl-report", "runs/grid")
    assert done.code == 1
    assert "Error: runs/grid/report is a link: nothing is written through it unasked." in done.err
    assert [(file.name, file.read_text()) for file in (tmp_path / "elsewhere").iterdir()] == [("report.html", "mine")]
    done = command("ssl-report", "runs/grid", "--output", "runs/grid/report")
    assert done.code == 0, done.err
    assert (tmp_path / "elsewhere" / "report.md").exists()


# What lies elsewhere on this machine

TEXT_FILES = ("config.yaml", "results.json", "metrics.csv", "evaluations/digits-0.json", "evaluations", "error.txt")


def with_all_files(sweep: Folder, name: str) -> Run:
    """A run that has the file, and that a report shows."""
    run = sweep.fail(RuntimeError("x"), seed=2) if name == "error.txt" else sweep.finish(0.6, seed=2)
    run.metrics_file.write_text("step,epoch,loss\n1,0,0.5\n2,0,0.25\n")
    run.evaluation_file("digits-0").parent.mkdir()
    run.evaluation_file("digits-0").write_text(json.dumps(run.results() if run.done else {}))
    return run


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_link_that_leads_out_of_a_run_shows_nothing(command: Command, sweep: Folder, tmp_path, name):
    sweep.finish(0.5, seed=1)
    run = with_all_files(sweep, name)
    place = run.folder / name
    secret = place.rename(tmp_path / "secret")
    if secret.is_file():
        secret.write_text(secret.read_text().replace("loss", "password").replace("linear/top1", "password"))
    place.symlink_to(secret)
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert "is a link that leads out of its run: nothing is read through it" in done.out
    page = (sweep.folder / "report" / "report.html").read_text()
    assert "password" not in page + markdown(sweep) + done.out


@pytest.mark.parametrize("name", TEXT_FILES)
def test_a_link_within_a_run_and_one_to_a_run_are_followed(command: Command, sweep: Folder, tmp_path, name):
    run = with_all_files(sweep, name)
    place = run.folder / name
    place.symlink_to(os.path.relpath(place.rename(run.folder / "kept"), place.parent))
    run.folder.rename(tmp_path / "moved")
    run.folder.symlink_to(tmp_path / "moved")
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert "is a link" not in done.out


# Endless and gigantic


@pytest.mark.parametrize(
    "name", ["config.yaml", "results.json", "metrics.csv", "evaluations/digits-0.json", "error.txt"]
)
def test_special_files_are_not_waited_for(command: Command, sweep: Folder, name):
    sweep.finish(0.5, seed=1)
    run = sweep.fail(RuntimeError("x"), seed=2) if name == "error.txt" else sweep.finish(0.6, seed=2)
    file = run.folder / name
    file.parent.mkdir(exist_ok=True)
    file.unlink(missing_ok=True)
    os.mkfifo(file)
    done = command("ssl-report", "runs/grid")
    assert done.code == 0, done.err
    assert "no regular file" in done.out or name in ("config.yaml",)


def test_yaml_that_grows_is_refused(foreign):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    foreign.config_file.write_text("\n".join(["method: {}", *lines]))
    with pytest.raises(UserError, match=r"config\.yaml is damaged: it uses aliases"):
        foreign.config()


def test_what_is_too_large_to_be_ours_is_refused(tmp_path):
    (tmp_path / "file").write_text("x" * 101)
    with pytest.raises(ValueError, match="larger than"):
        read_text(tmp_path / "file", 100)


# Images


def picture(folder: Path, content: bytes, name: str = "0.png") -> StreamedImages:
    path = folder / "train" / "a" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return StreamedImages(image_files(folder, "train", folder / "cache"), 8, 3)


def test_a_program_that_is_called_a_picture_is_not_started(tmp_path):
    """Pillow would hand PostScript to Ghostscript, whatever the name."""
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) (w) file closefile\n%%EOF\n"
    with pytest.raises(UserError, match=r"cannot decode the image .*0\.png"):
        picture(tmp_path, script).central(0)


def test_a_header_that_announces_a_gigantic_picture(tmp_path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(UserError, match=r"cannot decode the image .*0\.png"):
        picture(tmp_path, content).central(0)


def test_an_ordinary_picture_is_read(tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "x.png")
    assert picture(tmp_path, (tmp_path / "x.png").read_bytes()).central(0).shape == (3, 8, 8)


def test_results_are_data(foreign):
    """Whatever they hold: text where a number is expected, or a number that is none."""
    results = json.loads(foreign.results_file.read_text())
    results["metrics"]["linear/top1"] = "<script>"
    foreign.results_file.write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"results\.json is damaged: its metrics.linear/top1 is .*, and no number"):
        foreign.results()
