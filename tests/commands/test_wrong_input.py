"""Whatever goes wrong: one message that says what, where and what to do; an exit code; and nothing earlier is lost."""

import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.commands.train import train
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import find_runs
from ssl_lightning.subsets.random import Random
from tests.composing import TINY, composed
from tests.conftest import Outcome
from tests.data.synthetic import write_cifar10
from tests.subsets.cutting import mask_of

Command = Callable[..., Outcome]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder but locks."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".lock"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `runs` with one finished run in the sweep `default`."""
    folder = tmp_path_factory.mktemp("made") / "runs"
    config = composed(*TINY, "subset.fraction=0.1", f"paths.runs={folder}")
    HydraConfig.instance().cfg = None
    assert train(config).done
    return folder


@pytest.fixture
def finished(made: Path, tmp_path: Path) -> Path:
    """A copy of it in the working directory of the commands."""
    shutil.copytree(made, tmp_path / "runs")
    (run,) = find_runs([tmp_path / "runs"])
    return run.folder


def messages(outcome: Outcome) -> list[str]:
    assert outcome.code != 0
    assert "Traceback" not in outcome.out + outcome.err
    return [line for line in outcome.err.splitlines() if line.startswith("Error:")]


def refused(command: Command, finished: Path, *arguments: str) -> str:
    """The one message of a failing `ssl-train`, which leaves the finished run beside it as it was."""
    before = contents(finished)
    found = [line for line in messages(command("ssl-train", *TINY, *arguments)) if " jobs done, " not in line]
    assert len(found) == 1
    assert contents(finished) == before
    return found[0]


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["dataset=cifar10"], ["cifar-10-batches-py", "dataset.download=true", "cifar-10-python.tar.gz"]),
        (["dataset=cifar100"], ["cifar-100-python", "dataset.download=true", "cifar-100-python.tar.gz"]),
        (["dataset=fashion_mnist"], ["FashionMNIST/raw", "dataset.download=true", "dataset-fashion-mnist"]),
        (["dataset=image_folder", "dataset.root=nowhere"], ["nowhere", "dataset.root", "train/<class>"]),
    ],
    ids=["cifar10", "cifar100", "fashion_mnist", "image_folder"],
)
def test_a_missing_dataset_says_how_to_get_it(command, finished, monkeypatch, tmp_path, arguments, parts):
    monkeypatch.setattr("ssl_lightning.data.sources.fashion_mnist.DEBIAN_FASHION_MNIST", tmp_path / "no-package")
    message = refused(command, finished, *arguments)
    assert all(part in message for part in parts)
    assert [run.folder for run in find_runs([tmp_path / "runs"])] == [finished]  # and none was begun


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("fraction", "range"),
    [
        ("0", "greater than 0, or null"),
        ("-1", "greater than 0, or null"),
        ("1.5", "less than or equal to 1, or null"),
        ("nan", "less than or equal to 1, or null"),
        ("inf", "less than or equal to 1, or null"),
    ],
)
def test_a_fraction_outside_its_range(command, finished, fraction, range):
    message = refused(command, finished, f"subset.fraction={fraction}")
    written = f"(command line: subset.fraction={fraction})"
    assert f"subset.fraction is {fraction} {written}, but it should be {range}." in message


def test_a_part_of_the_full_dataset(command, finished):
    assert "choose subset=random" in refused(command, finished, "subset=full", "subset.fraction=0.5")


@pytest.mark.parametrize(("fraction", "largest"), [("0.01", 13), ("1.0", 1257)])
def test_a_batch_larger_than_the_subset(command, finished, fraction, largest):
    message = refused(command, finished, f"subset.fraction={fraction}", f"batch_size={largest + 1}")
    assert f"batch_size is {largest + 1}" in message
    assert f"The largest legal batch_size is {largest}." in message


@pytest.fixture
def shared() -> Callable[[int], SubsetDataModule]:
    """13 images for two processes."""

    def make(batch_size: int) -> SubsetDataModule:
        dataset = Digits(name="digits", image_size=8, channels=1, num_classes=10, mean=[0.3], std=[0.4])
        mask = mask_of(Random(), dataset, 0.01)
        data = SubsetDataModule(dataset, mask, augment=Augment([View(copies=2)]), batch_size=batch_size)
        data.trainer = SimpleNamespace(world_size=2, accumulate_grad_batches=1)
        return data

    return make


def test_a_batch_that_processes_cannot_share(shared):
    with pytest.raises(UserError, match=r"batch_size is 7, which 2 processes cannot .* choose a multiple of 2"):
        shared(7).setup()


def test_the_largest_legal_batch_can_be_shared(shared):
    with pytest.raises(UserError, match=r"only 13 images .* The largest legal batch_size is 12\."):
        shared(14).setup()
    shared(12).setup()


