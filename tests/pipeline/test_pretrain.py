"""What a trainer is given."""

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.pipeline.trainer import make_trainer
from tests.composing import composed
from tests.parts import SeenTypes

SLURM = {"NTASKS": "1", "JOB_NAME": "study", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}


@pytest.mark.parametrize("alone", [False, True])
def test_slurm_resumes_nothing_behind_our_back(monkeypatch, alone):
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    trainer = make_trainer(make(resolve(composed("trainer=cpu"))["trainer"]), alone)
    environment = trainer._accelerator_connector.cluster_environment
    if alone:
        assert isinstance(environment, LightningEnvironment)
    else:
        assert isinstance(environment, SLURMEnvironment)
        assert not environment.auto_requeue


@pytest.mark.parametrize(
    ("precision", "computed", "kept"),
    [("32-true", torch.float32, torch.float32), ("bf16-mixed", torch.bfloat16, torch.float32)],
)
def test_precision_is_a_switch(command, monkeypatch, precision, computed, kept):
    monkeypatch.setattr(SeenTypes, "seen", set())
    small = ("trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", "backbone.width=8")
    probes = ("evaluation.l2_grid=[0.01]", "evaluation.few_shots=[]", "evaluation.few_percents=[]")
    look = "+callbacks.look._target_=tests.parts.SeenTypes"
    done = command("ssl-train", *small, *probes, f"trainer.precision={precision}", "batch_size=128", look)
    assert done.code == 0, done.err
    assert SeenTypes.seen == {(computed, kept)}
