"""What a trainer is given."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.pipeline import pretrain
from ssl_lightning.pipeline.trainer import make_trainer
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import Run, find_runs
from tests.composing import composed
from tests.parts import SeenTypes

SMALL = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "backbone.width=8",
    "batch_size=128",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[]",
    "evaluation.few_percents=[]",
)
SLURM = {"NTASKS": "1", "JOB_NAME": "study", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}


@pytest.mark.parametrize(("trainer", "alone"), [("ddp_cpu", False), ("cpu", False), ("cpu", True)])
def test_slurm_resumes_nothing_behind_our_back(monkeypatch, trainer, alone):
    for name, value in SLURM.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    made = make_trainer(make(resolve(composed(f"trainer={trainer}"))["trainer"]), alone)
    environment = made._accelerator_connector.cluster_environment
    if trainer == "cpu":
        assert isinstance(environment, LightningEnvironment)
    else:
        assert isinstance(environment, SLURMEnvironment)
        assert not environment.auto_requeue


LEFT = [
    {"RANK": "1"},
    {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
    {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "study", "SLURM_PROCID": "1"},
    {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"},
]
"""Variables that launchers set, in the shell of somebody who uses none."""


@pytest.mark.one_in(4)
@pytest.mark.reliability(
    "`RANK`, `LOCAL_RANK`, `SLURM_…` of a launcher left in the environment",
    lost="nothing: one process that trains alone logs; of several, others are waited for 10 minutes",
    read="`… is to have started 2 processes, of which this waits for the others (LOCAL_RANK=1)`",
)
@pytest.mark.parametrize("variables", LEFT, ids=" ".join)
def test_a_process_that_trains_alone_logs(command, monkeypatch, variables):
    monkeypatch.setattr(rank_zero_only, "rank", 1)  # as Lightning does when it is imported
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = command("ssl-train", *SMALL, "logger=tensorboard", "trainer.log_every_n_steps=5")
    assert done.code == 0, done.err
    (run,) = find_runs([Path("runs")])
    assert [row["step"] for row in read_metrics(run.metrics_file)] == ["5", "9"]
    assert list(run.folder.glob("tensorboard/events*"))
    assert "is to have started" not in done.out


def test_a_proxy_logs_whichever_process_trains_it(monkeypatch):
    monkeypatch.setattr(pretrain, "pretrain", lambda config, alone: Run(Path(str(rank_zero_only.rank))))
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    assert pretrain.train_proxy({}).id == "0"
    assert rank_zero_only.rank == 1


@pytest.mark.reliability("`RANK`, `LOCAL_RANK`, `SLURM_…` of a launcher left in the environment")
@pytest.mark.parametrize("left", [{}, *LEFT[1:]], ids=" ".join)
def test_one_of_several_says_what_it_has_believed(monkeypatch, capsys, left):
    monkeypatch.setattr(rank_zero_only, "rank", 0)
    more = {"SLURM_NTASKS_PER_NODE": "2", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"} if "SLURM_NTASKS" in left else {}
    if "RANK" in left:
        left, more = {**left, "RANK": "0", "LOCAL_RANK": "0"}, {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**left, **more}.items():
        monkeypatch.setenv(name, value)
    make_trainer(make(resolve(composed("trainer=ddp_cpu"))["trainer"]), alone=False)
    said = capsys.readouterr().out
    assert ("is to have started 2 processes" in said) == bool(left)
    for name, value in left.items():
        assert name == "SLURM_JOB_NAME" or f"{name}={value}" in said


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("precision", "computed", "kept"),
    [("32-true", torch.float32, torch.float32), ("bf16-mixed", torch.bfloat16, torch.float32)],
)
def test_precision_is_a_switch(command, monkeypatch, precision, computed, kept):
    monkeypatch.setattr(SeenTypes, "seen", set())
    look = "+callbacks.look._target_=tests.parts.SeenTypes"
    done = command("ssl-train", *SMALL, f"trainer.precision={precision}", look)
    assert done.code == 0, done.err
    assert SeenTypes.seen == {(computed, kept)}
