"""Every method on every dataset with every rule of choosing samples; and what a short run leaves behind."""

import csv
import itertools
import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf
from PIL import Image

from ssl_lightning.commands.train import train
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import Run
from tests.composing import TINY, composed
from tests.data.of_torchvision import CLASSES, WRITERS, write
from tests.data.synthetic import (
    synthetic_images,
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_image_folder,
    write_stl10,
    write_tiny_imagenet,
)


def options(group: str) -> list[str]:
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a tiny archive of each dataset in its native format, and a list of positions."""
    folder = tmp_path_factory.mktemp("data")
    write_cifar10(folder)
    write_cifar100(folder)
    write_fashion_mnist(folder)
    write_image_folder(folder / "image_folder")
    write_image_folder(folder / "imagenet")
    write_stl10(folder)
    write_tiny_imagenet(folder / "tiny-imagenet-200.zip", per_class=8)
    images, labels = synthetic_images(40, 3, 3, 32)
    pixels = images.transpose(0, 2, 3, 1)
    np.savez(folder / "arrays.npz", x_train=pixels[:28], y_train=labels[:28], x_test=pixels[28:], y_test=labels[28:])
    if find_spec("datasets") is not None:
        import datasets

        table = datasets.Dataset.from_dict({"image": list(map(Image.fromarray, pixels)), "label": labels.tolist()})
        table = table.cast_column("image", datasets.Image())
        parts = {"train": table.select(range(28)), "test": table.select(range(28, 40))}
        datasets.DatasetDict(parts).save_to_disk(str(folder / "huggingface"))
    (folder / "positions.txt").write_text("\n".join(map(str, range(20))))
    with pytest.MonkeyPatch.context() as patch:
        for name in WRITERS:
            write(name, folder, patch, number=24)
        yield folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working directory; and no command was given."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    HydraConfig.instance().cfg = None


def start(*overrides: str) -> Run:
    config = composed(*TINY, *overrides)
    HydraConfig.instance().cfg = None
    return train(config)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, locks left out: they are empty and stay."""
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.endswith(".lock"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


class Steps:
    """Counts optimizer steps, and whether they changed a parameter."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.number = 0
        self.changes = 0
        original = torch.optim.AdamW.step

        def step(optimizer: torch.optim.AdamW, closure=None):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            before = [p.detach().clone() for p in parameters]
            result = original(optimizer, closure)
            self.number += 1
            self.changes += any(not torch.equal(p, b) for p, b in zip(parameters, before, strict=True))
            assert all(torch.isfinite(p).all() for p in parameters)
            return result

        monkeypatch.setattr(torch.optim.AdamW, "step", step)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


SCORES = (
    *("alignment", "d2", "dbp", "density", "facility_location", "herding", "hierarchical_kmeans", "k_center"),
    *("moderate", "random_in_groups", "semdedup", "ssl_loss"),
)
"""Rules that look at embeddings as `sas` and `prototypes` do."""
PROXIES = {
    **dict.fromkeys(("sas", "sas_row_sum", "prototypes", *SCORES), 1),
    **dict.fromkeys(("ccs", "el2n", "el2n_hardest", "grand", "forgetting"), 3),
    "elfs": 4,
}
"""Rules that rank, once for all methods, and how many proxies they train for it."""

USUAL = ("simclr", "fashion_mnist", "random")
METHODS = ("simclr", "gessl", "supervised")
RULES = ("full", "file", "sas", "el2n", "elfs", "random", "random_balanced")
"""What stands for others of its kind: with one loss, with steps of its own and with labels; a given list, one proxy,
several, several that learn what another sees, and none."""


def _grid() -> Iterator[Any]:
    """Every pair of a method, a dataset and a rule, the third being that of `USUAL`. What does not interact is left to
    the nightly tests: rules do not know the method, and neither of both knows more of a dataset than its kind. On grey
    images all methods are tried, and the rules that stand for others; on streamed ones the methods that do;
    torchvision's further datasets never."""
    for method, dataset, subset in itertools.product(options("method"), options("dataset"), options("subset")):
        if subset in PROXIES and method != "simclr":
            continue
        if subset == "scores":  # its file is of one dataset: tests/subsets/test_scores.py
            continue
        if all(one != usual for one, usual in zip((method, dataset, subset), USUAL, strict=True)):
            continue
        if dataset in ("arrays", "huggingface", *WRITERS) and (method, subset) != ("simclr", "random"):
            continue  # decoded once, they are as others
        if subset in (*SCORES, "elfs") and dataset not in ("fashion_mnist", "imagenet", "stl10"):
            continue  # grey, streamed, partly labelled: they know nothing else of a dataset
        grey = dataset == "fashion_mnist"
        rule_by_kind = method == "simclr" and grey and subset in RULES
        method_by_kind = subset == "random" and (grey or (dataset == "imagenet" and method in METHODS))
        any_dataset = (method, subset) == ("simclr", "random") and dataset not in WRITERS
        marks = () if rule_by_kind or method_by_kind or any_dataset else pytest.mark.nightly
        yield pytest.param(method, dataset, subset, marks=marks)


SETTINGS = {
    "arrays": ["dataset.path=${paths.data}/arrays.npz", "dataset.num_classes=3"],
    "huggingface": ["dataset.path=${paths.data}/huggingface", "dataset.num_classes=3"],
    "image_folder": ["dataset.root=${paths.data}/image_folder", "dataset.num_classes=10"],
    "imagenet": ["dataset.image_size=32", "dataset.num_classes=10", "dataset.storage=streamed", "dataset.workers=1"],
    "tiny_imagenet": ["dataset.num_classes=3"],
    **{name: [f"dataset.num_classes={CLASSES}", "dataset.image_size=16"] for name in WRITERS},
}
CLUSTERS = {
    **{name: ["subset.clusters=4"] for name in ("prototypes", "dbp")},
    **{name: ["subset.latent.clusters=4"] for name in ("density", "facility_location", "herding")},
    **{name: ["subset.latent.clusters=4"] for name in ("random_in_groups", "semdedup")},
    "hierarchical_kmeans": ["subset.latent.clusters=[4,2]"],
    "elfs": ["subset.pseudo_labels.latent.clusters=4"],
}
ALL_LABELS = (
    *("sas", "sas_row_sum", "random_balanced", "el2n", "el2n_hardest", "grand", "forgetting", "ccs", "moderate"),
    "supervised",
)
"""What needs a label of every image, which STL-10 has not."""


@pytest.mark.one_in(2)
@pytest.mark.usefixtures("no_figures")  # which know none of them
@pytest.mark.parametrize(("method", "dataset", "subset"), list(_grid()))
def test_every_pair_of_method_dataset_and_subset_runs(method, dataset, subset, data, place, steps):
    if dataset == "huggingface":
        pytest.importorskip("datasets", reason="the package datasets is not installed")
    overrides = [f"method={method}", f"dataset={dataset}", f"subset={subset}", "trainer.fast_dev_run=true"]
    overrides += [f"paths.data={data}", f"paths.cache={data / 'cache'}"]
    overrides += SETTINGS.get(dataset, [])
    overrides += CLUSTERS.get(subset, [])
    overrides += [f"subset.path={data / 'positions.txt'}"] if subset == "file" else []
    overrides += [] if subset in ("full", "file") else ["subset.fraction=0.5"]
    if dataset == "stl10" and {method, subset} & {*ALL_LABELS}:
        with pytest.raises(UserError, match="needs the labels of all images, but 24 of the 44"):
            start(*overrides)
        return
    start(*overrides)
    trainings = 1 + PROXIES.get(subset, 0)
    assert (steps.number, steps.changes) == (trainings, trainings)
    assert list(place.iterdir()) == []
    assert not (data / "cache" / "rankings").exists()


SHORT = ("trainer.limit_train_batches=2", "trainer.log_every_n_steps=1")


ALONE = ("byol", "gessl", "supervised")
"""With a teacher, another method inside, and labels: others are left to the nightly tests."""


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in ALONE else pytest.mark.nightly) for name in options("method")]
)
def test_what_a_run_leaves(method, place):
    run = start(f"method={method}", *SHORT, "trainer.max_epochs=2", "seed=3", "subset.fraction=0.1", "sweep=short")
    assert run.folder.parent == Path("runs/short")
    assert run.status == "finished"
    kept = ("config.yaml", "checkpoints/last.ckpt", "metrics.csv", "results.json", "DONE")
    figures = ("figures/curves.png", "figures/spectrum.png")
    assert set(contents(place / run.folder)) == {*kept, *figures}
    for name in figures:
        with Image.open(run.folder / name) as image:
            assert image.format == "PNG"
            image.load()

    with run.metrics_file.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    assert [int(row["epoch"]) for row in rows] == [0, 0, 1, 1]
    for row in rows:
        assert math.isfinite(float(row["loss"]))
        assert math.isfinite(float(row["online/loss"]))
        assert float(row["lr"]) > 0

    checkpoint = torch.load(run.checkpoint, weights_only=True)
    assert checkpoint["global_step"] == 4

    config = composed(*TINY, f"method={method}", *SHORT, "trainer.max_epochs=2", "seed=3", "subset.fraction=0.1")
    expected = resolve(config) | {"sweep": "short"}
    assert run.config() == expected
    assert resolve(OmegaConf.create(run.config())) == expected


