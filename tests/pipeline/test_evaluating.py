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
from tests.data.of_torchvision import CLASSES, write
from tests.data.synthetic import synthetic_images, write_cifar10, write_fashion_mnist, write_image_folder
from tests.reports.test_report import rows

Command = Callable[..., Outcome]

NO_PROBES = tuple(item for item in TINY if not item.startswith("evaluation."))
SHORT = ("trainer.limit_train_batches=2", "subset.fraction=0.1")
CLUSTERS = ("latent@subset.latent=kmeans", "subset.latent.clusters=4")
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


@pytest.mark.nightly
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


@pytest.mark.one_in(2)
@pytest.mark.parametrize("storage", ["auto", "streamed"])
def test_images_without_labels_are_trained_on(command: Command, tmp_path, unlabelled, storage):
    streamed = (f"dataset.storage={storage}", "dataset.workers=1")
    done = command("ssl-train", *TINY, *unlabelled, *streamed, "trainer.log_every_n_steps=1")
    assert done.code == 0, done.err
    assert "image_folder: train/: 48 images for training, without labels." in done.out
    assert "image_folder has no labels: evaluation=none is chosen" in done.out
    assert "evaluation.dataset=cifar10" in done.out
    run = only_run(tmp_path)
    chosen = run.results()["protocol"]
    assert command("ssl-train", *NONE, *unlabelled, *streamed, "force=true").code == 0
    assert only_run(tmp_path).results()["protocol"] == chosen  # as if it had been asked for
    assert run.results()["mask"]["size"] == 48
    assert "representation/rankme" in run.results()["metrics"]
    metrics = read_metrics(run.metrics_file)
    assert metrics
    assert not any(name.startswith("online") for name in metrics[0])


def test_one_class_leaves_probes_nothing_to_tell_apart(command: Command, tmp_path):
    write_image_folder(tmp_path / "images", 8, 2, num_classes=1, size=16)
    images = ("dataset=image_folder", f"dataset.root={tmp_path / 'images'}", "dataset.image_size=16")
    message = error(command("ssl-train", *TINY, *images))
    assert "all labelled images are of one class" in message
    assert not list(tmp_path.rglob("checkpoints"))


@pytest.mark.nightly
def test_what_needs_labels_says_so_before_training(command: Command, tmp_path, unlabelled):
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


@pytest.mark.nightly
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


@pytest.mark.one_in(2)
@pytest.mark.parametrize("probe", ["lbfgs", "sgd"])
def test_some_labels_are_enough_for_every_probe(command: Command, tmp_path, unlabelled, probe):
    labels = synthetic_images(48, 3, 3, 16)[1]
    rows = [
        f"train/{i:02d}.png,{label if i % 3 else ''},{'train' if i < 36 else 'test'}" for i, label in enumerate(labels)
    ]
    (tmp_path / "list.csv").write_text("\r\n".join(row for row in rows if not row.endswith(",,test")))
    few = ("evaluation.few_shots=[1]", "evaluation.few_percents=[50.0]", "evaluation.draws=1", "evaluation.epochs=1")
    shown = ("dataset.labels=list.csv", f"evaluation.linear={probe}", *few)
    done = command("ssl-train", *NO_PROBES, *unlabelled, *shown, "subset=sas", "subset.looks=1", *CLUSTERS)
    assert done.code == 0, done.err
    assert "list.csv: 36 images for training, 24 of them labelled, in 3 classes, 8 for test." in done.out
    results = only_run(tmp_path).results()
    linear = "linear" if probe == "lbfgs" else "linear_sgd"
    assert {f"{linear}/top1", "knn/top1", "linear_1shot/top1", "linear_50pct/top1"} <= set(results["metrics"])
    assert results["mask"]["size"] == 36