def test_a_subset_that_is_no_batch(command):
    outcome = command("ssl-train", *TINY, "subset.fraction=1e-3")
    assert "the subset has only 1 image (" in outcome.err
    assert "Raise subset.fraction: it is too few." in outcome.err
    assert "largest legal" not in outcome.err


def test_a_backbone_that_directclr_cannot_train(command, finished):
    target = "backbone._target_=tests.parts.resnet_without_shortcut"
    message = refused(command, finished, "method=directclr", target)
    assert "DirectCLR needs a backbone whose last block adds its input unchanged" in message
    assert "backbone=resnet_tiny" in message


def test_a_subvector_longer_than_the_representation(command, finished):
    message = refused(command, finished, "method=directclr", "method.d0=17")
    assert "method.d0 is 17, but the representation has 16 channels" in message
    assert "between 1 and 16" in message


def test_accumulation_of_gradients(command, finished):
    message = refused(command, finished, "trainer.accumulate_grad_batches=2")
    assert "trainer.accumulate_grad_batches is 2, but SimCLR compares images of a batch with one another" in message
    assert "larger batch_size" in message


@pytest.mark.parametrize(("tasks", "advice"), [(3, "choose a multiple of 3"), (8, "Choose 16 or more")])
def test_tasks_that_do_not_divide_a_batch(command, finished, tasks, advice):
    message = refused(command, finished, "method=gessl", f"method.tasks={tasks}", "batch_size=8")
    assert "batch_size is 8, which " in message
    assert f" {tasks} tasks (method.tasks)" in message
    assert advice in message


def test_a_single_view(command, finished):
    message = refused(command, finished, "augment.views.0.copies=1")
    assert "augment.views gives 1 view of an image" in message
    assert "copies: 2" in message


def test_a_probability_above_one(command, finished):
    message = refused(command, finished, "augment.views.0.jitter_probability=2.0")
    assert "jitter_probability" in message
    assert "2.0" in message


@pytest.mark.parametrize("override", ["evaluation.k=0", "evaluation.few_percents=[200]", "evaluation.l2_grid=[]"])
def test_a_wrong_evaluation_is_refused_before_training(command, finished, tmp_path, override):
    key = override.partition("=")[0]
    assert f"{key}=" in refused(command, finished, override, "seed=7")
    assert not list(tmp_path.rglob("*-s7-*/checkpoints"))


@pytest.mark.nightly
def test_processes_inside_a_multirun(command, finished):
    message = refused(command, finished, "trainer=ddp_cpu", "seed=1", "-m")
    assert "trainer.devices asks for 2 processes a job, which a multirun in one process cannot start" in message
    assert "Run each job as a command of its own" in message


def test_a_damaged_dataset(command, finished, tmp_path):
    write_cifar10(tmp_path / "data")
    (tmp_path / "data/cifar-10-batches-py/data_batch_3").write_bytes(b"torn")
    assert "data_batch_3" in refused(command, finished, "dataset=cifar10")


POISONED = (
    "subset.fraction=0.1",
    "seed=9",
    "checkpoint.every_steps=1",
    "+callbacks.poison._target_=tests.parts.Poison",
)


