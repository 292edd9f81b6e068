"""Datasets of Hugging Face's library, made here: nothing is fetched."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ssl_lightning.data.sources.huggingface import HuggingFace
from ssl_lightning.errors import UserError
from tests.data.synthetic import synthetic_images, write_image_folder

IMAGES, LABELS = synthetic_images(12, 3, 3, 8)


def huggingface(path: Path, **changes) -> HuggingFace:
    values = {"name": "mine", "image_size": 8, "channels": 3, "num_classes": None, "path": str(path)}
    return HuggingFace(
        **{**values, "mean": [0.5] * 3, "std": [0.2] * 3, "cache": str(path.parent / "cache"), **changes}
    )


def test_without_the_package_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"^mine: .*needs the package datasets.*ssl-lightning\[huggingface\]"):
        huggingface(tmp_path).prepare()


@pytest.fixture
def table(monkeypatch):
    """Makes a table of the images with these labels."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")

    def make(labels: Any, name: str = "label", images: np.ndarray = IMAGES) -> Any:
        pictures = [Image.fromarray(image.transpose(1, 2, 0)) for image in images]
        columns = {"picture": pictures} | ({} if labels is None else {name: labels})
        return datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())

    return make


def saved(folder: Path, **splits: Any) -> Path:
    import datasets

    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def test_a_saved_dataset_is_read_as_it_was_written(tmp_path, table):
    whole = table(LABELS.tolist())
    dataset = huggingface(saved(tmp_path / "saved", train=whole, validation=whole, test=whole, extra=whole))
    np.testing.assert_array_equal(dataset.train().images.numpy(), IMAGES)
    assert dataset.train().labels.tolist() == LABELS.tolist()
    assert dataset.has_val
    lines = dataset.notice().splitlines()
    assert lines[0].endswith("saved: 12 images for training in 3 classes, 12 for val, 12 for test.")
    assert lines[1] == "mine: not read: extra."


def test_one_table_is_train(tmp_path, table):
    table(LABELS.tolist()).save_to_disk(str(tmp_path / "saved"))
    assert huggingface(tmp_path / "saved").unlabelled == "has no test split"
    dataset = huggingface(tmp_path / "saved", split=0.3)
    assert sorted(dataset.test().labels.tolist()) == [0, 1, 2]
    assert huggingface(tmp_path / "saved", image_size=4).train().images.shape == (12, 3, 4, 4)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([0, None, 2, -1] * 3, [0, -1, 2, -1] * 3),
        (["dog", "cat", None, "dog"] * 3, [1, 0, -1, 1] * 3),
        (None, [-1] * 12),
    ],
)
def test_labels(tmp_path, table, labels, expected):
    dataset = huggingface(saved(tmp_path / "saved", train=table(labels)))
    assert dataset.train().labels.tolist() == expected


def test_columns(tmp_path, table):
    path = saved(tmp_path / "saved", train=table([0.5] * 12))
    with pytest.raises(UserError, match=r"the labels of .*, label, are neither whole numbers nor names"):
        huggingface(path).prepare()
    with pytest.raises(UserError, match=r"dataset.label_column is kind, but .* has the columns picture, label"):
        huggingface(path, label_column="kind").prepare()
    with pytest.raises(UserError, match=r"has the columns picture, label, of which picture hold images\. Set"):
        huggingface(path, image_column="image").prepare()
    path = saved(tmp_path / "other", train=table(LABELS.tolist(), "kind"))
    assert huggingface(path).unlabelled == "has no labels"
    assert huggingface(path, label_column="kind").train().labels.tolist() == LABELS.tolist()


def test_a_folder_of_images_is_read_too(tmp_path, table):
    written = write_image_folder(tmp_path / "images", num_classes=3, size=8)
    dataset = huggingface(tmp_path / "images")
    for split, images in ((dataset.train(), written.train_images), (dataset.test(), written.test_images)):
        assert {image.tobytes() for image in split.images.numpy()} == {image.tobytes() for image in images}


def test_what_is_not_here_is_not_fetched(tmp_path, table):
    with pytest.raises(UserError, match=r"cannot be read \(.*dataset.download=true"):
        huggingface(Path("nobody/nothing"), cache=str(tmp_path / "cache")).prepare()
    with pytest.raises(UserError, match=r"has no split train, but test\."):
        huggingface(saved(tmp_path / "saved", test=table(None))).prepare()


def test_content_counts_and_not_its_place(tmp_path, table):
    def digest(name: str, made: Any) -> str:
        return huggingface(saved(tmp_path / name, train=made)).content_digest("train")

    before = digest("one", table(LABELS.tolist()))
    assert digest("two", table(LABELS.tolist())) == before
    assert digest("three", table(LABELS[::-1].tolist())) != before
    assert digest("four", table(LABELS.tolist(), images=IMAGES[::-1])) != before
