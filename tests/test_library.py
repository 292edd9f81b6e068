"""The package as a library: its names, without a command and without Hydra."""

import ast
import subprocess
import sys
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

import ssl_lightning
from ssl_lightning import (
    Augment,
    Digits,
    Encoder,
    GeSSL,
    Mask,
    OptimizerRecipe,
    SimCLR,
    SubsetDataModule,
    Supervised,
    UserError,
    View,
    load_encoder,
    resnet_tiny,
)
from ssl_lightning.commands.train import train
from ssl_lightning.config.places import CONF
from ssl_lightning.runs.run import Run
from tests.callbacks.fitting import trainer
from tests.composing import TINY, composed

TWO = Augment([View(copies=2, crop_scale=(0.4, 1.0))])


def simclr(width: int = 4) -> SimCLR:
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-3, batch_size=128)
    return SimCLR(resnet_tiny(channels=1, width=width), optimizer=recipe)


def digits(mask: Mask | None = None) -> SubsetDataModule:
    return SubsetDataModule(Digits(), mask, augment=TWO, batch_size=128)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("trained")
    paths = [f"paths.{name}={folder / name}" for name in ("runs", "data", "cache")]
    return train(composed(*TINY, *paths, "subset.fraction=0.1"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a plain trainer."""
    file = tmp_path_factory.mktemp("plain") / "digits.ckpt"
    torch.manual_seed(0)
    plain = trainer(max_steps=1)
    plain.fit(simclr(), digits())
    plain.save_checkpoint(file)
    return file


# Names


def test_importing_the_package_imports_nothing_else_of_size():
    """A few milliseconds: Python itself, and none of what takes seconds."""
    code = (
        "import sys; before = set(sys.modules); import ssl_lightning\n"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before} - {'ssl_lightning'}\n"
        "print(sorted(new - sys.stdlib_module_names))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ssl_lightning.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ssl_lightning, name) is not None
    assert name in dir(ssl_lightning)


def test_type_checkers_see_the_same_names():
    statements = ast.parse(Path(ssl_lightning.__file__).read_text()).body
    block = next(node for node in statements if isinstance(node, ast.If))
    seen = {
        (alias.name, str(node.module).removeprefix("ssl_lightning."))
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(ssl_lightning._PUBLIC.items())


def test_a_name_that_there_is_not():
    with pytest.raises(AttributeError, match="has no attribute 'SimCRL'"):
        ssl_lightning.SimCRL  # noqa: B018


USE = """
import lightning as L
from ssl_lightning import Digits, Encoder, SimCLR, SubsetDataModule, __version__, load_encoder, resnet_tiny

encoder: Encoder = load_encoder("run")
reveal_type(encoder.num_features)
reveal_type(encoder.image_size)
reveal_type(SimCLR.load_from_checkpoint("last.ckpt"))
reveal_type(SimCLR(resnet_tiny(channels=1)).backbone)
reveal_type(Digits().test().labels)
reveal_type(__version__)
SimCLR()
load_encoder(1)
from ssl_lightning import SimCRL
"""


@pytest.mark.nightly
def test_mypy_from_outside(tmp_path):
    """What another project's type checker makes of the installed package."""
    (tmp_path / "use.py").write_text(USE)
    cache = Path(__file__).parents[1] / ".mypy_cache" / "outside"
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={cache}", "use.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    lines = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("use.py:")]
    assert lines == [
        'note: Revealed type is "int"',
        'note: Revealed type is "int | None"',
        'note: Revealed type is "ssl_lightning.methods.simclr.SimCLR"',
        'note: Revealed type is "torch.nn.modules.module.Module"',
        'note: Revealed type is "torch._tensor.Tensor"',
        'note: Revealed type is "str"',
        'error: Missing positional argument "backbone" in call to "SimCLR"  [call-arg]',
        'error: Argument 1 to "load_encoder" has incompatible type "int"; expected "str | Path"  [arg-type]',
        'error: Module "ssl_lightning" has no attribute "SimCRL"; maybe "SimCLR"?  [attr-defined]',
    ], done.stdout + done.stderr


# Data


@pytest.mark.parametrize(
    "name", ["Digits", "FashionMNIST", "CIFAR10", "CIFAR100", "STL10", "TinyImageNet", "ImageFolder"]
)
def test_datasets_have_the_defaults_of_their_configs(name):
    made = getattr(ssl_lightning, name)(**({"root": "mine"} if name == "ImageFolder" else {}))
    config = composed(f"dataset={made.name}", *(["dataset.root=mine"] if name == "ImageFolder" else []))
    written = OmegaConf.to_container(config.dataset, resolve=True)
    assert isinstance(written, dict)
    written["nuisance"] = written.get("nuisance") or None
    assert written.pop("_target_") == f"{type(made).__module__}.{name}"
    assert (CONF / "dataset" / f"{made.name}.yaml").exists()
    found = {key: getattr(made, str(key)) for key in written}
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()} == written


