"""Two processes: the whole command, and steps that equal those of one process with the whole batch."""

import copy
import functools
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import lightning as L
import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.processes import ProcessGroup, share_buffers
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import find_runs
from tests.pipeline.test_resume import assert_identical
from tests.processes import Ended, two_processes

ARGUMENTS = (
    "trainer=ddp_cpu",
    "backbone.width=8",
    "method.projector.hidden=64",
    "batch_size=128",
    "subset.fraction=0.5",
    "trainer.max_epochs=4",
    "trainer.log_every_n_steps=3",
    "trainer.enable_progress_bar=false",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)


GATE = ("+callbacks.gate._target_=tests.processes.Gate", "+callbacks.gate.file=gate", "+callbacks.gate.first=6")


def started(folder: Path, *more: str) -> subprocess.Popen[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PL_")}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [str(Path(sys.executable).parent / "ssl-train"), *ARGUMENTS, *more],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ssl_train(folder: Path, *more: str) -> Ended:
    process = started(folder, *more)
    output, _ = process.communicate(timeout=600)
    return Ended(process.returncode, output)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ended]:
    """A training of 16 steps in two processes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "gate").touch()
    ended = ssl_train(folder, *GATE)
    assert ended.code == 0, ended.output
    return folder, ended


def test_command_with_two_processes(undisturbed):
    folder, done = undisturbed
    (run,) = find_runs([folder / "runs"])
    assert run.done
    assert [one.name for one in (folder / "runs" / "default").iterdir() if one.is_dir()] == [run.id]
    results = run.results()
    assert results["environment"]["world_size"] == 2
    assert results["mask"]["size"] == 629
    assert results["cost"]["optimizer_steps"] == 16
    assert results["cost"]["images_seen"] == 16 * 128
    assert all(torch.isfinite(torch.tensor(value)) for value in results["metrics"].values())
    rows = read_metrics(run.metrics_file)
    assert [row["step"] for row in rows] == ["3", "6", "9", "12", "15", "16"]
    assert done.output.count(f"{run.id} starts") == 1
    assert done.output.count(f"{run.id} linear") == 1
    assert "Traceback" not in done.output

    before = run.results_file.stat().st_mtime_ns
    again, second = two_processes(folder, *ARGUMENTS, *GATE)
    assert again.code == second.code == 0, again.output + second.output
    assert f"{run.id} is finished" in again.output
    assert run.results_file.stat().st_mtime_ns == before


@pytest.mark.nightly
def test_spectra_of_two_processes_change_nothing_but_the_columns(tmp_path, undisturbed):
    (tmp_path / "gate").touch()
    done = ssl_train(tmp_path, *GATE, "callbacks=spectrum")
    assert done.code == 0, done.output
    (run,), (alone,) = find_runs([tmp_path / "runs"]), find_runs([undisturbed[0] / "runs"])
    assert run.id == alone.id
    states = [torch.load(one.checkpoint, weights_only=True) for one in (run, alone)]
    assert_identical(*(state["state_dict"] for state in states))
    assert_identical(*(state["optimizer_states"] for state in states))
    rows, expected = read_metrics(run.metrics_file), read_metrics(alone.metrics_file)
    # Epochs of four steps, at whose ends there are rows beside those of three.
    assert [row["step"] for row in rows if row["spectrum/z/lidar"]] == ["4", "8", "12", "16"]
    assert sorted({row["step"] for row in rows}, key=int) == ["3", "4", "6", "8", "9", "12", "15", "16"]
    assert total_loss(rows) == pytest.approx(total_loss(expected))
    assert run.results()["cost"]["watching_seconds"] > 0
    assert "watched in" in done.output


def total_loss(rows: list[dict[str, str]]) -> float:
    """Over all steps, from means of some."""
    steps = [0, *(int(row["step"]) for row in rows)]
    return sum(float(row["loss"]) * (b - a) for row, (a, b) in zip(rows, itertools.pairwise(steps), strict=True))


@pytest.mark.nightly
@pytest.mark.reliability(
    "a process of torchrun is killed (`--max-restarts`)",
    lost="training since the last checkpoint",
    read="`<run> resumes`, as torchrun starts all of them again (torch needs `TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1`)",
)
def test_torchrun_starts_a_group_again_whose_process_was_killed(tmp_path, undisturbed):
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1", "-m")
    settings = (*ARGUMENTS, *GATE, "checkpoint.every_steps=2")
    with (tmp_path / "output.txt").open("w") as output:
        process = subprocess.Popen(
            [sys.executable, *torchrun, "ssl_lightning.commands.train", *settings],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2]), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            until = time.monotonic() + 200
            while len(gates := list(tmp_path.glob("gate-6-*"))) < 2 and time.monotonic() < until:
                time.sleep(0.05)
            os.kill(int(gates[0].name.rpartition("-")[2]), signal.SIGKILL)
            (tmp_path / "gate").touch()
            process.wait(200)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    said = (tmp_path / "output.txt").read_text()
    assert process.returncode == 0, said
    (run,), (whole,) = find_runs([tmp_path / "runs"]), find_runs([undisturbed[0] / "runs"])
    assert said.count(f"{run.id} starts") == said.count(f"{run.id} resumes") == 1
    assert whole.id == run.id
    assert_identical(*(torch.load(one.checkpoint, weights_only=True)["state_dict"] for one in (whole, run)))
    assert whole.results()["metrics"] == run.results()["metrics"]
    assert whole.metrics_file.read_text() == run.metrics_file.read_text()


class SmoothBackbone(nn.Module):
    """A residual block without batch statistics."""

    num_features = 12
    has_identity_shortcut = True

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(9, 12)
        self.second = nn.Linear(12, 12)

    def forward(self, images):
        x = torch.tanh(self.first(images.flatten(1)))
        return x + torch.tanh(self.second(x))


def _projector(num_features):
    return nn.Sequential(nn.Linear(num_features, 16), nn.Tanh(), nn.Linear(16, 8))


def simclr(world_size):
    return SimCLR(SmoothBackbone(), _projector, 0.3)


def cross_view_simclr(world_size):
    return SimCLR(SmoothBackbone(), _projector, 0.3, "info_nce")


def directclr(world_size):
    return DirectCLR(SmoothBackbone(), 4, 0.3)


def gessl(world_size, **options):
    """Two tasks a process of two, so four of one."""
    return GeSSL(simclr(1), tasks=4 // world_size, inner_lr=0.1, future_steps=2, temperature=0.3, **options)


METHODS = {
    "simclr": simclr,
    "cross-view simclr": cross_view_simclr,
    "directclr": directclr,
    "gessl": gessl,
    "second-order gessl": functools.partial(gessl, order="second", inner_steps=2),
}
OPTIMIZERS = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.05),
}


class Loss(nn.Module):
    """What DistributedDataParallel wraps: from a rank's views to its loss."""

    def __init__(self, method, gather):
        super().__init__()
        self.method = method
        self.gather = gather

    def forward(self, batch, draw):
        return self.method.ssl_loss(batch, self.gather, draw).loss


