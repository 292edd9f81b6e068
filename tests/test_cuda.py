"""A GPU computes what the CPU does, and waits for nothing in between. Without one, the CPU is asked the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.callbacks.checkpoint import LastCheckpoint
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.seeds import StepSeeds
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.config.components import make
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.ahead import Ahead
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.corruptions import KINDS, corrupt
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.loading import ResidentLoader
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.sampler import BatchSampler
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.suite import EvaluationSuite
from ssl_lightning.losses import partition
from ssl_lightning.losses.contrastive import info_nce, nt_xent
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.pipeline.pretrain import pretrain
from tests.composing import TINY, composed

CPU = torch.device("cpu")
METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
AUGMENTS = sorted(file.stem for file in (CONF / "augment").glob("*.yaml"))
EVERY = 4  # optimizer steps of a row of metrics
Config = Callable[..., dict[str, Any]]


@pytest.fixture(
    params=[
        "cpu",
        pytest.param(
            "cuda",
            marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")],
        ),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Where float32 is not TF32."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(request.param)


@pytest.fixture
def config() -> Iterator[Config]:
    def of(*overrides: str) -> dict[str, Any]:
        return resolve(composed(*TINY, *overrides))

    yield of
    HydraConfig.instance().cfg = None


def relative(found: torch.Tensor, reference: torch.Tensor) -> float:
    """Length of the difference over that of the reference."""
    found, reference = found.detach().double().cpu(), reference.detach().double()
    return float((found - reference).norm() / reference.norm())


@pytest.mark.one_in(8)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_views_are_those_of_the_cpu(device, config, augment):
    """A pixel at the threshold of solarisation may fall to its other side."""
    made = make(config(f"augment={augment}")["augment"])
    images = torch.randint(0, 256, (32, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))

    def views(device: torch.device, seed: int) -> tuple[torch.Tensor, ...]:
        mean, std = torch.full((3,), 0.4, device=device), torch.full((3,), 0.2, device=device)
        return made(images.to(device), mean, std, torch.Generator().manual_seed(seed))

    for one, reference, other in zip(views(device, 0), views(CPU, 0), views(CPU, 1), strict=True):
        assert one.device.type == device.type
        apart = (one.cpu() - reference).abs() > 1e-4
        assert apart.float().mean() < 1e-3
        assert relative(other, reference) > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_corruptions_are_those_of_the_cpu(device, kind):
    """Of JPEG, rounding may turn a coefficient by a whole step."""
    images = torch.randint(0, 256, (4, 3, 30, 44), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    made, expected = (corrupt(images.to(on), kind, 4, torch.Generator().manual_seed(0)).cpu() for on in (device, CPU))
    if kind != "jpeg_compression":
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)
    assert (made - expected).abs().mean() < 1e-3


@pytest.mark.nightly
def test_views_made_ahead_are_those_made_in_time(device, config):
    """While the device is busy, and what they were made in is given to others."""
    made = config("batch_size=256")
    module = SubsetDataModule(make(made["dataset"]), augment=make(made["augment"]), batch_size=256)
    module.prepare_data()
    split = module.dataset.train()
    assert isinstance(split.images, torch.Tensor)
    on_device = Split(split.images.to(device), split.labels.to(device))
    loader = ResidentLoader(on_device, BatchSampler(torch.arange(1024), 256, 0), lambda: 0)
    expected = [module._views(loader.batch(number), number).views[0].cpu() for number in range(8)]
    ahead = Ahead(loader, module._views, device)
    busy = torch.randn(1024, 1024, device=device)
    found = []
    for number in range(8):
        (views,) = ahead.batch(number).views
        ahead.begin()
        for _ in range(20):
            busy = (busy @ busy).tanh()
        found.append(views.clone())
        del views
    ahead.stop()
    assert all(torch.equal(one.cpu(), other) for one, other in zip(found, expected, strict=True))
    assert not torch.equal(found[0], found[1])


@pytest.mark.parametrize("how", ["whole", "tiles"])
@pytest.mark.parametrize("temperature", [0.5, 0.01])
@pytest.mark.parametrize("loss", [nt_xent, info_nce])
def test_losses_are_those_of_float64(device, monkeypatch, loss, temperature, how):
    z = torch.randn(2, 60, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def value_and_gradient(z: torch.Tensor, large: float) -> tuple[torch.Tensor, torch.Tensor]:
        monkeypatch.setattr(partition, "LARGE", large)
        monkeypatch.setattr(partition, "TILE", {"cpu": 16, "cuda": 16})
        z = z.clone().requires_grad_()
        value = loss(z, temperature)
        return value, torch.autograd.grad(value, z)[0]

    value, gradient = value_and_gradient(z, torch.inf)
    found, found_gradient = value_and_gradient(z.float().to(device), 0 if how == "tiles" else torch.inf)
    assert found_gradient.device.type == device.type
    assert found.item() == pytest.approx(value.item(), rel=1e-5)
    assert relative(found_gradient, gradient) < 1e-4


def step(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> tuple[torch.Tensor, ...]:
    """Loss, gradient, and weights after a step, of all parameters of a method."""
    torch.manual_seed(0)
    method: SSLMethod = make(config["method"]).to(dtype).to(device)
    method.choose_images(torch.arange(32), torch.zeros(32, dtype=torch.bool))
    assert method.recipe is not None
    optimizer, _ = method.recipe.build(method.parameter_groups(), 10, 10)
    views = torch.randn(2, 32, 1, 8, 8, generator=torch.Generator().manual_seed(1)).to(device, dtype)
    index = torch.arange(32, device=device)
    objective = method.ssl_loss(Batch((views,), index % 10, index), LOCAL, Draw())
    objective.loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    optimizer.step()
    method.after_step(objective, LOCAL, 0.1)
    return objective.loss.detach(), gradient, torch.nn.utils.parameters_to_vector(method.parameters())


@pytest.mark.one_in(24)
@pytest.mark.parametrize("method", METHODS)
def test_a_step_is_that_of_float64(device, config, method):
    made = config(f"method={method}", "optimizer=sgd", "backbone.width=8")
    loss, gradient, weights = step(made, device, torch.float32)
    expected, expected_gradient, expected_weights = step(made, CPU, torch.float64)
    assert gradient.device.type == device.type
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert relative(gradient, expected_gradient) < 1e-2  # the input of a ReLU may round to the other side of zero
    assert relative(weights, expected_weights) < 1e-4


class Strict(L.Callback):
    """From the second batch on, whatever waits for the device raises, but for the end of a batch that makes a row.

    It comes first: it sees the end of a batch before those who may wait there. `batches` are those in which it was
    strict to the end. A CPU is never waited for.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.batches: list[int] = []

    def be(self, mode: str) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_sync_debug_mode(mode)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.be("error" if batch_idx else "default")

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.be("default")  # else what cleans up would hide it

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if (batch_idx + 1) % EVERY == 0:
            self.be("default")
        elif batch_idx:
            self.batches.append(batch_idx)


