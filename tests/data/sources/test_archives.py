"""STL-10 and TinyImageNet in their native formats."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from ssl_lightning.data.dataset import Split
from ssl_lightning.data.sources.stl10 import STL10
from ssl_lightning.data.sources.tiny_imagenet import TinyImageNet
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.latent import FewLabels, Labels, purity
from ssl_lightning.subsets.random import Random, RandomBalanced
from ssl_lightning.subsets.rule import Subset
from tests.conftest import Outcome
from tests.data.synthetic import write_stl10, write_tiny_imagenet

SETTINGS = {"channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3}


def stl10_of(root: Path) -> STL10:
    return STL10(
        name="stl10", root=str(root), cache=str(root / "cache"), image_size=96, num_classes=10, stem="stl", **SETTINGS
    )


def assert_split(split: Split, images: np.ndarray, labels: np.ndarray) -> None:
    assert isinstance(split.images, torch.Tensor)
    np.testing.assert_array_equal(split.images.numpy(), images)
    np.testing.assert_array_equal(split.labels.numpy(), labels)


def test_stl10_trains_on_all_and_probes_on_the_labelled(tmp_path):
    written = write_stl10(tmp_path)
    dataset = stl10_of(tmp_path)
    all_images = np.concatenate([written["train"], written["unlabeled"]])
    assert_split(dataset.train(), all_images, np.concatenate([written["train_labels"], np.full(24, -1)]))
    assert_split(dataset.labelled(), written["train"], written["train_labels"])
    assert_split(dataset.test(), written["test"], written["test_labels"])
    assert dataset.fingerprint().length == 44
    held_out = dataset.validation()
    assert len(held_out) == 44
    assert held_out[:20].sum() == 10  # one of each class
    assert not held_out[20:].any()
    assert Subset(Random(), 0.5).cut(Random().ranking(dataset)).size == 22
    # Another process finds what was written upright.
    assert stl10_of(tmp_path).fingerprint() == dataset.fingerprint()


def test_what_needs_all_labels_says_so(tmp_path):
    write_stl10(tmp_path)
    dataset = stl10_of(tmp_path)
    features = np.random.default_rng(0).normal(size=(44, 5)).astype(np.float32)
    for name, act in (
        ("subset=random_balanced", lambda: RandomBalanced().ranking(dataset)),
        ("subset.latent=labels", lambda: Labels().assign(dataset, features, 0)),
    ):
        with pytest.raises(UserError, match=f"{name} needs the labels of all images, but 24 of the 44"):
            act()
    assigned = FewLabels(percent=100.0).assign(dataset, features, 0)
    labels = dataset.labelled().labels.numpy()
    np.testing.assert_array_equal(assigned[:20], labels)
    assert purity(assigned, dataset.train().labels.numpy()) == 1


def test_stl10_is_unpacked_from_its_archive(tmp_path):
    written = write_stl10(tmp_path / "elsewhere")
    with tarfile.open(tmp_path / "stl10_binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "elsewhere" / "stl10_binary", "stl10_binary")
    np.testing.assert_array_equal(stl10_of(tmp_path).test().images.numpy(), written["test"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("unlabeled_X.bin", lambda content: content[:-1], "unlabeled_X.bin is truncated or damaged"),
        ("train_y.bin", lambda content: content[:-1], "train_y.bin holds 19 labels, but train_X.bin beside it 20"),
        ("train_y.bin", lambda content: bytes([11]) + content[1:], "labels of train run from"),
    ],
)
def test_damaged_stl10(tmp_path, name, change, message):
    write_stl10(tmp_path)
    file = tmp_path / "stl10_binary" / name
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(UserError, match=message):
        stl10_of(tmp_path).train()


def test_missing_stl10_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match=r"no train_X.bin in .*stl10_binary.*dataset.download=true"):
        stl10_of(tmp_path).prepare()


RUN = (
    "trainer=cpu",
    "trainer.max_epochs=1",
    "trainer.enable_progress_bar=false",
    "backbone.width=8",
    "batch_size=8",
    "evaluation.l2_grid=[0.01]",
    "evaluation.few_shots=[1]",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
)


@pytest.mark.nightly
def test_a_run_on_stl10(command, tmp_path):
    write_stl10(tmp_path / "data")
    done: Outcome = command("ssl-train", "dataset=stl10", "subset.fraction=0.5", *RUN)
    assert done.code == 0, done.err
    (file,) = tmp_path.glob("runs/default/*/results.json")
    assert '"size": 22' in file.read_text()
    refused = command("ssl-train", "dataset=stl10", "method=supervised", *RUN)
    assert refused.code == 1
    assert "method=supervised needs the labels of all images" in refused.err


def tiny_of(root: Path, **settings) -> TinyImageNet:
    values = {"name": "tiny_imagenet", "root": str(root), "cache": str(root / "cache"), "image_size": 64}
    return TinyImageNet(**values, num_classes=3, storage="resident", **SETTINGS, **settings)


def test_tiny_imagenet_reads_the_archive_and_its_annotations(tmp_path):
    abandoned = tmp_path / ".tiny-imagenet-200-killed" / "tiny-imagenet-200"
    abandoned.mkdir(parents=True)  # by a process that was killed while it unpacked
    images, labels = write_tiny_imagenet(tmp_path / "tiny-imagenet-200.zip")
    dataset = tiny_of(tmp_path)
    assert_split(dataset.test(), images, np.array(labels))
    assert dataset.train().labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert not abandoned.exists()
    assert not list(tmp_path.glob(".tiny-imagenet-200-*"))
    key = dataset.content_digest("train")
    (tmp_path / "tiny-imagenet-200.zip").unlink()
    streamed = TinyImageNet(**{**vars_of(tiny_of(tmp_path)), "storage": "streamed"})
    assert torch.equal(streamed.test().images[:], dataset.test().images)
    assert streamed.content_digest("train") != key


def vars_of(dataset: TinyImageNet) -> dict:
    from dataclasses import fields

    return {f.name: getattr(dataset, f.name) for f in fields(dataset) if f.init}


def test_tiny_imagenet_with_a_sorted_val(tmp_path):
    images, labels = write_tiny_imagenet(tmp_path / "tiny-imagenet-200.zip", sorted_val=True)
    order = np.argsort(labels, kind="stable")
    assert_split(tiny_of(tmp_path).test(), images[order], np.array(labels)[order])


def test_damaged_tiny_imagenet(tmp_path):
    with pytest.raises(UserError, match=r"no .*tiny-imagenet-200, and no tiny-imagenet-200.zip.*dataset.download=true"):
        tiny_of(tmp_path).prepare()
    archive = tmp_path / "tiny-imagenet-200.zip"
    write_tiny_imagenet(archive)
    content = archive.read_bytes()
    archive.write_bytes(content[:1000])
    with pytest.raises(UserError, match=r"tiny-imagenet-200\.zip is damaged or truncated"):
        tiny_of(tmp_path).prepare()
    assert not (tmp_path / "tiny-imagenet-200").exists()
    archive.write_bytes(content)
    tiny_of(tmp_path).prepare()
    annotations = tmp_path / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    annotations.write_text(annotations.read_text().replace("n02", "n99"))
    with pytest.raises(UserError, match=r"val_annotations\.txt does not tell a class of train for each image"):
        tiny_of(tmp_path).test()
    os.remove(annotations)
    with pytest.raises(UserError, match=r"val_annotations\.txt does not tell"):
        tiny_of(tmp_path).test()
