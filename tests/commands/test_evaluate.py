"""ssl-evaluate: any encoder on any dataset, without touching what a run has left."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.sources import RunEncoder, TimmEncoder, TorchvisionEncoder, encoder_digest
from ssl_lightning.progress import in_log
from ssl_lightning.runs.loading import load_encoder
from ssl_lightning.runs.run import Run, find_runs
from tests.data.synthetic import write_fashion_mnist, write_image_folder
from tests.processes import Signal, ssl_train, started, two_processes

PROBES = ("evaluation.l2_grid=[0.01]", "evaluation.few_shots=[1]", "evaluation.few_percents=[]", "evaluation.draws=1")
ARGUMENTS = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    *PROBES,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    ended = ssl_train(folder, *ARGUMENTS)
    assert ended.code == 0, ended.output
    (run,) = find_runs([folder / "runs"])
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(trained.folder, tmp_path / "runs" / "default" / trained.id)))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def evaluated(run: Run) -> list[dict]:
    """What was measured; not how long it took, which is never the same."""
    made = [json.loads(file.read_text()) for file in sorted(run.folder.glob("evaluations/*.json"))]
    assert all(one.pop("cost")["evaluation_seconds"] > 0 for one in made)
    return made


@pytest.mark.nightly
def test_a_run_on_its_own_dataset_has_the_metrics_that_it_had(command, run):
    before = content(run.folder)
    done = command("ssl-evaluate", f"run={run.folder}", *PROBES)
    assert done.code == 0, done.err
    (result,) = evaluated(run)
    assert result["metrics"] == pytest.approx(run.results()["metrics"], rel=1e-6)
    for name, values in run.results()["spectra"].items():
        assert result["spectra"][name] == pytest.approx(values, rel=1e-5)
    assert {name: text for name, text in content(run.folder).items() if not name.startswith("evaluations")} == before
    assert "linear/top1" in done.out
    file = next(run.folder.glob("evaluations/*.json"))
    assert str(file) in done.out.replace("\n", "")


def empty(file: Path) -> None:
    file.write_text("")


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link_out(file: Path) -> None:
    file.symlink_to(file.rename(file.parents[2] / "elsewhere.json"))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("damage", [empty, pipe, link_out])
def test_an_evaluation_that_is_damaged_is_made_again(command, run, damage):
    assert command("ssl-evaluate", f"run={run.folder}", *PROBES).code == 0
    (file,) = run.folder.glob("evaluations/*.json")
    whole = evaluated(run)
    damage(file)
    done = command("ssl-evaluate", f"run={run.folder}", *PROBES)
    assert done.code == 0, done.err
    (warning,) = (line for line in done.err.splitlines() if line.startswith("Warning: "))
    assert str(file) in warning
    assert warning.endswith(" It is made again.")
    assert evaluated(run) == whole
    assert not file.is_symlink()


def test_features_are_made_once_and_serve_every_evaluation(command, run, tmp_path, monkeypatch):
    assert command("ssl-evaluate", f"run={run.folder}", *PROBES).code == 0
    made = sorted((tmp_path / "cache" / "features").rglob("*.npy"))
    assert len(made) == 4  # representations and embeddings of train and test
    from ssl_lightning.evaluation import features

    def forbidden(*_, **__):
        raise AssertionError("features were made again")

    monkeypatch.setattr(features, "extract", forbidden)
    checkpoint = run.folder / "checkpoints" / "last.ckpt"
    assert command("ssl-evaluate", f"run={checkpoint}", *PROBES, "evaluation.k=5").code == 0
    assert len(evaluated(run)) == 2
    again = command("ssl-evaluate", f"run={run.folder}", *PROBES, "evaluation.k=5")
    assert again.code == 0
    assert "knn/top1" in again.out
    assert len(evaluated(run)) == 2


def test_of_a_run_that_may_go_on_it_says_so(command, run):
    def lines() -> list[str]:
        done = command("ssl-evaluate", f"run={run.folder}", *PROBES)
        assert done.code == 0, done.err
        return done.out.splitlines()

    assert not any("last checkpoint" in line for line in lines())
    (run.folder / "DONE").unlink()
    steps = run.results()["cost"]["optimizer_steps"]
    said = f"evaluated is its last checkpoint, of optimizer step {steps}"
    run.results_file.unlink()
    assert f"{run.id} is unfinished: {said}" in lines()
    with run.held():
        assert f"{run.id} is running: {said}" in lines()


def test_another_dataset(command, run, tmp_path):
    write_fashion_mnist(tmp_path / "data", num_train=60, num_test=40)
    done = command("ssl-evaluate", f"run={run.folder}", "dataset=fashion_mnist", *PROBES)
    assert done.code == 0, done.err
    (result,) = evaluated(run)
    assert result["dataset"] == "fashion_mnist"
    assert 0 <= result["metrics"]["knn/top1"] <= 1
    write_image_folder(tmp_path / "colours")
    refused = command("ssl-evaluate", f"run={run.folder}", "dataset=image_folder", "dataset.root=colours", *PROBES)
    assert refused.code == 1
    assert "sees images of 1 channel, but those of image_folder have 3" in refused.err
    grey = ("dataset=image_folder", "dataset.root=colours", "dataset.channels=1", "dataset.image_size=8")
    done = command("ssl-evaluate", f"run={run.folder}", *grey, *PROBES)  # normalised as the encoder normalises
    assert done.code == 0, done.err


def test_evaluation_by_sgd(command, run):
    done = command("ssl-evaluate", f"run={run.folder}", "evaluation=sgd", "evaluation.few_shots=[]")
    assert done.code == 0, done.err
    (result,) = evaluated(run)
    assert abs(result["metrics"]["linear_sgd/top1"] - run.results()["metrics"]["linear/top1"]) < 0.15


@pytest.mark.nightly
def test_two_processes_give_the_evaluation_of_one(run, tmp_path):
    shutil.copytree(run.folder, tmp_path / "copy" / run.id)
    results = []
    for folder, trainer in ((run.folder, "cpu"), (tmp_path / "copy" / run.id, "ddp_cpu")):
        arguments = [f"run={folder}", f"trainer={trainer}", f"paths.cache={folder}/../cache", *PROBES]
        start = two_processes if trainer == "ddp_cpu" else lambda *args, **options: [ssl_train(*args, **options)]
        for ended in start(tmp_path, *arguments, command="ssl-evaluate"):
            assert ended.code == 0, ended.output
        results.append(evaluated(Run(folder))[0])
    assert results[0] == results[1]


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "run has no value"),
        (("run=nowhere",), "nowhere is no run that has trained"),
        (("encoder=torchvision", "encoder.weights=null"), "dataset has no value"),
        (("encoder=torchvision", "encoder.architecture=resnet51", "dataset=digits"), "did you mean 'resnet50'?"),
        (("run=nowhere", "datset=digits"), "datset"),
        (("run=nowhere/checkpoints/epoch5.ckpt",), "only checkpoints/last.ckpt is read"),
        (("encoder=torchvision", "encoder.weights=/etc/passwd", "dataset=digits"), "/etc/passwd is no file of weights"),
        (
            ("encoder=torchvision", "encoder.architecture=squeezenet1_0", "encoder.weights=null", "dataset=digits"),
            "ends in",
        ),
    ],
)
def test_wrong_input(command, arguments, message):
    done = command("ssl-evaluate", *arguments)
    assert done.code == 1
    assert message in done.err
    assert len(done.err.splitlines()) == 1


def torchvision_encoder(weights: str | None = None) -> TorchvisionEncoder:
    return TorchvisionEncoder(architecture="resnet18", weights=weights, size=32, mean=[0.5] * 3, std=[0.2] * 3)


@pytest.mark.nightly
def test_an_encoder_of_torchvision(command, tmp_path):
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18(num_classes=7)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "weights.pth")
    encoder = torchvision_encoder(str(tmp_path / "weights.pth")).load()
    images = Digits(name="d", image_size=8, channels=1, num_classes=10, mean=[0.3], std=[0.3]).test().images[:5]
    representations = encoder(images)
    network.fc = torch.nn.Identity()
    grey = torch.nn.functional.interpolate(images.float() / 255, (32, 32), mode="bilinear", antialias=True)
    expected = network.eval()((grey.expand(-1, 3, -1, -1) - 0.5) / 0.2)
    torch.testing.assert_close(representations, expected.detach())

    arguments = ("encoder=torchvision", "encoder.architecture=resnet18", "encoder.size=16", "dataset=digits")
    done = command("ssl-evaluate", *arguments, "encoder.weights=weights.pth", *PROBES)
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("runs/encoders/resnet18-*/evaluations/digits-*.json")
    assert json.loads(file.read_text())["metrics"]["knn/top1"] > 0.5  # even at random weights

    del network.conv1
    torch.save(network.state_dict(), tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"half\.pth holds no weights of this architecture: it holds no conv1"):
        torchvision_encoder(str(tmp_path / "half.pth")).load()


def test_a_checkpoint_with_code_in_it_is_refused(tmp_path):
    import pickle

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match=r"evil\.pth holds more than weights, or none"):
        torchvision_encoder(str(tmp_path / "evil.pth")).load()
    assert not (tmp_path / "executed").exists()


def test_the_dataset_of_a_foreign_run_executes_nothing(command, run, tmp_path):
    config = run.config()
    config["dataset"] = {"_target_": "builtins.open", "file": str(tmp_path / "executed"), "mode": "w"}
    run.config_file.write_text(json.dumps(config))
    for more, message in (
        ((), "is 'builtins.open'. A run may come from anywhere"),
        (("encoder.trusted=[builtins,io,_io]",), "which does not make a ssl_lightning.data.dataset.ImageDataset"),
    ):
        done = command("ssl-evaluate", f"run={run.folder}", *PROBES, *more)
        assert done.code == 1
        assert message in done.err
        assert not (tmp_path / "executed").exists()


@pytest.mark.nightly
def test_random_weights_are_those_of_every_call(command, tmp_path):
    arguments = ("encoder=torchvision", "encoder.architecture=resnet18", "encoder.size=16", "encoder.weights=null")
    for fraction in (0.1, 0.1, 0.2):
        done = command("ssl-evaluate", *arguments, "dataset=digits", f"dataset.validation_fraction={fraction}", *PROBES)
        assert done.code == 0, done.err
    assert len(list(tmp_path.glob("runs/encoders/*/evaluations/*.json"))) == 2
    assert len(list(tmp_path.glob("cache/features/*/train/*.npy"))) == 1  # no projector: one kind of features


def test_an_encoder_of_timm(tmp_path):
    pytest.importorskip("timm", reason="timm is not installed: pip install 'ssl-lightning[timm]'")
    settings = {"architecture": "resnet10t", "pretrained": False, "size": 32}
    encoder = TimmEncoder(**settings, checkpoint=None).load()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    assert encoder(images).shape == (2, 512)
    torch.save(encoder.network.state_dict(), tmp_path / "weights.pth")
    again = TimmEncoder(**settings, checkpoint=str(tmp_path / "weights.pth")).load()
    assert torch.equal(again(images), encoder(images))
    assert encoder_digest(again) == encoder_digest(encoder)
    with pytest.raises(UserError, match="timm cannot make it"):
        TimmEncoder(**{**settings, "architecture": "resnet10tt"}, checkpoint=None).load()


def test_the_hash_of_an_encoder_changes_with_weights_normalisation_and_size(run):
    source = RunEncoder(run=str(run.folder))
    encoder = source.load()
    key = encoder_digest(encoder)
    assert key == encoder_digest(load_encoder(run.folder))
    encoder.size = 9
    assert encoder_digest(encoder) != key
    encoder.size = None
    encoder.mean += 1
    assert encoder_digest(encoder) != key
    encoder.mean -= 1
    for module in encoder.network.modules():
        if isinstance(module, torch.nn.ReLU):
            module.__class__ = torch.nn.GELU
            module.approximate = "none"
    assert encoder_digest(encoder) != key
    encoder = source.load()
    next(encoder.network.parameters()).data.view(-1)[0] += 1
    assert encoder_digest(encoder) != key


def broken(run: Run, value: float) -> None:
    """Its last checkpoint, with this value for a weight."""
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("backbone."))
    checkpoint["state_dict"][name].view(-1)[0] = value
    torch.save(checkpoint, run.checkpoint)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("evaluation", ["standard", "finetune", "corruptions"])
def test_weights_that_are_not_finite_are_refused_at_once(command, run, evaluation):
    broken(run, float("nan"))
    done = command("ssl-evaluate", f"run={run.folder}", f"evaluation={evaluation}")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "has weights that are not finite: backbone." in done.err
    assert "1 of " in done.err
    assert not evaluated(run)


def test_a_log_has_a_line_a_stage(command, run):
    done = command("ssl-evaluate", f"run={run.folder}", *PROBES)
    assert done.code == 0, done.err
    begun = [line.strip() for line in done.out.splitlines() if line.startswith("  ")]
    assert begun == [
        "features of train: 1,257 images",
        "features of test: 540 images",
        "linear probe: 1,257 images, settings tried: 1",
        "probes on few labels: 1 a class, draws of each: 1",
        "nearest neighbours: 540 images, among 1,257",
    ]
    assert f"{run.id} on digits\n" in done.out  # in one line
    again = command("ssl-evaluate", f"run={run.folder}", "evaluation=map")
    assert "features of" not in again.out


def test_stages_are_no_lines_beside_a_bar(capsys, monkeypatch):
    in_log("features")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    in_log("features")
    assert capsys.readouterr().out == "  features\n"


@pytest.mark.nightly
def test_of_two_commands_at_once_one_measures(run, tmp_path):
    asked = (f"run={run.folder}", "trainer=cpu", *PROBES)
    with (
        started(tmp_path, *asked, command="ssl-evaluate", output="1.txt") as first,
        started(tmp_path, *asked, command="ssl-evaluate", output="2.txt") as second,
    ):
        outputs = [wait() for wait in (first, second)]
    assert [one.code for one in outputs] == [0, 0], outputs
    assert sorted("looks at" in one.output for one in outputs) == [False, True]
    assert all("knn/top1" in one.output for one in outputs)
    assert len(evaluated(run)) == 1


@pytest.mark.nightly
def test_a_command_that_was_killed_leaves_nothing_to_the_next(command, run, tmp_path):
    asked = (f"run={run.folder}", "trainer=cpu", *PROBES)
    at = Signal("ssl_lightning.files._sync", 5)  # four of the two DONE files of features, and their folders
    assert ssl_train(tmp_path, *asked, command="ssl-evaluate", at=at).code == -signal.SIGKILL
    assert len([*run.folder.rglob("*.part")]) == 1
    assert not evaluated(run)
    done = command("ssl-evaluate", *asked, "evaluation.k=3")  # any other one
    assert done.code == 0, done.err
    assert "features of" not in done.out
    assert not [*run.folder.rglob("*.part")]


@pytest.fixture
def several(run: Run) -> list[Run]:
    """Two runs with results, and one that was only begun, in one sweep; their names are no plain words for Hydra."""
    other, begun = (
        Run(Path(shutil.copytree(run.folder, run.folder.with_name(name)))) for name in ("b = (2),", "begun")
    )
    for file in ("DONE", "results.json"):
        (begun.folder / file).unlink()
    return [run, other, begun]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("given", ["{sweep}/*", "'{sweep}/[a-z]*'", "{sweep}", "{sweep}/.."])
def test_several_runs_at_once(command, several, given):
    sweep = several[0].folder.parent
    done = command("ssl-evaluate", f"run={given.format(sweep=sweep)}", *PROBES)
    assert done.code == 0, done.err
    assert [len(evaluated(run)) for run in several] == [1, 1, 0]
    assert "1 of 3 runs are left out, as they have no results" in done.out
    assert done.out.count(" images of digits") == 2


def test_a_pattern_of_one_run(command, run):
    done = command("ssl-evaluate", f"run={run.folder.parent}/simclr-*", *PROBES)
    assert done.code == 0, done.err
    assert "#0" not in done.out  # no multirun
    assert len(evaluated(run)) == 1


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{sweep}/nothing*", "no runs there. Name"),
        ("{sweep}/empty", "no runs there. Name"),
        ("{sweep}/begun*", "1 run there, none of them with results. Name"),
    ],
)
def test_a_pattern_of_no_run(command, several, given, said):
    sweep = several[0].folder.parent
    (sweep / "empty").mkdir()
    done = command("ssl-evaluate", f"run={given.format(sweep=sweep)}", *PROBES)
    assert done.code == 1
    assert done.err.startswith("Error: run=")
    assert f": {said} the folder of one, or of a sweep" in done.err
