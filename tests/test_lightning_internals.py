"""What is not promised to stay is still there and does the same: an upgrade that changes it fails here."""

import os
import signal
import subprocess
import sys

import lightning as L
import pytest
import torch
import torch.distributed as dist
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import OmegaConf
from torch.utils.data import DataLoader

from ssl_lightning import lightning_internals
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.config.grid import grid_of
from ssl_lightning.config.hydra import configs_in
from ssl_lightning.config.places import CONF
from ssl_lightning.loggers.tensorboard import TensorBoard
from ssl_lightning.methods.method import SSLMethod
from tests.callbacks.fitting import fit, trainer
from tests.composing import composed


class At(L.Callback):
    """Calls a function with the trainer in one hook, or after an optimizer step."""

    def __init__(self, hook, call, step=None):
        def called(trainer, *_, **__):
            if step is None or trainer.global_step == step:
                call(trainer)

        setattr(self, hook, called)


@pytest.fixture
def forget():
    yield
    HydraConfig.instance().cfg = None


def test_nothing_heavy_is_imported():
    code = (
        "import sys, ssl_lightning.lightning_internals, ssl_lightning.config.messages\n"
        "print({'torch', 'lightning', 'wandb', 'tensorboard'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_add_callbacks():
    order = []
    first, *more = (At("on_train_start", lambda _, i=i: order.append(i)) for i in range(3))
    fitting = trainer(first, max_epochs=1)
    lightning_internals.add_callbacks(fitting, more)
    assert fitting.callbacks[-2:] == more
    fitting.fit(_Line(), DataLoader(torch.ones(2, 1)))
    assert order == [0, 1, 2]


def test_load_training_batches():
    numbers = []

    def ask(trainer):
        numbers.append(trainer.num_training_batches)
        lightning_internals.load_training_batches(trainer)
        numbers.append(trainer.num_training_batches)

    fit(At("setup", ask), max_epochs=1)
    assert numbers == [float("inf"), 3]


@pytest.mark.parametrize("strategy", ["auto", "ddp", "ddp_find_unused_parameters_true"])
@pytest.mark.parametrize("kind", [L.Trainer, L.Fabric])
def test_limit_waiting(monkeypatch, kind, strategy):
    """Of what a group of processes is made with; before, it is half an hour."""
    asked = []
    monkeypatch.setattr(dist, "init_process_group", lambda *_, timeout, **__: asked.append(timeout.total_seconds()))
    for seconds in (None, 5):
        several = kind(accelerator="cpu", devices=2, strategy=strategy)
        if seconds:
            lightning_internals.limit_waiting(several.strategy, seconds)
        several.strategy.setup_environment()
    assert asked == [1800, 5]
    alone = kind(accelerator="cpu", devices=1).strategy
    lightning_internals.limit_waiting(alone, 5)
    assert not hasattr(alone, "_timeout")


@pytest.mark.parametrize("steps", [4, 7])  # of two epochs of three
def test_limit_steps(steps):
    fitted = fit(At("setup", lambda trainer: lightning_internals.limit_steps(trainer, steps)))
    assert fitted.global_step == steps
    assert fitted.estimated_stepping_batches == steps


def test_set_epoch_length():
    """Of an epoch of three batches; the last one is known to be it."""
    last = []
    fitted = fit(
        At("on_fit_start", lambda trainer: lightning_internals.set_epoch_length(trainer, 2)),
        At("on_train_batch_end", lambda trainer: last.append(trainer.is_last_batch)),
        max_epochs=1,
    )
    assert fitted.num_training_batches == 2
    assert last == [False, True]


def test_not_compiled():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    calls = []
    lightning_internals.compile_in_place(module[0], "default")
    compiled = module[0]._compiled_call_impl
    module[0]._compiled_call_impl = lambda x: calls.append(x) or x
    replaced = module[0]._compiled_call_impl
    x = torch.ones(1, 2)
    with lightning_internals.not_compiled(module):
        assert torch.equal(module(x), module[0].forward(x))
        assert calls == []
    assert module[0]._compiled_call_impl is replaced is not compiled
    module(x)
    assert len(calls) == 1


class _TwoProcesses(LightningEnvironment):
    """Processes that are there, of which this is one."""

    def __init__(self, rank):
        super().__init__()
        self._global_rank, self._world_size = rank, 2

    @property
    def creates_processes_externally(self):
        return True

    def local_rank(self):
        return self._global_rank

    def set_global_rank(self, rank):
        pass

    def set_world_size(self, size):
        pass


class _Line(SSLMethod):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def training_step(self, batch, _):
        self.batches += 1
        return self.layer(batch).mean()

    def optimizer_step(self, *args, **kwargs):
        L.LightningModule.optimizer_step(self, *args, **kwargs)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def _steps_and_broadcasts(rank, silent):
    """Of one of two processes, the second of which receives SIGTERM after two steps of eight."""
    broadcasts, broadcast = [], dist.broadcast
    silence = lightning_internals.silence_sigterm_broadcast
    steps = []

    def terminate(trainer):
        if rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    fitting = trainer(
        At("on_train_batch_end", terminate, step=2),
        StopTogether(),
        At("on_exception", lambda trainer: steps.append(trainer.global_step)),
        max_epochs=1,
        devices=2,
        strategy=DDPStrategy(cluster_environment=_TwoProcesses(rank), process_group_backend="gloo"),
    )
    dist.broadcast = lambda *args, **kwargs: (broadcasts.append(1), broadcast(*args, **kwargs))[1]
    if not silent:
        sys.modules[StopTogether.__module__].silence_sigterm_broadcast = lambda trainer: None
    try:
        fitting.fit(_Line(), DataLoader(torch.ones(16, 1)))
    except SIGTERMException:
        steps.append("terminated")
    finally:
        dist.broadcast = broadcast
        sys.modules[StopTogether.__module__].silence_sigterm_broadcast = silence
    return steps, len(broadcasts)


def test_silence_sigterm_broadcast(pair):
    """Lightning has what is silenced and asks before each batch; without it both processes end all the same."""
    assert callable(_TrainingEpochLoop._broadcast_sigterm_tensor)
    talking, silent = pair(_steps_and_broadcasts, False), pair(_steps_and_broadcasts, True)
    assert [steps for steps, _ in talking] == [steps for steps, _ in silent] == [[2, "terminated"]] * 2
    for (_, more), (_, fewer) in zip(talking, silent, strict=True):
        assert more - fewer == 2  # one before each batch


def test_wandb(tmp_path):
    logger = WandbLogger(project="one", save_dir=str(tmp_path))
    arguments = lightning_internals.wandb_arguments(logger)
    assert arguments["project"] == "one"
    assert "mode" not in arguments
    arguments |= {"id": "two", "mode": "disabled"}
    assert lightning_internals.wandb_run(logger) is None
    run = logger.experiment
    assert lightning_internals.wandb_run(logger) is run
    assert run.id == "two"
    run.finish()


def test_forget_from(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def board():
        logger = TensorBoard()
        logger.folder = tmp_path
        return logger

    killed, resumed = board(), board()
    for step in (1, 2, 3):
        killed.log_metrics({"loss": step}, step)
    killed.experiment.flush()
    lightning_internals.forget_from(resumed, 2)
    resumed.log_metrics({"loss": 20}, 2)
    resumed.finalize("success")
    found = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in found] == [(1, 1), (2, 20)]


def test_options_of_groups():
    lightning_internals.forget_application()
    assert lightning_internals.group_options("method") is None
    with configs_in(CONF):
        options = lightning_internals.group_options("method")
        assert options is not None
        assert {"simclr", "gessl"} <= set(options)
        option = lightning_internals.load_option("method", "simclr")
    assert option["_target_"] == "ssl_lightning.methods.simclr.SimCLR"
    assert OmegaConf.is_interpolation(option, "backbone")


def test_forget_application():
    configs_in(CONF)  # begins one, which the end of `with` would end
    assert lightning_internals.group_options("method")
    lightning_internals.forget_application()
    assert lightning_internals.group_options("method") is None


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(("key", "known"), [("trainer.max_epoch", "max_epochs"), ("sede", "seed")])
def test_unknown_override(key, known):
    with pytest.raises(HydraException) as caught:
        composed(f"{key}=1")
    found = lightning_internals.unknown_override(caught.value)
    assert found is not None
    assert found[0] == key
    assert found[1] is not None
    assert known in found[1]
    with pytest.raises(HydraException) as caught:
        composed("trainer=unknown")
    assert lightning_internals.unknown_override(caught.value) is None
    assert lightning_internals.unknown_override(ValueError(f"Could not override '{key}'")) is None


def test_root_of():
    config = OmegaConf.create({"a": {"b": {"c": 1}}})
    assert lightning_internals.root_of(config.a.b) is config


def test_let_trace():
    """Else `torch.jit.trace`, which reads all properties of a module, fails at `trainer`."""
    method = SSLMethod.__new__(SSLMethod)
    L.LightningModule.__init__(method)
    with pytest.raises(RuntimeError, match="not attached"):
        method.trainer  # noqa: B018
    lightning_internals.let_trace(torch.nn.Sequential(method))
    assert method.trainer is None


def test_wandb_settings_of_the_past():
    """wandb knows all of them, and each is another than by default."""
    usual = wandb.Settings()
    for name, value in lightning_internals.wandb_settings_of_the_past().items():
        assert getattr(usual, name) != value, name
        assert getattr(wandb.Settings(**{name: value}), name) == value


def test_wandb_workspaces():
    ws = pytest.importorskip("wandb_workspaces.workspaces", reason="the extra wandb-workspaces is not installed")
    wr = pytest.importorskip("wandb_workspaces.reports.v2")
    view = ws.Workspace(entity="team", project="one", name="mine")
    page = wr.Report(entity="team", project="one", title="mine")
    assert lightning_internals.specification(view)["displayName"] == "mine"
    assert lightning_internals.specification(page)["project"] == {"name": "one", "entityName": "team"}
    assert lightning_internals.place_of(view) == lightning_internals.place_of(page) == {}
    lightning_internals.take_the_place_of(view, {"_internal_id": "4", "_internal_name": "nw-abc-v"})
    lightning_internals.take_the_place_of(page, {"id": "5"})
    assert lightning_internals.specification(view)["id"] == "4"
    assert lightning_internals.specification(view)["name"] == "nw-abc-v"
    assert lightning_internals.specification(page)["id"] == "5"
    assert lightning_internals.place_of(view) == {"_internal_id": "4", "_internal_name": "nw-abc-v"}
    assert lightning_internals.place_of(page) == {"id": "5"}


@pytest.mark.nightly
def test_jobs_are_those_that_the_sweeper_launches(command, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, _self_]\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {method: 'simclr,byol', subset.fraction: '0.1,1'}}}\n"
    )
    more = ("seed=range(3,5)", "sweep=a b", "trainer=cpu", "subset.fraction=0.5,1.0")
    grid = grid_of("grid.yaml", more)
    listed = command("ssl-sweep", "grid.yaml", *more, "--dry-run").out.splitlines()
    listed = [line for line in listed if line.startswith("#")]
    assert [f"#{number} {' '.join(job)}" for number, job in enumerate(grid.jobs)] == listed
    assert len(listed) == 8


def test_other_sweepers_keep_their_jobs_to_themselves():
    assert lightning_internals.jobs_of_sweeper(OmegaConf.create({"_target_": "some.Optuna", "params": {}}), []) is None
