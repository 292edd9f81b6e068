"""A run's encoder, and that loading a foreign run executes nothing of it."""

import json
import os
import shutil
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf

from ssl_lightning.commands.train import train
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.sources import RunEncoder
from ssl_lightning.runs.loading import load_encoder
from ssl_lightning.runs.run import Run, find_runs
from tests.composing import TINY, composed

METHODS = ("simclr", "directclr", "gessl")


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Run]:
    folder = tmp_path_factory.mktemp("runs")
    settings = (*TINY, f"paths.runs={folder}", "evaluation.untrained=true", "trainer.limit_train_batches=2")
    return {method: train(composed(f"method={method}", *settings)) for method in METHODS}


@pytest.fixture
def foreign(runs, tmp_path) -> Run:
    """A copy of a run, to be tampered with."""
    return Run(Path(shutil.copytree(runs["simclr"].folder, tmp_path / "foreign")))


def tamper(run: Run, key: str, value) -> None:
    config = OmegaConf.load(run.config_file)
    OmegaConf.update(config, key, value, merge=False, force_add=True)
    OmegaConf.save(config, run.config_file)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("method", METHODS)
def test_encoder_is_frozen_and_normalises(runs, method):
    encoder = load_encoder(runs[method].folder)
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    state = torch.load(runs[method].checkpoint, weights_only=True)["state_dict"]
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())
    assert all(torch.equal(value, state[name]) for name, value in encoder.network.state_dict().items())
    representations = encoder(images)
    assert torch.equal(representations, encoder(images.float() / 255))
    config = runs[method].config()
    mean, std = config["dataset"]["mean"][0], config["dataset"]["std"][0]
    assert torch.allclose(representations, encoder.network((images / 255 - mean) / std), atol=1e-5)


def test_methods_of_one_seed_start_from_one_encoder(runs):
    """So the report may show the untrained encoder once a seed."""
    untrained = [run.results()["untrained"] for run in runs.values()]
    shared = {name for name in untrained[0] if not name.startswith("embedding")}
    assert len(shared) > 3
    for other in untrained[1:]:
        assert {name: other[name] for name in shared} == {name: untrained[0][name] for name in shared}


def test_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run that has trained"):
        load_encoder(tmp_path)


@pytest.mark.parametrize("status", ["running", "failed", "unfinished"])
def test_a_run_without_a_checkpoint_says_what_it_is(tmp_path, status):
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    run.config_file.touch()
    if status == "failed":
        run.error_file.write_text("ValueError: no such thing\n\nTraceback\n")
    with run.held() if status == "running" else nullcontext(), pytest.raises(UserError) as caught:
        load_encoder(run.folder)
    lacks = "and has no checkpoints/last.ckpt"
    said = {
        "running": f"is running, {lacks}. Wait for its first.",
        "failed": f"has failed, {lacks}: ValueError: no such thing (more in its error.txt). Mend that, ",
        "unfinished": f"is unfinished, {lacks}. Start the same ssl-train again",
    }
    assert str(caught.value).startswith(f"{run.folder} {said[status]}")