def weights_after_three_steps(rank, world_size, make_method, make_optimizer):
    """Of one rank, trained on its contiguous share of the same batches."""
    torch.manual_seed(0)
    method = make_method(world_size).double()
    loss = Loss(method, Gather(rank, world_size))
    loss = DistributedDataParallel(loss) if world_size > 1 else loss
    optimizer = make_optimizer(method.parameters())
    generator = torch.Generator().manual_seed(1)
    start = {name: value.clone() for name, value in method.state_dict().items()}
    for _ in range(3):
        views = torch.randn(2, 16, 1, 3, 3, generator=generator, dtype=torch.float64)
        share = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
        index = torch.arange(16)[share]
        optimizer.zero_grad()
        loss(Batch((views[:, share],), index, index), Draw()).backward()
        optimizer.step()
    moved = sum(float((value - start[name]).abs().sum()) for name, value in method.state_dict().items())
    return {name: value.clone() for name, value in method.state_dict().items()}, moved


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_step_as_one_with_the_whole_batch(pair, method, optimizer):
    arguments = METHODS[method], OPTIMIZERS[optimizer]
    expected, moved = weights_after_three_steps(0, 1, *arguments)
    assert moved > 0.1
    (first, _), (second, _) = pair(weights_after_three_steps, 2, *arguments)
    for name in expected:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=1e-9, atol=1e-10)