def test_data_lie_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("SSL_DATA", "/elsewhere")
    assert ssl_lightning.CIFAR10().root == "/elsewhere"


def test_batches_by_hand_are_those_of_training():
    seen = []

    class Look(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append(batch)

    plain = trainer(Look(), max_steps=2)
    plain.fit(simclr(), digits())
    data = digits()
    batches = [(stored, data.on_after_batch_transfer(stored)) for stored in data.train_dataloader()]
    assert len(batches) == 1257 // 128
    for (stored, made), trained in zip(batches, seen, strict=False):
        assert stored.images.dtype == torch.uint8
        assert torch.equal(made.index, trained.index)
        assert torch.equal(made.views[0], trained.views[0])
    assert not torch.equal(batches[0][1].views[0], batches[1][1].views[0])


# Training


def test_a_plain_trainer_s_rehearsal():
    L.Trainer(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False).fit(simclr(), digits())


def test_a_plain_trainer_logs_the_loss():
    plain = trainer(max_steps=1)
    plain.fit(simclr(), digits())
    assert plain.callback_metrics["loss"] > 0
    assert set(plain.progress_bar_metrics) == {"loss"}
    plain = trainer(max_steps=1)
    plain.fit(GeSSL(simclr(), optimizer=simclr().recipe), digits())
    assert {"loss", "base_loss", "meta_loss"} <= set(plain.callback_metrics)


def test_a_classifier_learns_the_labels_that_it_may():
    data = digits()
    method = Supervised(resnet_tiny(channels=1, width=4), 10, simclr().recipe)
    trainer(max_steps=1).fit(method, data)
    assert method._weights is not None
    assert torch.equal(method._weights == 0, data.dataset.validation())


def test_a_mask_of_one_s_own():
    positions = np.arange(0, 1257, 3)
    data = digits(Mask(positions, "mine", 1 / 3, 1257))
    assert set(torch.cat([batch.index for batch in data.train_dataloader()]).tolist()) <= set(positions.tolist())


# Loading


def test_the_encoder_of_a_plain_checkpoint(checkpoint):
    encoder = load_encoder(checkpoint, method=simclr())
    images = Digits().test().images[:8]
    assert (encoder.num_features, encoder.image_size, encoder.optimizer_steps) == (16, 8, 1)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    backbone = resnet_tiny(channels=1, width=4).eval()
    backbone.load_state_dict({n[9:]: value for n, value in weights.items() if n.startswith("backbone.")})
    expected = backbone((images / 255 - 0.305) / 0.376)
    torch.testing.assert_close(encoder(images), expected)
    torch.testing.assert_close(encoder.backbone((images / 255 - 0.305) / 0.376), expected)


def test_a_plain_checkpoint_does_not_say_what_was_trained(checkpoint):
    with pytest.raises(UserError, match=r"is not the checkpoints/last\.ckpt of a run\. .*method=SimCLR"):
        load_encoder(checkpoint)
    with pytest.raises(UserError, match=r"SimCLR\.load_from_checkpoint\(.*backbone=\.\.\.\)"):
        SimCLR.load_from_checkpoint(checkpoint)
    with pytest.raises(UserError, match="holds the weights of another method"):
        load_encoder(checkpoint, method=simclr(width=8))


def test_a_checkpoint_of_other_data_does_not_say_how_images_were_normalised(checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    for said in (None, {"mean": ["x"], "std": [0.1], "image_size": 8}, {"mean": [0.1], "std": [0.1, 0.2]}):
        torch.save({**content, "SubsetDataModule": said}, tmp_path / "other.ckpt")
        with pytest.raises(UserError, match="does not say how images were normalised"):
            load_encoder(tmp_path / "other.ckpt", method=simclr())


def test_a_method_from_a_plain_checkpoint(checkpoint):
    method = SimCLR.load_from_checkpoint(checkpoint, backbone=resnet_tiny(channels=1, width=4))
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())


def test_a_method_from_the_checkpoint_of_a_run(run, tmp_path):
    """Wherever it lies."""
    copied = tmp_path / "mine.ckpt"
    copied.write_bytes(run.checkpoint.read_bytes())
    method = SimCLR.load_from_checkpoint(copied)
    weights = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(value, weights[name]) for name, value in method.state_dict().items())
    with pytest.raises(UserError, match="is of SimCLR, and not of GeSSL"):
        GeSSL.load_from_checkpoint(run.checkpoint)