@pytest.mark.reliability("a loss that is not finite")
def test_a_loss_that_is_not_finite(command, finished, tmp_path):
    message = refused(command, finished, *POISONED, "+callbacks.poison.step=4")
    assert "The loss was not finite at optimizer step 4" in message
    assert re.search(r"parameters no longer finite: backbone\.\S+, \S+, \S+ and \d+ more", message)
    assert "Lower optimizer.lr, raise method.temperature or lengthen" in message

    (run,) = (run for run in find_runs([tmp_path / "runs"]) if "-s9-" in run.id)
    assert run.status == "failed"
    assert "optimizer step 4" in run.error_file.read_text()
    good = run.checkpoint.read_bytes()
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["global_step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint["state_dict"].values())

    again = refused(command, finished, *POISONED, "+callbacks.poison.step=4")
    assert "at optimizer step 4" in again
    assert run.checkpoint.read_bytes() == good
    assert not run.results_file.exists()


def test_a_loss_that_is_never_looked_at_before_the_end(command, finished, tmp_path):
    message = refused(command, finished, *POISONED[:2], POISONED[3], "+callbacks.poison.step=2")
    assert "The loss was not finite at optimizer step 2" in message
    assert not list(tmp_path.rglob("*-s9-*/checkpoints/*"))


def test_a_learning_rate_that_is_far_too_high(command, finished):
    message = refused(command, finished, "subset.fraction=0.1", "optimizer.lr=1.0e30", "optimizer.warmup_epochs=0.0")
    assert re.search(r"The loss was not finite at optimizer step \d+", message)


@pytest.mark.reliability(
    "a full disk",
    lost="the checkpoint that did not fit; the former one stays",
    read="the file, `No space left on device`, and what to do",
)
def test_a_full_disk(command, finished, tmp_path, monkeypatch):
    def full(descriptor: int) -> None:
        if "last.ckpt" in os.readlink(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left on device" in refused(command, finished, "subset.fraction=0.1", "seed=9")
    (run,) = (run for run in find_runs([tmp_path / "runs"]) if "-s9-" in run.id)
    assert run.status == "failed"
    assert list((run.folder / "checkpoints").iterdir()) == []


@pytest.mark.nightly
@pytest.mark.parametrize("choices", ["1000,4", "4,1000"])
def test_a_failing_job_does_not_stop_the_others(command, finished, tmp_path, choices):
    before = contents(finished)
    arguments = (*TINY, "method=directclr", "subset.fraction=0.1", f"method.d0={choices}")
    outcome = command("ssl-train", "-m", *arguments)
    message, summary = messages(outcome)
    assert "method.d0 is 1000" in message
    number = choices.split(",").index("1000")
    assert summary == f"Error: 1 of 2 jobs done, 1 failed: #{number}. The same command tries them again."
    runs = {run.status: run for run in find_runs([tmp_path / "runs"]) if run.folder != finished}
    assert set(runs) == {"failed", "finished"}
    assert runs["finished"].results_file.exists()
    assert runs["failed"].error_file.read_text().startswith("method.d0 is 1000")
    assert contents(finished) == before

    report = command("ssl-report", "runs/default")
    assert report.code == 0
    text = (tmp_path / "runs/default/report/report.md").read_text()
    assert f"- failed: {runs['failed'].id}: method.d0 is 1000" in text
    assert "1 of 3 runs are not in the table" in text
    assert f"failed: {runs['failed'].id}"[:70] in report.out

    fixed = command("ssl-train", *TINY, "method=directclr", "subset.fraction=0.1", "method.d0=4")
    assert fixed.code == 0
    assert "is finished" in fixed.out


def test_a_sweep_with_a_failing_job_reports_and_fails(command, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        "defaults: [/train, override /method: directclr, _self_]\n"
        "sweep: grid\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {method.d0: '1000,4'}}}\n"
    )
    outcome = command("ssl-sweep", "grid.yaml", *TINY, "subset.fraction=0.1")
    message, summary = messages(outcome)
    assert "method.d0 is 1000" in message
    assert summary == "Error: 1 of 2 jobs done, 1 failed: #0. The same command tries them again."
    assert "1 of 2 runs are not in the table" in outcome.out
    assert (tmp_path / "runs/grid/report/report.md").exists()


@pytest.mark.one_in(2)
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("simclr", ("batch_size=1",), "batch_size is 1, which leaves 1 image to each process, but SimCLR compares"),
        ("directclr", ("batch_size=1",), "DirectCLR compares at least 2 with one another. Choose 2 or more"),
    ],
)
def test_one_image_cannot_be_contrasted(command, method, arguments, message):
    done = command("ssl-train", *TINY, f"method={method}", *arguments)
    assert done.code == 1
    assert message in done.err
    assert not list(Path("runs").rglob("*.ckpt"))


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", ["encoders", "report", "Report", "theory"])
def test_names_of_the_product_s_own_folders_are_no_sweeps(command, name, tmp_path):
    done = command("ssl-train", *TINY, f"sweep={name}")
    assert done.code == 1
    assert f"Error: sweep is '{name}', the folder of paths.runs where ssl-" in done.err
    assert not (tmp_path / "runs" / name).exists()


def test_a_callback_that_watches_what_nobody_logs(command, finished):
    callback = "+callbacks.stop._target_=lightning.pytorch.callbacks.EarlyStopping"
    message = refused(command, finished, "subset.fraction=0.1", callback, "+callbacks.stop.monitor=foo")
    assert "EarlyStopping watches 'foo'" in message


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("WANDB_MODE", "bogus", "wandb's setting mode is 'bogus'"),
        *(("WANDB_FINISH_TIMEOUT", value, f"WANDB_FINISH_TIMEOUT is '{value}', which is no") for value in ("abc", "0")),
    ],
)
def test_variables_of_wandb(command, finished, monkeypatch, variable, value, said):
    monkeypatch.setenv(variable, value)
    assert said in refused(command, finished, "logger=wandb", "seed=4")


@pytest.mark.one_in(3)
@pytest.mark.parametrize("precision", ["64-true", "16-true", "bf16-true", "half"])
def test_precisions_that_do_not_work_are_refused(command, precision):
    done = command("ssl-train", *TINY, f"trainer.precision={precision}")
    assert done.code == 1
    assert f"trainer.precision is '{precision}'" in done.err
