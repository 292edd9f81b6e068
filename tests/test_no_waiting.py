"""Nothing in a step waits for the device: no value of a tensor is read on the host between two rows of metrics."""

import itertools
import os
import traceback
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_lightning.callbacks.checkpoint import LastCheckpoint
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.progress import Progress
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.seeds import StepSeeds
from ssl_lightning.callbacks.selecting import Selecting
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.config.components import make
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.mask import Mask
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.optim.clock import Clock
from ssl_lightning.selection.scan import Scan
from tests.composing import TINY, composed

METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
OPTIMIZERS = sorted(file.stem for file in (CONF / "optimizer").glob("*.yaml"))
AUGMENTS = sorted(file.stem for file in (CONF / "augment").glob("*.yaml"))
EVERY = 4  # optimizer steps of a row of metrics
WHOLE = ("simclr", "dino", "gessl", "supervised", "adamw")
"""What is trained to see it read nothing. Each method and each optimizer makes a step where nothing can be read, and
whole trainings of the others are left to the nightly tests."""


class Reads(TorchDispatchMode):
    """Counts how often the value of a tensor is read, but for the step counts of optimizers, which lie on the host
    and are found by the frames that read them.

    `at` holds the number of batches before each read, `places` where it happened.
    """

    def __init__(self, method: SSLMethod) -> None:
        super().__init__()
        self.method = method
        self.at: list[int] = []
        self.places: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            frames = traceback.extract_stack()
            if not any(f"torch{os.sep}optim{os.sep}" in frame.filename for frame in frames):
                self.at.append(self.method.batches)
                outer = [frame for frame in frames[:-1] if f"{os.sep}torch{os.sep}" not in frame.filename]
                self.places.append(f"{outer[-1].filename}:{outer[-1].lineno} {outer[-1].line}")
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def config() -> Any:
    from hydra.core.hydra_config import HydraConfig

    def of(*overrides: str) -> dict[str, Any]:
        plain = resolve(composed(*TINY, "batch_size=32", *overrides))
        HydraConfig.instance().cfg = None
        return plain

    return of


def reads_of_training(rank: int, config: dict[str, Any], world_size: int, folder: str) -> tuple[list[int], list[str]]:
    """Three rows of metrics, with bar, online probe, checkpoints and what stops processes together."""
    from pathlib import Path

    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
    environment |= {"GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29400}
    if world_size > 1:
        os.environ |= {key: str(value) for key, value in environment.items()}
    torch.manual_seed(0)
    method = make(config["method"])
    dataset = make(config["dataset"])
    augment = make(config["augment"])
    positions = np.arange(384, dtype=np.int64)
    data = SubsetDataModule(dataset, Mask(positions, "first", 384 / 1257, 1257), augment=augment, batch_size=32)
    recorder = Recorder()
    checkpoint = LastCheckpoint(Path(folder) / "last.ckpt", recorder, every_minutes=5.0, every_steps=None)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world_size,
        strategy="ddp" if world_size > 1 else "auto",
        max_epochs=1,
        log_every_n_steps=EVERY,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        callbacks=[Progress(refresh_rate=1), StepSeeds(0), OnlineProbe(), recorder, checkpoint, StopTogether()],
    )
    with Reads(method) as reads:
        trainer.fit(method, data)
    assert method.batches == 12
    assert recorder.row["loss"] != 0
    assert recorder.row["online/loss"] > 0
    return reads.at, reads.places


def unexpected(at: list[int], places: list[str]) -> list[str]:
    """Where values were read other than for a row of metrics, or before the first batch."""
    return [f"batch {number}: {place}" for number, place in zip(at, places, strict=True) if number % EVERY]


def trained(names: list[str]) -> list[Any]:
    return [pytest.param(name, marks=() if name in WHOLE else pytest.mark.nightly) for name in names]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("method", trained(METHODS))
def test_no_value_is_read_between_two_rows(method, config, tmp_path):
    at, places = reads_of_training(0, config(f"method={method}"), 1, str(tmp_path))
    assert unexpected(at, places) == []
    assert {4, 8, 12} <= set(at)  # so reads are seen at all


