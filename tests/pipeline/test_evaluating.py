"""What a run is evaluated on: its own labels, those of other data, or none."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import Run, find_runs
from tests.composing import TINY
from tests.conftest import Outcome
from tests.data.synthetic import synthetic_images, write_fashion_mnist, write_image_folder
from tests.reports.test_report import rows

Command = Callable[..., Outcome]

NO_PROBES = tuple(item for item in TINY if not item.startswith("evaluation."))
SHORT = ("trainer.limit_train_batches=2", "subset.fraction=0.1")
NONE = (*NO_PROBES, "evaluation=none")


def only_run(folder: Path) -> Run:
    (run,) = find_runs([folder / "runs" / "default"])
    assert run.done
    return run


def error(outcome: Outcome) -> str:
    assert outcome.code != 0
    assert "Traceback" not in outcome.out + outcome.err
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("Error:"))
    return line


def test_without_labels_ranks_and_spectra_are_left(command: Command, tmp_path):
    done = command("ssl-train", *NONE, *SHORT)
    assert done.code == 0, done.err
    assert "RankMe" in done.out
    run = only_run(tmp_path)
    results = run.results()
    assert {name.partition("/")[0] for name in results["metrics"]} == {"representation", "embedding"}
    assert {name: len(values) for name, values in results["spectra"].items()} == {
        "representation": 16,
        "embedding": 128,
    }

    done = command("ssl-report", "runs/default")
    assert done.code == 0, done.err
    (row,) = rows((tmp_path / "runs/default/report/report.md").read_text())
    assert [row[column] for column in ("linear %", "k-NN %", "5-shot %")] == ["–"] * 3
    assert row["RankMe r"] == f"{results['metrics']['representation/rankme']:.1f}"

    done = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "evaluation=none")
    assert done.code == 0, done.err
    (file,) = run.folder.glob("evaluations/*.json")
    made = json.loads(file.read_text())
    assert made["metrics"] == pytest.approx(results["metrics"], rel=1e-4)
    assert made["optimizer_steps"] == results["cost"]["optimizer_steps"] > 0


def test_on_other_data_than_it_was_trained_on(command: Command, tmp_path):
    write_fashion_mnist(tmp_path / "data", num_train=60, num_test=40)
    done = command("ssl-train", *TINY, *SHORT, "evaluation.dataset=fashion_mnist")
    assert done.code == 0, done.err
    results = only_run(tmp_path).results()
    assert results["evaluation"]["dataset"]["name"] == "fashion_mnist"
    assert results["identity"]["dataset"] == "digits"
    share = 40 * results["metrics"]["knn/top1"]
    assert share == pytest.approx(round(share))  # of its 40 test images
    assert "did you mean 'fashion_mnist'?" in error(command("ssl-train", *TINY, "evaluation.dataset=fashion_mnst"))
    refused = error(command("ssl-train", *TINY, "evaluation.dataset=cifar10"))
    assert "evaluation.dataset has 3 channels, but the encoder is trained on images of 1" in refused


def test_a_further_evaluation_takes_the_checkpoint_alone(command: Command, tmp_path, monkeypatch):
    """Neither rankings nor proxies, and no logger is opened."""
    ranked = (*TINY, *SHORT, "subset=sas", "subset.looks=1", "batch_size=64")
    done = command("ssl-train", *ranked)
    assert done.code == 0, done.err
    run = only_run(tmp_path)
    before = run.metrics_file.read_bytes()
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(tmp_path / "runs" / "proxies")
    for work in ("lightning.Trainer.fit", "ssl_lightning.pipeline.pretrain.introduce"):
        monkeypatch.setattr(work, None)
    monkeypatch.setattr("ssl_lightning.pipeline.pretrain.MetricsFile", None)
    done = command("ssl-train", *ranked, "evaluation.k=3", "logger=tensorboard")
    assert done.code == 0, done.err
    assert [made["protocol"]["settings"]["k"] for made in run.evaluations()] == [3]
    assert "standard" not in done.out
    assert "(draws=1, few_percents=[], k=3, l2_grid=[0.001]) linear" in done.out
    assert run.metrics_file.read_bytes() == before
    assert not (tmp_path / "cache").exists()
    assert find_runs([tmp_path / "runs"]) == [run]


# A folder of images without labels


@pytest.fixture
def unlabelled(tmp_path: Path) -> tuple[str, ...]:
    """48 images in `images/train`, and what trains on them."""
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for i, image in enumerate(synthetic_images(48, 3, 3, 16)[0]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{i:02d}.png")
    return ("dataset=image_folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=16")


@pytest.mark.parametrize("storage", ["auto", "streamed"])
def test_images_without_labels_are_trained_on(command: Command, tmp_path, unlabelled, storage):
    streamed = (f"dataset.storage={storage}", "dataset.workers=1")
    done = command("ssl-train", *NONE, *unlabelled, *streamed, "trainer.log_every_n_steps=1")
    assert done.code == 0, done.err
    run = only_run(tmp_path)
    assert run.results()["mask"]["size"] == 48
    assert "representation/rankme" in run.results()["metrics"]
    metrics = read_metrics(run.metrics_file)
    assert metrics
    assert not any(name.startswith("online") for name in metrics[0])


def test_what_needs_labels_says_so_before_training(command: Command, tmp_path, unlabelled):
    message = error(command("ssl-train", *TINY, *unlabelled))
    assert "image_folder has no labelled train and test images, which the evaluation needs" in message
    assert "evaluation=none" in message
    message = error(command("ssl-train", *NONE, *unlabelled, "subset=random_balanced"))
    assert "subset=random_balanced needs the labels of all images, but 48 of the 48" in message
    message = error(command("ssl-train", *NONE, *unlabelled, "subset=el2n"))
    assert "needs the labels of all images" in message
    for name in ("ssl-train", "ssl-select"):
        message = error(command(name, *NONE, *unlabelled, "subset=sas"))
        assert "subset.latent=labels needs the labels of all images" in message
        assert "subset.latent=kmeans subset.latent.clusters=10" in message
    message = error(command("ssl-train", *NONE, *unlabelled, "subset=sas", "subset.latent=few_labels"))
    assert "subset.latent=few_labels learns from labels" in message
    message = error(command("ssl-train", *NONE, *unlabelled, "subset=sas", "latent@subset.latent=kmeans"))
    assert "subset.latent.clusters=10" in message
    message = error(command("ssl-train", *NONE, *unlabelled, "subset=prototypes"))
    assert "subset.clusters=10" in message
    assert not list(tmp_path.rglob("checkpoints"))


def test_they_are_ranked_within_clusters(command: Command, tmp_path, unlabelled):
    clusters = ("subset=sas", "latent@subset.latent=kmeans", "subset.latent.clusters=4", "subset.looks=1")
    done = command("ssl-select", *NONE, *unlabelled, *clusters)
    assert done.code == 0, done.err
    assert "4 latent classes" in done.out
    assert "purity –" in " ".join(done.out.split())
    done = command("ssl-train", *NONE, *unlabelled, *clusters, "subset.fraction=0.5")
    assert done.code == 0, done.err
    assert only_run(tmp_path).results()["mask"] == {**only_run(tmp_path).results()["mask"], "size": 24, "rule": "sas"}
    assert len(np.load(next(tmp_path.glob("cache/rankings/*.npz")))["order"]) == 48


def test_data_that_have_moved_can_be_named(command: Command, tmp_path):
    folder = ("dataset=image_folder", "dataset.image_size=8")
    write_image_folder(tmp_path / "here", num_train=20, num_test=10)
    args = (*folder, "batch_size=8", "trainer=cpu", "trainer.max_epochs=1", "backbone.width=4", "evaluation=none")
    assert command("ssl-train", *args, "dataset.root=here").code == 0
    run = only_run(tmp_path)
    (tmp_path / "here").rename(tmp_path / "there")
    lines = error(command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "evaluation.few_percents=[]"))
    assert "no images in" in lines
    assert "dataset=<option> dataset.root=<folder> dataset.image_size=8" in lines
    lines = error(command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "dataset.root=there"))
    assert "dataset.root: no dataset is chosen. Choose one beside it: dataset=<one of cifar10," in lines
    found = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", *folder, "dataset.root=there")
    assert found.code == 0, found.err


def test_a_finished_run_says_why_it_is_evaluated_again(command: Command, tmp_path):
    write_image_folder(tmp_path / "here", num_train=40, num_test=20)
    args = ("dataset=image_folder", "dataset.root=here", "dataset.image_size=8", "batch_size=8", "trainer=cpu")
    args += ("trainer.max_epochs=1", "backbone.width=4", "evaluation.few_shots=[]", "evaluation.few_percents=[]")
    assert command("ssl-train", *args).code == 0
    assert "is finished" in command("ssl-train", *args).out
    shutil.copy(next((tmp_path / "here/test/class_001").iterdir()), tmp_path / "here/test/class_000/more.png")
    out = command("ssl-train", *args).out
    assert "is evaluated again: the images of image_folder are others by now, or read in another way." in out
    assert len(list(only_run(tmp_path).folder.glob("evaluations/*.json"))) == 1
    assert "evaluated again" not in command("ssl-train", *args).out
