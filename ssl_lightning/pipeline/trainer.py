"""The trainer of a run, and what happens in its steps."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, Literal

import lightning as L
from annotated_types import Gt, Le
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.profilers import Profiler

from ssl_lightning.callbacks.budget import Budget
from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.heartbeat import Heartbeat
from ssl_lightning.callbacks.progress import Progress, can_be_seen
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.seeds import StepSeeds
from ssl_lightning.callbacks.selecting import Selecting
from ssl_lightning.callbacks.stopping import StopTogether
from ssl_lightning.callbacks.time_limit import TimeLimit
from ssl_lightning.config.components import make
from ssl_lightning.config.markers import Place, Speed, Unset
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import limit_waiting
from ssl_lightning.pipeline.launch import asks_for_one, environments, refuse_in_multirun, settle_rank
from ssl_lightning.processes import PATIENCE
from ssl_lightning.ranges import Count, NonNegative, Number, Positive, Unlimited
from ssl_lightning.runs.run import Run

Strategy = Literal["auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false"]
"""Those in which every process has the whole model, and still lives when the encoder is evaluated."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """The arguments of Lightning's `Trainer` that a run may choose, each with its meaning there. `ELSEWHERE` says what
    there is in place of the others."""

    accelerator: Annotated[str, Speed] = "auto"
    devices: Annotated[Count | Unlimited | str | list[Number], Speed] = 1
    num_nodes: Annotated[int, Gt(0), Speed] = 1
    strategy: Annotated[Strategy, Speed] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    max_epochs: Count | Unlimited = 100
    max_steps: Count | Unlimited = -1
    # Of a command. Marked, as a run that it ends is not finished, and goes on.
    max_time: Annotated[str | dict[str, NonNegative] | None, Place] = None
    limit_train_batches: Annotated[Count | Annotated[float, Gt(0), Le(1)] | None, Unset] = None
    log_every_n_steps: Annotated[int, Gt(0), Place] = 10
    enable_progress_bar: Annotated[bool, Place] = True
    fast_dev_run: Annotated[Number | bool, Place] = False
    gradient_clip_val: Annotated[Positive | None, Unset] = None
    gradient_clip_algorithm: Annotated[Literal["norm", "value"] | None, Unset] = None
    accumulate_grad_batches: Count = 1
    sync_batchnorm: bool = False
    deterministic: Annotated[bool | Literal["warn"] | None, Unset] = None
    benchmark: Annotated[bool | None, Speed] = None
    detect_anomaly: Annotated[bool, Speed] = False
    profiler: Annotated[Literal["simple", "advanced", "pytorch"] | Profiler | None, Speed] = None

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "logger": "choose loggers by logger=wandb, logger=tensorboard or logger=csv (conf/logger).",
        "callbacks": "give callbacks by +callbacks.<name>._target_=module.Class (conf/callbacks).",
        "plugins": "a run chooses them itself, by trainer.precision, trainer.strategy and what started it.",
        "enable_checkpointing": "a run always keeps its last checkpoint; checkpoint.every_minutes says how often.",
        "use_distributed_sampler": "a run shares its batches among processes itself.",
        "overfit_batches": "train on few images: subset.fraction=0.01, or trainer.limit_train_batches=1.",
        "enable_model_summary": "ask for it by +callbacks.summary._target_=lightning.pytorch.callbacks.ModelSummary.",
        "default_root_dir": "everything of a run lies in its folder, below paths.runs.",
        "reload_dataloaders_every_n_epochs": "batches are a function of seed and step, so nothing is loaded again.",
        "inference_mode": "encoders are evaluated after training, without gradients: see evaluation.",
        "model_registry": "a run keeps its encoder in its folder; ssl_lightning.load_encoder reads it.",
        "barebones": "trainer.enable_progress_bar=false, callbacks=none and logger=csv leave out what may be left out.",
        **dict.fromkeys(("min_epochs", "min_steps"), "the length is trainer.max_epochs or trainer.max_steps."),
        **dict.fromkeys(
            (
                *("limit_val_batches", "limit_test_batches", "limit_predict_batches"),
                *("val_check_interval", "check_val_every_n_epoch", "num_sanity_val_steps"),
            ),
            "nothing is validated during training: callbacks.online_probe watches it, evaluation.* comes after it.",
        ),
        "enable_autolog_hparams": "loggers are given the whole config.",
    }

    def __post_init__(self) -> None:
        if self.max_epochs == -1 and self.max_steps == -1:
            raise UserError(
                "trainer.max_epochs=-1 and trainer.max_steps=-1 name no end, by which learning rates are scheduled. "
                "Give one of them; trainer.max_time may end training earlier."
            )
        if isinstance(self.profiler, Profiler) and self.profiler.dirpath is not None:
            raise UserError(
                f"trainer.profiler.dirpath is {str(self.profiler.dirpath)!r}, but what is said of a run lies in its "
                "folder, in profiles/. Leave it out; trainer.profiler.filename names its files."
            )

    def arguments(self) -> dict[str, Any]:
        own = ("max_time",)  # see TimeLimit
        given = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in own}
        return {name: value for name, value in given.items() if value is not None}


def make_trainer(settings: TrainerSettings, alone: bool) -> L.Trainer:
    """A trainer without loggers and with no callback but the bar.

    Args:
        alone: this process works for itself, even where it belongs to a group that others have started.
    """
    limit = [TimeLimit(settings.max_time)] if settings.max_time is not None else []
    bar = settings.enable_progress_bar and can_be_seen()
    with _no_further_arguments() as ignored:
        trainer = L.Trainer(
            **{**settings.arguments(), "enable_progress_bar": bar},
            logger=False,
            callbacks=[*([Progress()] if bar else []), *limit],
            plugins=[AtomicCheckpointIO(), *environments(alone or asks_for_one(settings))],
            enable_checkpointing=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    if ignored and trainer.is_global_zero and not alone:
        print(f"Not followed: {', '.join(ignored)}. A run is what its config says (trainer.*).", flush=True)
    limit_waiting(trainer.strategy, PATIENCE)
    settle_rank(trainer.strategy, trainer.world_size, settings.num_nodes)
    refuse_in_multirun(trainer.world_size)
    return trainer


@contextlib.contextmanager
def _no_further_arguments() -> Iterator[list[str]]:
    """Lightning takes arguments that a trainer was not given from the environment, where no identity sees them.
    Meanwhile there are none; yields what there were."""
    found = {name: os.environ.pop(name) for name in sorted(os.environ) if name.startswith("PL_TRAINER_")}
    try:
        yield [f"{name}={value}" for name, value in found.items()]
    finally:
        os.environ.update(found)


def callbacks_of(
    config: Mapping[str, Any], run: Run, recorder: Recorder, selecting: Selecting | None = None
) -> list[Callback]:
    """In the order in which they see a batch.

    Seeds come first, and what chooses the images of an epoch; then the configured ones, whose averages the recorder
    takes up; the recorder; the checkpoint, which holds the state that all of these have after the batch; and what tells
    of training, or ends it. Lightning's own checkpoints come after the recorder, and see what it shows.
    """
    callbacks: list[Callback] = [StepSeeds(config["seed"]), *([selecting] if selecting else [])]
    made: dict[str, Callback] = {name: make(options) for name, options in config["callbacks"].items()}
    monitors = {name: callback for name, callback in made.items() if isinstance(callback, ModelCheckpoint)}
    for name, monitor in monitors.items():
        if monitor.dirpath is None:
            monitor.dirpath = str(run.checkpoint.parent / name)
    callbacks += [callback for callback in made.values() if callback not in monitors.values()]
    callbacks += [recorder, *monitors.values(), LastCheckpoint(run.checkpoint, recorder, **config["checkpoint"])]
    if config["budget"] != "epochs" and not config["trainer"]["fast_dev_run"]:
        callbacks.append(Budget(config["budget"], config["batch_size"]))
    return [*callbacks, Heartbeat(run.progress_file, recorder), StopTogether()]