@pytest.mark.usefixtures("no_figures")
def test_results_follow_the_schema(place):
    run = start(*SHORT, "subset.fraction=0.1", "evaluation.untrained=true")
    results = json.loads(run.results_file.read_text())
    assert results["schema"] == 2
    assert results["run"] == run.id == run.folder.name
    assert results["identity"] == {
        "method": "simclr",
        "dataset": "digits",
        "subset": "random",
        "fraction": 0.1,
        "seed": 0,
        "budget": "epochs",
    }
    assert results["mask"]["size"] == 126  # of 1257
    assert results["mask"]["rule"] == "random"
    assert len(results["mask"]["digest"]) == 16
    metrics = ("linear/top1", "linear_5shot/top1", "knn/top1")
    ranks = ("representation/rankme", "embedding/rankme")
    assert {*metrics, *ranks} < set(results["metrics"])
    assert set(results["untrained"]) == set(results["metrics"])
    assert all(0 <= results["metrics"][name] <= 1 for name in metrics)
    cost = results["cost"]
    assert cost["optimizer_steps"] == cost["gradient_evaluations"] == 2
    assert cost["images_seen"] == 16
    assert cost["train_seconds"] > 0
    assert cost["images_per_second"] == pytest.approx(16 / cost["train_seconds"])
    assert cost["peak_memory_bytes"] > 0
    assert set(results["environment"]) >= {"versions", "device", "world_size", "git"}
    assert {"ssl-lightning", "torch", "torchvision", "lightning", "hydra-core", "python"} == set(
        results["environment"]["versions"]
    )
    assert results["environment"]["world_size"] == 1
    spectra = results["spectra"]
    assert {name: len(values) for name, values in spectra.items()} == {"representation": 16, "embedding": 128}
    assert all(values == sorted(values, reverse=True) for values in spectra.values())