def _probe_weights(rank, world_size):
    """Of an online probe: each rank sees its part of the same batches, with other numbers of held-out images."""
    probe = OnlineProbe(lr=0.1)
    probe._num_classes, probe._held_out = 3, torch.arange(64) < 20
    generator = torch.Generator().manual_seed(0)
    share, losses = slice(16 * rank // world_size, 16 * (rank + 1) // world_size), []
    for _ in range(4):
        representations = torch.randn(2, 16, 5, generator=generator)[:, share]
        index = torch.randint(0, 64, (16,), generator=generator).sort().values[share]
        outputs = {"objective": Objective(torch.zeros(()), representations, representations)}
        trainer = Mock(spec=L.Trainer, world_size=world_size)
        batch = Batch((), index % 3, index)
        probe.on_train_batch_end(trainer, Mock(spec=L.LightningModule), outputs, batch, 0)
        losses.append(tuple(map(float, outputs["averages"]["online/loss"])))
    return copy.deepcopy(probe.state_dict()["probe"]), losses


def _shared_statistics(rank):
    """Of a BatchNorm that has seen other batches on each rank."""
    module = nn.BatchNorm1d(3)
    with torch.no_grad():
        module.running_mean.fill_(rank + 1)
        module.num_batches_tracked.fill_(rank + 5)
    share_buffers(module, ProcessGroup(rank, 2))
    return module.running_mean.tolist(), int(module.num_batches_tracked)


def test_features_are_made_with_the_statistics_that_the_checkpoint_holds(pair):
    assert pair(_shared_statistics) == [([1.0, 1.0, 1.0], 5)] * 2


def test_online_probe_of_two_processes_learns_as_that_of_one(pair):
    expected, whole = _probe_weights(0, 1)
    (first, losses), (second, others) = pair(_probe_weights, 2)
    for ours, theirs, all_ in zip(losses, others, whole, strict=True):
        assert ours[1] != theirs[1]  # ranks weigh what they have
        assert [one + other for one, other in zip(ours, theirs, strict=True)] == pytest.approx(all_)
    assert first["weight"].abs().sum() > 0
    for name in first:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=1e-4, atol=1e-5)


def stopped(folder: Path, step: int, number: signal.Signals, group: bool, *arguments: str) -> tuple[Ended, int]:
    """A training that receives a signal once both processes have made a step; and the step of its checkpoint."""
    process = started(folder, *arguments)
    try:
        until = time.monotonic() + 200
        while len(list(folder.glob(f"gate-{step}-*"))) < 2 and process.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        os.killpg(process.pid, number) if group else process.send_signal(number)
        (folder / "gate").touch()
        output, _ = process.communicate(timeout=200)
    finally:
        process.kill()
    (folder / "gate").unlink()
    (run,) = find_runs([folder / "runs"])
    assert not run.done
    return Ended(process.returncode, output), torch.load(run.checkpoint, weights_only=True)["global_step"]


@pytest.mark.nightly
@pytest.mark.reliability(
    "Ctrl-C, or SIGTERM to one of several processes",
    lost="nothing: the step is finished and saved by all",
    read="`Interrupted.` (exit code 130) or `Terminated.` (143) `The same command goes on from what is saved.`",
)
def test_stopped_processes_save_together_and_resume(tmp_path, undisturbed):
    """Ctrl-C to both of two processes, then the same command and SIGTERM to one, then the same command once more: it
    ends like a training that was never disturbed."""
    arguments = (*GATE, "checkpoint.every_steps=null", "checkpoint.every_minutes=60")
    ended, first = stopped(tmp_path, 6, signal.SIGINT, True, *arguments)
    assert ended.code == 130, ended.output
    assert ended.output.count("Interrupted. The same command goes on") == 1
    assert 6 <= first <= 7
    ended, second = stopped(tmp_path, first + 1, signal.SIGTERM, False, *arguments)
    assert ended.code == 143, ended.output
    assert ended.output.count("Terminated. The same command goes on") == 1
    assert first < second <= first + 2
    (run,) = find_runs([tmp_path / "runs"])
    (tmp_path / "gate").touch()
    done, second = two_processes(tmp_path, *ARGUMENTS, *arguments)
    assert done.code == second.code == 0, done.output + second.output
    assert f"{run.id} resumes" in done.output
    (whole,) = find_runs([undisturbed[0] / "runs"])
    assert whole.id == run.id
    states = [torch.load(one.checkpoint, weights_only=True)["state_dict"] for one in (whole, run)]
    assert_identical(*states)
    assert whole.results()["metrics"] == run.results()["metrics"]
    assert whole.metrics_file.read_text() == run.metrics_file.read_text()


@pytest.mark.nightly
def test_a_missing_ranking_is_made_before_the_second_process_starts(tmp_path):
    done = ssl_train(tmp_path, "subset=sas", "subset.fraction=0.5", "subset.looks=1", "trainer.max_epochs=1")
    assert done.code == 0, done.output
    (ranking,) = (tmp_path / "cache" / "rankings").glob("*.npz")
    proxy, run = sorted(find_runs([tmp_path / "runs"]), key=lambda run: run.results()["environment"]["world_size"])
    assert [made.results()["environment"]["world_size"] for made in (proxy, run)] == [1, 2]
    assert run.results()["mask"]["rule"] == "sas"
    positions = np.sort(np.load(ranking)["order"][:629])
    assert run.results()["mask"]["digest"] == hashlib.sha256(positions.astype("<i8").tobytes()).hexdigest()[:16]