@pytest.mark.nightly
def test_arrays_of_many_channels_go_all_the_way(command: Command, tmp_path):
    """16 bits, five channels: trained, ranked, shown, evaluated and reported."""
    images, labels = synthetic_images(60, 3, 5, 8)
    np.savez(tmp_path / "x.npz", x=images.transpose(0, 2, 3, 1).astype(np.uint16) * 16, y=labels)
    given = ("dataset=arrays", "dataset.path=x.npz", "dataset.split=0.2", "dataset.image_size=8", "dataset.channels=5")
    message = error(
        command("ssl-train", *TINY, *given, "dataset.mean=[0,0,0,0,0]", "dataset.std=[1,1,1,1,1]", "sweep=refused")
    )
    assert "Choose augment=geometric" in message
    given += ("dataset.mean=[0.5,0.5,0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2,0.2,0.2]", "augment=geometric")
    ranked = ("subset=sas", "subset.looks=1")
    done = command("ssl-select", *TINY, *given, *ranked)
    assert done.code == 0, done.err
    assert list(tmp_path.glob("cache/rankings/*.images.png"))
    done = command("ssl-train", *TINY, *given, *ranked, "subset.fraction=0.5")
    assert done.code == 0, done.err
    assert "arrays: x.npz, split=0.2: 48 images for training in 3 classes, 12 for test." in done.out
    assert "are scaled to 0 to 255" in done.out
    done = command("ssl-evaluate", f"run={only_run(tmp_path).folder}", "trainer=cpu", "evaluation.few_percents=[]")
    assert done.code == 0, done.err
    done = command("ssl-report", "runs/default")
    assert done.code == 0, done.err
    assert "arrays" in done.out


def test_other_data_with_labels_evaluate_what_was_trained_without(command: Command, tmp_path, unlabelled):
    write_image_folder(tmp_path / "labelled", num_train=40, num_test=20, size=16)
    other = ("+dataset@evaluation.dataset=image_folder", "evaluation.dataset.root=labelled")
    other += ("evaluation.dataset.image_size=16", "evaluation.dataset.name=labelled")
    done = command("ssl-train", *TINY, *unlabelled, *other)
    assert done.code == 0, done.err
    assert "evaluation=none" not in done.out
    run = only_run(tmp_path)
    assert run.results()["protocol"]["dataset"] == "labelled"
    assert "linear/top1" in run.results()["metrics"]
    here = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu")
    assert here.code == 0, here.err
    assert "evaluation=none is chosen" in here.out
    assert "To evaluate on labelled data, name them: dataset=cifar10" in here.out
    for asked in ("finetune", "episodes", "corruptions", "calibration", "universality", "map"):
        refused = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", f"evaluation={asked}")
        assert refused.code == 1
        assert f"evaluation={asked} needs labels, but image_folder has no labels. Name labelled data" in refused.err