def test_what_was_exported_is_no_run(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(UserError, match=r"what ssl-export has written, and no run: its README.md"):
        load_encoder(tmp_path)


@pytest.mark.parametrize(
    ("key", "component"),
    [
        ("method.projector", {"_target_": "os.mkdir", "path": "EVIL"}),
        ("method.projector", {"_target_": "os.mkdir", "path": "EVIL", "_partial_": True}),
        ("method.backbone", {"_target_": "os.mkdir", "path": "EVIL"}),
        ("method.optimizer.algorithm", {"_target_": "os.mkdir", "path": "EVIL"}),
        ("method", {"_target_": "os.mkdir", "path": "EVIL"}),
        ("method.temperature", {"_target_": "os.mkdir", "path": "EVIL"}),
    ],
)
def test_config_that_would_call_something_else_is_refused(foreign, tmp_path, key, component):
    evil = tmp_path / "evil"
    tamper(foreign, key, {k: str(evil) if v == "EVIL" else v for k, v in component.items()})
    with pytest.raises(UserError, match=r"_target_ in .*config.yaml is 'os.mkdir'. A run may come from anywhere"):
        load_encoder(foreign.folder)
    assert not evil.exists()
    with pytest.raises(UserError, match="does not make a"):  # nor is anything made of a wrong kind
        load_encoder(foreign.folder, trusted=["os", "posix"])
    assert not evil.exists()


@pytest.mark.parametrize(
    "inner",
    [
        {"_target_": "os.mkdir", "path": "EVIL"},
        [{"more": {"_target_": "os.mkdir", "_args_": ["EVIL"]}}],
        {"_target_": "ssl_lightning.files.os.mkdir", "path": "EVIL"},
        {"_target_": "torch.nn.Identity", "_args_": [{"_target_": "os.mkdir", "path": "EVIL"}]},
        "\\${oc.create:'{_target_: os.mkdir, path: EVIL}'}",
    ],
    ids=["keyword", "list", "alias", "args", "interpolation"],
)
def test_nothing_hides_in_what_takes_any_arguments(foreign, tmp_path, inner):
    evil = tmp_path / "evil"
    inner = json.loads(json.dumps(inner).replace("EVIL", str(evil)))
    tamper(foreign, "method.backbone", {"_target_": "torch.nn.Identity", "any": inner})
    with pytest.raises(UserError, match=r"A run may come from anywhere|an interpolation"):
        load_encoder(foreign.folder)
    assert not evil.exists()


def test_a_package_of_the_user_is_loaded_where_it_is_named(foreign):
    tamper(foreign, "method.backbone._target_", "tests.parts.small_resnet")
    with pytest.raises(UserError, match=r"trusted=\['tests'\]\), or ssl-evaluate encoder.trusted=\[tests\]"):
        load_encoder(foreign.folder)
    load_encoder(foreign.folder, trusted=["tests"])
    load_encoder(foreign.folder, trusted=None)
    assert RunEncoder(run=str(foreign.folder), trusted=["tests"]).dataset()["name"] == "digits"
    with pytest.raises(UserError, match="A run may come from anywhere"):
        RunEncoder(run=str(foreign.folder)).dataset()


@pytest.mark.parametrize("key", ["logger.evil", "callbacks.evil", "subset", "trainer", "evaluation"])
def test_nothing_but_the_method_is_made(foreign, tmp_path, key):
    evil = tmp_path / "evil"
    tamper(foreign, key, {"_target_": "os.mkdir", "path": str(evil)})
    load_encoder(foreign.folder)
    assert not evil.exists()


def test_nothing_that_a_dataset_names_is_made(foreign, tmp_path):
    evil = tmp_path / "evil"
    tamper(foreign, "dataset.name", {"_target_": "os.mkdir", "path": str(evil)})
    with pytest.raises(UserError, match="A run may come from anywhere"):
        load_encoder(foreign.folder)
    assert not evil.exists()


class _Evil:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_checkpoint_that_would_execute_something_is_refused(foreign, tmp_path):
    torch.save({"state_dict": _Evil(str(tmp_path / "evil"))}, foreign.checkpoint)
    with pytest.raises(UserError, match=r"last\.ckpt is damaged, or no checkpoint of a run"):
        load_encoder(foreign.folder)
    assert not (tmp_path / "evil").exists()


def test_a_machine_without_git_finishes_its_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    run = train(composed(*TINY, f"paths.runs={tmp_path}", "trainer.limit_train_batches=1"))
    assert run.done
    assert run.results()["environment"]["git"] is None


@pytest.mark.reliability(
    "two commands make one run", lost="nothing: the second is told", read="`Another process is working on …`"
)
def test_two_processes_do_not_work_on_one_run(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_lightning.runs.run.PATIENCE", 0.1)
    run = Run(tmp_path)
    with FileLock(tmp_path / ".lock"):
        assert run.status == "running"
        with pytest.raises(UserError, match="Another process is working on"), run.held():
            raise AssertionError("it was given the run")
    with run.held():
        assert run.status == "running"
    assert run.status == "unfinished"


def test_linked_runs_are_found_once_and_circles_end(tmp_path):
    for name in ("sweep/one", "elsewhere/two", "elsewhere/more/three", "unasked/four"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    sweep = tmp_path / "sweep"
    (sweep / "linked").symlink_to(tmp_path / "elsewhere/two")
    (sweep / "again").symlink_to("one")
    (sweep / "more").symlink_to(tmp_path / "elsewhere/more")
    (tmp_path / "elsewhere/more/back").symlink_to(sweep)
    (sweep / "one/above").symlink_to(tmp_path)
    (sweep / "itself").symlink_to(".")
    (sweep / "nowhere").symlink_to("missing")
    assert [run.id for run in find_runs([sweep])] == ["three", "two", "one"]
    (tmp_path / "shown").symlink_to(sweep)
    assert find_runs([tmp_path / "shown", sweep]) == find_runs([sweep])