def test_a_foreign_checkpoint_makes_nothing_but_parts_of_methods(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    content = torch.load(run.checkpoint, weights_only=True)
    content["method"]["backbone"] = {"_target_": "os.mkdir", "path": "EVIL"}
    torch.save(content, "sent.ckpt")
    with pytest.raises(UserError, match="A run may come from anywhere"):
        SimCLR.load_from_checkpoint("sent.ckpt")
    torch.save({"state_dict": {}, "anything": Path("x")}, "pickled.ckpt")
    with pytest.raises(UserError, match=r"pickled\.ckpt cannot be read as a checkpoint"):
        SimCLR.load_from_checkpoint("pickled.ckpt")
    assert {file.name for file in tmp_path.iterdir()} == {"sent.ckpt", "pickled.ckpt"}
    torch.save({**torch.load(run.checkpoint, weights_only=True), "state_dict": {}}, "sent.ckpt")
    with pytest.raises(UserError, match=r"holds other weights than it says: .*Missing key"):
        SimCLR.load_from_checkpoint("sent.ckpt")
    endless: dict[str, object] = {"_target_": "torch.nn.Identity"}
    endless["any"] = endless
    torch.save({"state_dict": {}, "method": endless}, "sent.ckpt")
    with pytest.raises(UserError, match=r"sent\.ckpt cannot be read as a checkpoint: Circular"):
        SimCLR.load_from_checkpoint("sent.ckpt")


def test_an_encoder_of_a_run_by_its_folder_and_by_its_checkpoint(run):
    images = Digits().test().images[:8]
    encoder = load_encoder(run.folder)
    assert (encoder.num_features, encoder.image_size) == (16, 8)
    assert torch.equal(encoder(images), load_encoder(run.checkpoint)(images))


# What others make of an encoder


def other_encoder(kind: str) -> Encoder:
    method = GeSSL(simclr()) if kind == "gessl" else simclr()
    return Encoder(method, [0.3], [0.4], method.project, image_size=8)


@pytest.mark.parametrize("kind", ["simclr", "gessl"])
def test_the_backbone_of_an_encoder_is_a_plain_module(kind):
    encoder = other_encoder(kind)
    assert not isinstance(encoder.backbone, L.LightningModule)
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(encoder(images), encoder.backbone((images - 0.3) / 0.4))


EXPORTED = """
import sys
import torch
from ssl_lightning import load_encoder

encoder = load_encoder(sys.argv[1])
images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
many = images.repeat(3, 1, 1, 1)
for network, few, more in (encoder, images, many), (encoder.backbone, images / 255, many / 255):
    exported = torch.export.export(network, (few,), dynamic_shapes=({0: torch.export.Dim("n")},)).module()
    traced = torch.jit.trace(network, few)
    for other in exported, traced:
        torch.testing.assert_close(other(more), network(more))
print("same")
"""


@pytest.mark.nightly
def test_torch_export_and_torch_jit_trace(run):
    """In a process of its own: in this one the shapes of all tensors are looked at, which would become a part."""
    command = [sys.executable, "-W", "ignore", "-c", EXPORTED, str(run.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "same\n", done.stderr


# The page


@pytest.mark.nightly
def test_the_page_without_hydra(tmp_path):
    page = Path(__file__).parents[1] / "examples" / "without_hydra.py"
    code = page.read_text().replace("max_epochs=10", "max_epochs=1")
    assert code != page.read_text()
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout.rpartition("k-NN accuracy: ")[2]) > 0.5
    assert [str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*.*")] == ["runs/simclr.ckpt"]
