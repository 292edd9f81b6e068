"""hydra/launcher=slurm before SLURM has a say."""

import importlib.util
from types import SimpleNamespace

import pytest

from ssl_lightning.launchers import queue
from ssl_lightning.launchers.journal import Journal, kept_in
from ssl_lightning.launchers.slurm import _parameters
from tests.composing import composed

SLURM = ("ssl-train", "-m", "trainer=ddp", "hydra/launcher=slurm")


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "trainer.devices is 'auto', but SLURM has to be told how many processes to start on a node."),
        (["trainer=cpu", "trainer.devices=1,2"], "and trainer.devices=2, but SLURM would start it on hydra"),
        (["trainer.devices=2", "hydra.launcher.nodes=2"], "trainer.num_nodes=1 and trainer.devices=2, but SLURM would"),
        (["hydra.launcher.timeout=5"], "did you mean 'hydra.launcher.timeout_min'?"),
    ],
)
def test_what_slurm_would_start_otherwise_than_it_is_meant_is_refused(command, overrides, message):
    outcome = command(*SLURM, *overrides)
    assert outcome.code == 1
    assert message in outcome.err
    assert outcome.err.count("Error") == 1


@pytest.mark.skipif(bool(importlib.util.find_spec("submitit")), reason="submitit is installed")
def test_the_extra_is_named(command):
    outcome = command(*SLURM, "trainer.devices=2")
    assert outcome.err == (
        "Error: hydra/launcher=slurm needs submitit, which is not installed: pip install 'ssl-lightning[slurm]'.\n"
    )


@pytest.mark.parametrize(
    ("trainer", "gpus", "expected"),
    [
        (["trainer=gpu"], "auto", 1),
        (["trainer=ddp", "trainer.devices=4"], "auto", 4),
        (["trainer=ddp_cpu"], "auto", None),
        (["trainer=auto"], "auto", None),  # nobody knows whether there are any
        (["trainer=auto"], 1, 1),
        (["trainer=gpu"], None, None),
    ],
)
def test_a_process_has_a_gpu_where_it_is_to_train_on_one(trainer, gpus, expected):
    config = composed(*trainer)
    settings = {"nodes": 1, "tasks_per_node": config.trainer.devices, "gpus_per_node": gpus, "mem_gb": None}
    loader = SimpleNamespace(load_sweep_config=lambda whole, overrides: whole)
    application = {"config": config, "hydra_context": SimpleNamespace(config_loader=loader)}
    found = _parameters(settings, application, [[]])
    assert "mem_gb" not in found
    assert found.get("gpus_per_node") == expected


ENDED = "slurmstepd: error: *** JOB 7 ON node CANCELLED AT 2026-01-01T00:00:00"


@pytest.mark.parametrize(
    ("words", "unasked"),
    [
        (f"{ENDED} ***", False),  # by scancel
        (f"{ENDED} DUE TO TIME LIMIT ***", False),
        (f"{ENDED} DUE TO PREEMPTION ***", False),
        (f"{ENDED} DUE TO NODE FAILURE, SEE SLURMCTLD LOG FOR DETAILS ***", True),
        ("slurmstepd: error: Detected 1 oom_kill event in StepId=7.0.", True),
        ("", False),
    ],
)
def test_the_journal_is_told_of_what_slurm_has_ended_unasked(tmp_path, words, unasked):
    """So that --retry submits that again, and nothing else."""
    log = tmp_path / "log.out"
    log.write_text(f"epoch 1\n{words}\n" if words else "")
    paths = SimpleNamespace(result_pickle=tmp_path / "none.pkl", stdout=log)
    one = queue._Watched(SimpleNamespace(job_id="7", paths=paths), ("seed=1",), begun=True, gone=0.0)
    journal = Journal(tmp_path / ".sweeps/grid")
    with kept_in(journal):
        assert queue._has_ended(0, one, now=queue.PATIENCE + 1)
    assert one.well is False
    told = journal.told(("seed=1",))
    assert bool(told) == unasked
    if told:
        assert told.error == f"it was ended: {words.partition('***')[2].strip(' *') or words}"
