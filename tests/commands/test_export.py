"""ssl-export: weights that load strictly, the steps before them, a card that says what the run says."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import nn

from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.runs.loading import load_encoder
from ssl_lightning.runs.run import Run
from tests.composing import TINY
from tests.conftest import Outcome
from tests.processes import ssl_train

Command = Callable[..., Outcome]


def train(folder: Path, *overrides: str) -> Run:
    ended = ssl_train(folder, *(item for item in TINY if not item.startswith("backbone")), *overrides)
    assert ended.code == 0, ended.output
    (config,) = folder.glob("runs/*/*/config.yaml")
    return Run(config.parent)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("tiny"), "subset.fraction=0.1", "backbone.width=4")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """GeSSL around DirectCLR, on a ResNet that others have."""
    base = ("method=gessl", "method.base=directclr", "backbone=resnet18")
    return train(tmp_path_factory.mktemp("large"), *base, "subset.fraction=0.01", "+trainer.limit_train_batches=1")


def exported(command: Command, run: Run, format: str, to: str = "out") -> Path:
    done = command("ssl-export", f"run={run.folder}", f"format={format}", f"to={to}")
    assert done.code == 0, done.err
    weights = "model.onnx" if format == "onnx" else "model.safetensors"
    assert done.out == f"{to}: {weights}, preprocessing.json, README.md\n"
    assert {file.name for file in Path(to).iterdir()} == {weights, "preprocessing.json", "README.md"}
    return Path(to)


def normalised(described: dict[str, Any], images: torch.Tensor) -> torch.Tensor:
    """By the steps that the JSON says."""
    values = images.float()
    for step in described["steps"]:
        if "scale" in step:
            values = values * step["scale"]
        if "normalise" in step:
            mean, std = (torch.tensor(step["normalise"][key]).view(-1, 1, 1) for key in ("mean", "std"))
            values = (values - mean) / std
    return values


@pytest.mark.nightly
@pytest.mark.parametrize("format", ["safetensors", "torchvision", "timm"])
def test_the_lines_of_the_card_give_the_encoder(command: Command, large: Run, format, tmp_path, monkeypatch):
    pytest.importorskip(format)
    to = exported(command, large, format)
    described = json.loads((to / "preprocessing.json").read_text())
    code = (to / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
    assert code.splitlines() == described["load"]
    monkeypatch.chdir(to)
    names: dict[str, Any] = {}
    exec(code, names)
    network: nn.Module = names["network"]
    images = Digits().test().images[:8]
    with torch.no_grad():
        found = network(normalised(described, images))
    torch.testing.assert_close(found, load_encoder(large.folder)(images), rtol=1e-4, atol=1e-5)
    assert described["num_features"] == found.shape[1] == 512


@pytest.mark.nightly
def test_onnx_gives_the_representations_of_the_encoder(command: Command, tiny: Run):
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    to = exported(command, tiny, "onnx")
    session = runtime.InferenceSession(str(to / "model.onnx"))
    described = json.loads((to / "preprocessing.json").read_text())
    for n in (1, 7):
        images = Digits().test().images[:n]
        (found,) = session.run(None, {"images": normalised(described, images).numpy()})
        torch.testing.assert_close(torch.from_numpy(found), load_encoder(tiny.folder)(images), rtol=1e-4, atol=1e-4)


def test_onnx_without_its_packages(command: Command, tiny: Run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    done = command("ssl-export", f"run={tiny.folder}", "format=onnx", "to=out")
    assert done.code == 1
    assert done.err == "Error: format=onnx needs onnxruntime: pip install 'ssl-lightning[onnx]'\n"
    assert not list(Path().glob("*out*"))


def test_the_card_says_what_the_run_says(command: Command, tiny: Run):
    text = (exported(command, tiny, "safetensors") / "README.md").read_text()
    results = tiny.results()
    front = yaml.safe_load(text.split("---")[1])
    assert front["library_name"] == "ssl-lightning"
    assert "license" not in front
    rows = {tuple(cell.strip() for cell in line.strip("|").split("|"))[:2] for line in text.splitlines()}
    for name, value in {**results["metrics"], **{k.replace("_", " "): v for k, v in results["cost"].items()}}.items():
        assert (name, f"{value:.4g}" if isinstance(value, float) else str(value)) in rows
    assert {("method", "simclr"), ("dataset", "digits"), ("subset", "random"), ("fraction", "0.1")} <= rows
    assert ("digest of their positions", results["mask"]["digest"]) in rows
    assert ("digest of the run", tiny.id[-8:]) in rows
    assert f"protocol {results['protocol']['digest']}" in text


def test_a_foreign_run_s_card_is_text(command: Command, tiny: Run, tmp_path):
    run = Run(Path(shutil.copytree(tiny.folder, tmp_path / "sent" / tiny.id)))
    results = run.results()
    results["identity"]["method"] = "<script>x</script> | `\n# Licence\n\nMIT"
    run.finish(results)
    text = (exported(command, run, "safetensors") / "README.md").read_text()
    assert "<script>" not in text
    assert "\n# Licence" not in text


def test_what_is_not_an_export_is_left_alone(command: Command, tiny: Run):
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine")
    Path("file").write_text("mine")
    for to in ("mine", "file", "."):
        done = command("ssl-export", f"run={tiny.folder}", f"to={to}")
        assert done.code == 1
        assert done.err == f"Error: to={to} is there, and is nothing that ssl-export has made. Choose a new folder.\n"
    assert [file.name for file in Path("mine").iterdir()] == ["notes.txt"]
    assert Path("file").read_text() == "mine"


def test_an_export_is_replaced_but_for_a_card_that_was_written_on(command: Command, tiny: Run):
    to = exported(command, tiny, "safetensors")
    (to / "model.onnx").write_text("of a former export")
    exported(command, tiny, "safetensors")
    with (to / "README.md").open("a") as file:
        file.write("MIT")
    done = command("ssl-export", f"run={tiny.folder}", "to=out")
    assert done.code == 1
    assert done.err.startswith("Error: out/README.md was changed since it was made, and would be lost.")
    assert (to / "README.md").read_text().endswith("MIT")


@pytest.mark.parametrize("format", ["torchvision", "timm"])
def test_a_backbone_that_others_do_not_have(command: Command, tiny: Run, format):
    done = command("ssl-export", f"run={tiny.folder}", f"format={format}", "to=out")
    assert done.code == 1
    assert f"format is {format}, but the backbone is a ResNet of stages of 1, 1, 2 blocks, 4 channels" in done.err
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "run has no value"),
        (["run=nowhere", "to=out"], "nowhere is no run that has trained"),
        (["run=x", "to=out", "format=tflite"], "format is 'tflite'"),
        (["run=x", "to=out", "fromat=onnx"], "did you mean 'format'"),
    ],
)
def test_wrong_input(command: Command, arguments, said):
    done = command("ssl-export", *arguments)
    assert done.code == 1
    assert said in done.err
    assert done.err.count("\n") == 1


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nsys.argv = ['ssl-export', '--help']\nfrom ssl_lightning.commands.export import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'lightning', 'safetensors', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
