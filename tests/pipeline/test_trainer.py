"""Which of Lightning's settings a run may choose, and what is said of the others."""

import inspect
from dataclasses import fields

import lightning as L
import pytest

from ssl_lightning.pipeline.trainer import TrainerSettings
from tests.composing import TINY
from tests.config.configs import forget, refused

__all__ = ["forget"]


def test_every_argument_of_lightnings_trainer_can_be_set_or_is_said_to_be_set_elsewhere():
    arguments = set(inspect.signature(L.Trainer.__init__).parameters) - {"self"}
    settings = {field.name for field in fields(TrainerSettings)}
    assert arguments == settings | set(TrainerSettings.ELSEWHERE)
    assert not settings & set(TrainerSettings.ELSEWHERE)


@pytest.mark.parametrize("plus", ["", "+"])
@pytest.mark.parametrize(
    ("key", "instead"),
    [
        ("logger", "choose loggers by logger=wandb"),
        ("callbacks", "+callbacks.<name>._target_=module.Class"),
        ("plugins", "trainer.strategy"),
        ("enable_checkpointing", "checkpoint.every_minutes"),
        ("use_distributed_sampler", "among processes itself"),
        ("overfit_batches", "+trainer.limit_train_batches=1"),
    ],
)
def test_what_is_set_elsewhere_is_said_to_be(plus, key, instead):
    message = refused(f"{plus}trainer.{key}=1")
    assert message.startswith(f"unknown key 'trainer.{key}' (command line")
    assert instead in message
    assert "known here" not in message


def test_a_profiler_prints_its_table(command):
    done = command("ssl-train", *TINY, "subset.fraction=0.1", "+trainer.profiler=simple")
    assert done.code == 0, done.err
    assert "FIT Profiler Report" in done.out + done.err
    assert "SimCLR.optimizer_step" in done.out + done.err
    assert "should be 'simple', 'advanced' or 'pytorch'" in refused("+trainer.profiler=fast")