@pytest.mark.parametrize("optimizer", trained(OPTIMIZERS))
def test_no_optimizer_reads_a_value(optimizer, config, tmp_path):
    at, places = reads_of_training(0, config(f"optimizer={optimizer}"), 1, str(tmp_path))
    assert unexpected(at, places) == []


@pytest.mark.nightly
def test_no_value_of_the_device_is_read_between_two_rows_by_two_processes(pair, config, tmp_path):
    """On a CPU, `StopTogether` asks after each step whether to stop: there is no device to wait for."""
    for at, places in pair(reads_of_training, config("method=simclr"), 2, str(tmp_path)):
        others = [place for place in unexpected(at, places) if f"callbacks{os.sep}stopping.py" not in place]
        assert others == []


def step_on_meta(config: dict[str, Any], images: torch.Tensor, mean: Any, std: Any) -> None:
    """One whole step where reading any value of the device raises: host draws are real, device tensors are meta."""
    device = torch.device("meta")
    method: SSLMethod = make(config["method"]).to(device)
    augment = make(config["augment"])
    optimizer, scheduler = method.recipe.build(method.parameter_groups(), 10, 100)
    n = len(images)
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=-1,
        max_steps=1000,
        log_every_n_steps=1000,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    method.trainer = trainer
    trainer.optimizers = [optimizer]
    mask = Mask(np.arange(64), "first", 0.05, 1257)
    trainer.datamodule = SubsetDataModule(make(config["dataset"]), mask, augment=augment, batch_size=n)
    recorder, probe, selecting = Recorder(), OnlineProbe(), Selecting(Scan())
    selecting._new = torch.zeros(2, 1257, device=device)
    method.clock = Clock(1000, 100)
    recorder.on_train_start(trainer, method)
    probe.on_fit_start(trainer, method)
    index = torch.arange(n, device=device)
    for _ in range(2):
        views = augment(images, mean, std, torch.Generator().manual_seed(0))
        batch = Batch(views, torch.zeros(n, dtype=torch.int64, device=device), index)
        recorder.on_train_batch_start(trainer, method, batch, 0)
        objective = method.ssl_loss(batch, LOCAL, Draw())
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        scheduler.step()
        method.batches += 1
        method.after_step(objective, LOCAL, 0.5)
        outputs = {"objective": objective}
        if method.has_image_losses:
            selecting.on_train_batch_end(trainer, method, outputs, batch, 0)
        probe.on_train_batch_end(trainer, method, outputs, batch, 0)
        recorder.on_train_batch_end(trainer, method, outputs, batch, 0)
    assert all(value.is_meta for value in recorder._sums.values())
    assert set(recorder._sums) >= {"loss", "online/loss", "online/val_top1"}


@pytest.mark.one_in(5)
@pytest.mark.parametrize(
    ("method", "optimizer"),
    [
        # One knows nothing of the other: the rest of the product is left to the nightly tests.
        pytest.param(*both, marks=() if "simclr" in both or "sgd" in both else pytest.mark.nightly)
        for both in itertools.product(METHODS, OPTIMIZERS)
    ],
)
def test_a_step_runs_where_no_value_can_be_read(method, optimizer, config):
    images = torch.empty(32, 1, 8, 8, dtype=torch.uint8, device="meta")
    grey = torch.empty(1, device="meta")
    step_on_meta(config(f"method={method}", f"optimizer={optimizer}"), images, grey, grey)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("augment", AUGMENTS)
def test_views_are_made_where_no_value_can_be_read(augment, config):
    images = torch.empty(32, 3, 32, 32, dtype=torch.uint8, device="meta")
    colour = torch.empty(3, device="meta")
    views = make(config(f"augment={augment}")["augment"])
    for some in views(images, colour, colour, torch.Generator().manual_seed(0)):
        assert some.is_meta
        assert some.shape[1:3] == (32, 3)
        assert some.shape[3:] in [(32, 32), (16, 16)]


def test_reading_a_value_of_the_meta_device_raises():
    with pytest.raises(RuntimeError, match="meta"):
        torch.zeros(3, device="meta").sum().item()