@pytest.mark.reliability(
    "figures cannot be drawn",
    lost="the figures",
    read="`Warning: drawing the figures … has failed, but the run has not`",
)
def test_a_figure_that_cannot_be_drawn_costs_no_result(place, monkeypatch, capsys):
    def fail(run, results):
        raise RuntimeError("no such font")

    monkeypatch.setattr("ssl_lightning.pipeline.finished.run_figures", fail)
    run = start(*SHORT, "subset.fraction=0.1")
    assert run.done
    assert run.results()["metrics"]["linear/top1"] > 0
    assert "Warning: drawing the figures of" in capsys.readouterr().err


@pytest.mark.usefixtures("no_figures")
def test_a_finished_run_started_again_prints_its_results_and_does_nothing(place, steps, capsys):
    arguments = (*SHORT, "subset.fraction=0.1")
    run = start(*arguments)
    before, made = contents(place), steps.number
    results = run.results()["metrics"]
    capsys.readouterr()
    assert start(*arguments) == run
    out = capsys.readouterr().out
    assert f"{run.id} is finished: linear {results['linear/top1']:.3f}  k-NN {results['knn/top1']:.3f}" in out
    assert steps.number == made == 2
    assert contents(place) == before


@pytest.mark.usefixtures("no_figures")
def test_a_further_evaluation_needs_no_training(place, steps):
    arguments = (*SHORT, "subset.fraction=0.1")
    run = start(*arguments)
    before, results, made = contents(place), run.results(), steps.number
    further = (*arguments, "evaluation.few_shots=[2]")
    assert start(*further) == run
    assert steps.number == made
    after = contents(place)
    assert {name: after[name] for name in before} == before  # nothing is put in the place of what was there
    assert len(after) == len(before) + 1
    (now,) = run.evaluations()
    assert now["protocol"]["settings"] == results["protocol"]["settings"] | {"few_shots": [2]}
    assert set(now["metrics"]) - set(results["metrics"]) == {"linear_2shot/top1"}
    alike = [name for name in results["metrics"] if "shot" not in name]
    assert {name: now["metrics"][name] for name in alike} == pytest.approx({n: results["metrics"][n] for n in alike})

    assert start(*further) == run
    assert contents(place) == after
    start(*arguments, "evaluation.untrained=true")  # which is no other protocol
    assert steps.number == made
    both = run.results()
    assert set(both.pop("untrained")) == set(both["metrics"])
    assert both == results
    assert len(run.evaluations()) == 1


@pytest.mark.usefixtures("no_figures")
def test_another_config_gets_another_folder(place):
    first = start(*SHORT, "subset.fraction=0.1")
    before = contents(place / first.folder)
    second = start(*SHORT, "subset.fraction=0.1", "method.temperature=0.5")
    assert second.folder != first.folder
    assert second.folder.parent == first.folder.parent
    assert contents(place / first.folder) == before


@pytest.mark.usefixtures("no_figures")
@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_equal_steps_whatever_the_fraction(fraction, place, steps):
    run = start("budget=steps", "batch_size=64", f"subset.fraction={fraction}")
    assert steps.number == run.results()["cost"]["optimizer_steps"] == 1257 // 64