@pytest.mark.one_in(24)
@pytest.mark.parametrize("method", METHODS)
def test_nothing_waits_for_the_device_between_two_rows(device, config, method, tmp_path):
    """Of a whole training. What values are read on the host is seen without a GPU too: tests/test_no_waiting.py."""
    made = config(f"method={method}", "batch_size=32")
    strict, recorder = Strict(device), Recorder()
    mask = Mask(np.arange(384), "first", 384 / 1257, 1257)
    data = SubsetDataModule(make(made["dataset"]), mask, augment=make(made["augment"]), batch_size=32)
    network: SSLMethod = make(made["method"])
    trainer = L.Trainer(
        accelerator=device.type,
        devices=1,
        max_epochs=1,
        log_every_n_steps=EVERY,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        callbacks=[
            strict,
            StepSeeds(0),
            OnlineProbe(),
            recorder,
            LastCheckpoint(tmp_path / "last.ckpt", recorder, every_minutes=5.0, every_steps=None),
            StopTogether(),
        ],
    )
    try:
        trainer.fit(network, data)
    finally:
        strict.be("default")
    assert strict.batches == [1, 2, 4, 5, 6, 8, 9, 10]
    assert recorder.images_seen == 384


def test_probes_are_those_of_the_cpu(device):
    generator = torch.Generator().manual_seed(0)
    centres, labels = torch.randn(5, 12, generator=generator), torch.arange(400) % 5
    x = centres[labels] + 1.5 * torch.randn(400, 12, generator=generator)
    train, test = (Features(x[some], x[some], labels[some]) for some in (slice(0, 300), slice(300, 400)))
    suite = EvaluationSuite(few_shots=[3], few_percents=[], draws=2, l2_grid=[1e-1, 1e-3])
    validation = torch.arange(300) < 50
    found, expected = (suite(train, test, validation, 5, where).metrics for where in (device, CPU))
    assert found.keys() == expected.keys()
    assert 0.3 < expected["knn/top1"] < 1
    for name in expected:  # a test image on the border of two classes may change sides
        assert found[name] == pytest.approx(expected[name], rel=1e-3, abs=0.011 if "top1" in name else 0), name


def test_the_same_seed_gives_the_same_numbers(device, config, tmp_path, monkeypatch):
    """With deterministic algorithms, to the last bit."""
    monkeypatch.setattr("ssl_lightning.pipeline.finished.run_figures", lambda run, results: {})
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    def metrics(folder: Path, seed: int) -> dict[str, float]:
        trainer = f"trainer={'gpu' if device.type == 'cuda' else 'cpu'}"
        options = ["batch_size=64", "+trainer.deterministic=true", f"paths.runs={folder}", f"seed={seed}"]
        return pretrain(config(trainer, *options, "+trainer.limit_train_batches=4")).results()["metrics"]

    try:
        first, again, other = (
            metrics(tmp_path / name, seed) for name, seed in (("first", 0), ("again", 0), ("other", 1))
        )
    finally:
        torch.use_deterministic_algorithms(False)
    assert first == again
    assert first != other