@pytest.mark.nightly
def test_data_that_have_moved_can_be_named(command: Command, tmp_path):
    folder = ("dataset=image_folder", "dataset.image_size=8")
    write_image_folder(tmp_path / "here", num_train=20, num_test=10)
    args = (*folder, "batch_size=8", "trainer=cpu", "trainer.max_epochs=1", "backbone.width=4", "evaluation=none")
    assert command("ssl-train", *args, "dataset.root=here").code == 0
    run = only_run(tmp_path)
    (tmp_path / "here").rename(tmp_path / "there")
    lines = error(command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "evaluation.few_percents=[]"))
    assert "there is no folder" in lines
    assert "dataset=<option> dataset.root=<folder> dataset.image_size=8" in lines
    lines = error(command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", "dataset.root=there"))
    assert "dataset.root: no dataset is chosen. Choose one beside it: dataset=<one of aircraft, arrays," in lines
    found = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", *folder, "dataset.root=there")
    assert found.code == 0, found.err


@pytest.mark.nightly
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


# Many datasets by one command


@pytest.fixture
def trained(command: Command, tmp_path: Path) -> Run:
    """On the grey images of digits."""
    done = command("ssl-train", *TINY, *SHORT)
    assert done.code == 0, done.err
    return only_run(tmp_path)


PROBES = ("evaluation.draws=1", "evaluation.few_shots=[1]", "evaluation.l2_grid=[1.0e-3]")


def left_out(outcome: Outcome) -> dict[str, str]:
    """By dataset, why."""
    lines = [line.partition(" is left out: ") for line in outcome.out.splitlines() if " is left out: " in line]
    return {name: reason for name, _, reason in lines}


@pytest.mark.nightly
def test_transfer_takes_what_is_there_and_names_what_is_not(command: Command, tmp_path, monkeypatch, trained):
    write_fashion_mnist(tmp_path / "data", num_train=60, num_test=40)
    write_cifar10(tmp_path / "data")
    for which in ("svhn", "pets", "dtd", "eurosat"):
        write(which, tmp_path / ("elsewhere" if which == "pets" else "data"), monkeypatch, number=24)
    write_image_folder(tmp_path / "photos", num_train=40, num_test=20, num_classes=3)
    asked = (f"run={trained.folder}", "trainer=cpu", "evaluation=transfer", *PROBES)
    asked += ("evaluation.datasets.pets.root=elsewhere", "~evaluation.datasets.stl10")
    asked += tuple(f"evaluation.datasets.{which}.num_classes={CLASSES}" for which in ("pets", "svhn", "dtd"))
    mine = "evaluation.datasets.mine"
    asked += (f"+dataset@{mine}=image_folder", f"{mine}.root=photos", f"{mine}.name=photos")
    done = command("ssl-evaluate", *asked)
    broken = "Error: eurosat of evaluation.datasets was to be evaluated on, and could not be; the lines above say why."
    assert error(done).startswith(broken)
    assert "6 of 12 datasets were evaluated on" in done.out
    why = left_out(done)
    assert {*why} == {"cifar10", "cifar100", "flowers102", "eurosat", "aircraft", "caltech101"}
    assert why["cifar10"] == "its images have 3 channels, and the encoder sees 1."
    assert why["flowers102"] == (
        f"there is no flowers-102 in {tmp_path / 'data'}. Fetch it with evaluation.datasets.flowers102.download=true, "
        "or say where it lies with evaluation.datasets.flowers102.root=<folder>."
    )
    # This one is broken: it stops none of the others.
    assert why["eurosat"].startswith("evaluation.datasets.eurosat.num_classes is 10, but the images of eurosat have 3:")
    made = {made["dataset"]: made for made in trained.evaluations()}
    assert {*made} == {"digits", "fashion_mnist", "svhn", "pets", "dtd", "photos"}
    for name, result in made.items():
        assert {"linear/top1", "knn/top1", "linear_1shot/top1"} <= set(result["metrics"]), name
        assert result["protocol"]["settings"]["few_percents"] == []
    for name in ("svhn", "pets", "dtd", "photos"):  # decoded as digits are, to which their means belong
        assert made[name]["protocol"]["reading"]["image_size"] == 8
        assert made[name]["protocol"]["reading"]["channels"] == 1

    def forbidden(*_: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("ssl_lightning.pipeline.measuring.extract", forbidden)
    monkeypatch.setattr("ssl_lightning.pipeline.evaluate.write_json", forbidden)
    again = command("ssl-evaluate", *asked)
    assert error(again).startswith(broken)
    assert left_out(again) == why
    # What is not there is no error of a list, unless the command names it.
    absent = command("ssl-evaluate", *asked, "~evaluation.datasets.eurosat")
    assert absent.code == 0, absent.err
    asked = (*asked, "~evaluation.datasets.eurosat", "evaluation.datasets.dtd.root=nowhere")
    assert error(command("ssl-evaluate", *asked)).startswith("Error: dtd of evaluation.datasets was to be evaluated on")
    assert {made["dataset"] for made in trained.evaluations()} == {*made}

    done = command("ssl-report", "runs/default")
    assert done.code == 0, done.err
    text = (tmp_path / "runs/default/report/report.md").read_text()
    (row,) = rows(text.partition("\n## Transfer\n")[2].partition("\n## Seconds\n")[0])
    shown = {"own data, draws=1, few_percents=[], l2_grid=[0.001]", *(f"on {name}" for name in made)}
    assert {*row} - {"method", "fraction"} == {f"{probe} % {name}" for probe in ("linear", "k-NN") for name in shown}


@pytest.mark.nightly
def test_transfer_with_nothing_there_or_two_answers_is_refused(command: Command, trained):
    asked = (f"run={trained.folder}", "trainer=cpu", "evaluation=transfer", *PROBES)
    message = error(command("ssl-evaluate", *asked, "dataset=digits"))
    assert "+dataset@evaluation.datasets.NAME=<option>" in message
    none = command("ssl-evaluate", *asked, "~evaluation.datasets.digits", "~evaluation.datasets.fashion_mnist")
    assert error(none).endswith("None of evaluation.datasets can be evaluated on; the lines above say what to do.")
    assert len(left_out(none)) == 10
