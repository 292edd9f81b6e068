"""Datasets of torchvision in their native formats, fetched from a server on this machine."""

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.sources.catalogue import CATALOGUE
from ssl_lightning.data.sources.of_torchvision import TorchvisionDataset
from ssl_lightning.errors import UserError
from tests.composing import composed
from tests.data.of_torchvision import CLASSES, WRITERS, serve, write

ALL = sorted(WRITERS)
SPLIT = {"eurosat": {"split": 0.25}, "caltech101": {"split": 0.25}}


def dataset_of(which: Any, root: Path, **changes: Any) -> TorchvisionDataset:
    size = 32 if which == "svhn" else 16
    values = {"name": which, "which": which, "root": str(root), "cache": str(root / "cache"), "image_size": size}
    return TorchvisionDataset(**{**values, **SPLIT.get(which, {}), **changes})


def test_the_catalogue_has_a_config_and_a_writer_each():
    assert sorted(CATALOGUE) == ALL


@pytest.mark.parametrize("which", ALL)
def test_it_is_fetched_and_read_as_it_was_written(which, tmp_path, server, monkeypatch):
    folder, address = server
    written, root = serve(which, folder, address, monkeypatch), tmp_path / "data"
    with pytest.raises(UserError, match=f"^{which}: there is no .*dataset={which} dataset.download=true") as caught:
        dataset_of(which, root).prepare()
    assert str(root) in str(caught.value)
    assert not root.exists()  # nothing is made by looking
    dataset = dataset_of(which, root, download=True)
    if which in SPLIT:
        _assert_divided(dataset, *written["train"])
    else:
        found = {"train": dataset.train(), "test": dataset.test()}
        if "val" in written:
            assert dataset.has_val
            held_out = int(dataset.validation_part().sum())
            assert held_out == len(written["val"][1])
            found["val"] = dataset._open("val")
        assert set(found) == set(written)
        for part, (images, labels) in written.items():
            np.testing.assert_array_equal(found[part].images.numpy(), images)
            np.testing.assert_array_equal(found[part].labels.numpy(), labels)
    assert dataset.num_classes == CLASSES
    kept = {path.name for path in root.iterdir() if not path.name.endswith(".lock")}
    assert kept == {*CATALOGUE[which].files, "cache"}
    # Another process finds what is there, and decodes nothing.
    for file in folder.iterdir():
        file.unlink()

    def forbidden(*_: Any) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(TorchvisionDataset, "_build", forbidden)
    again = dataset_of(which, root, download=True)
    assert again.fingerprint() == dataset.fingerprint()
    assert again.fingerprint("test") == dataset.fingerprint("test")
    assert again.content_digest("test") == dataset.content_digest("test")


def _assert_divided(dataset: TorchvisionDataset, images: np.ndarray, labels: np.ndarray) -> None:
    """Each image is in one split, with its label, in the order in which it was written; a quarter of each class is held
    out."""
    places = {image.tobytes(): i for i, image in enumerate(images)}
    positions = [
        [places[image.numpy().tobytes()] for image in split.images] for split in (dataset.train(), dataset.test())
    ]
    assert sorted(positions[0] + positions[1]) == list(range(len(images)))
    assert all(part == sorted(part) for part in positions)
    for part, split in zip(positions, (dataset.train(), dataset.test()), strict=True):
        assert split.labels.tolist() == labels[part].tolist()
    assert np.bincount(labels[positions[1]]).tolist() == [1] * CLASSES


def test_another_seed_holds_out_others(tmp_path, monkeypatch):
    write("eurosat", tmp_path, monkeypatch, 24)
    tests = [dataset_of("eurosat", tmp_path, split_seed=seed) for seed in (0, 0, 1)]
    digests = [dataset.fingerprint("test").digest for dataset in tests]
    assert digests[0] == digests[1] != digests[2]
    assert dataset_of("eurosat", tmp_path, split=None).unlabelled == "has no test split"


@pytest.mark.parametrize("which", ["svhn", "pets"])
def test_any_side_grey_or_colour(which, tmp_path, monkeypatch):
    written = write(which, tmp_path, monkeypatch)
    grey = {"channels": 1, "mean": [0.5], "std": [0.5]}
    dataset = dataset_of(which, tmp_path, image_size=8, **grey)
    assert dataset.train().images.shape == (12, 1, 8, 8)
    first = Image.fromarray(written["train"][0][0].transpose(1, 2, 0)).convert("L")
    expected = np.asarray(first.resize((8, 8), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(dataset.train().images[0, 0].numpy(), expected)
    assert dataset_of(which, tmp_path).content_digest("train") != dataset.content_digest("train")
    with pytest.raises(UserError, match=r"channels is 2: images have 1 \(grey\) or 3"):
        dataset_of(which, tmp_path, channels=2, mean=[0.5] * 2, std=[0.5] * 2)


@pytest.mark.parametrize("which", ALL)
def test_a_cut_archive_is_one_message(which, tmp_path, server, monkeypatch):
    folder, address = server
    serve(which, folder, address, monkeypatch)
    (file, *_) = sorted(folder.iterdir())
    file.write_bytes(file.read_bytes()[:-100])
    root = tmp_path / "data"
    with pytest.raises(
        UserError, match=f"^{which}: .* cannot be downloaded .*Try again, or fetch it by hand"
    ) as caught:
        dataset_of(which, root, download=True).prepare()
    assert "\n" not in str(caught.value)
    assert [path.name for path in root.iterdir() if not path.name.endswith(".lock")] == []


def test_without_a_network_one_message(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.DTD, "_URL", "http://127.0.0.1:9/dtd-r1.0.1.tar.gz")
    monkeypatch.setenv("no_proxy", "*")
    with pytest.raises(UserError, match=r"DTD cannot be downloaded \(.*refused.*dtd in .*data"):
        dataset_of("dtd", tmp_path / "data", download=True).prepare()


@pytest.mark.parametrize(
    ("which", "file", "message"),
    [
        (
            "svhn",
            "test_32x32.mat",
            r"test_32x32\.mat: damaged or incomplete \(a file is missing or has a wrong checksum",
        ),
        (
            "flowers102",
            "flowers-102/setid.mat",
            r"flowers-102: damaged or incomplete \(a file is missing or has a wrong",
        ),
        ("pets", "oxford-iiit-pet/annotations/test.txt", r"oxford-iiit-pet: damaged or incomplete"),
        ("dtd", "dtd/dtd/labels/val1.txt", "dtd: damaged or incomplete"),
        ("aircraft", "fgvc-aircraft-2013b/data/variants.txt", "fgvc-aircraft-2013b: damaged or incomplete"),
        ("aircraft", "fgvc-aircraft-2013b/data/images/1000003.jpg", r"cannot decode the image .*1000003\.jpg"),
        ("caltech101", "caltech101/101_ObjectCategories/X/image_0002.jpg", "caltech101: damaged or incomplete"),
    ],
)
def test_a_damaged_file_is_named(which, file, message, tmp_path, monkeypatch):
    write(which, tmp_path, monkeypatch)
    (tmp_path / file).write_bytes(b"cut off")
    with pytest.raises(UserError, match=message):
        dataset_of(which, tmp_path).prepare()


def test_a_missing_image_is_named(tmp_path, monkeypatch):
    write("dtd", tmp_path, monkeypatch)
    missing = next((tmp_path / "dtd" / "dtd" / "images").rglob("*.jpg"))
    missing.unlink()
    with pytest.raises(UserError, match=f"{missing.name}: No such file.*dataset=dtd dataset.download=true"):
        dataset_of("dtd", tmp_path).prepare()


def test_an_archive_cannot_write_elsewhere(tmp_path, server, monkeypatch):
    """That of aircraft has no checksum."""
    folder, address = server
    serve("aircraft", folder, address, monkeypatch)
    (tmp_path / "evil").write_bytes(b"evil")
    with tarfile.open(folder / "fgvc-aircraft-2013b.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "evil", "../escaped")
    with pytest.raises(UserError, match=r"FGVCAircraft cannot be downloaded \(.*escaped"):
        dataset_of("aircraft", tmp_path / "data", download=True).prepare()
    assert not list(tmp_path.rglob("escaped"))


@pytest.mark.parametrize("which", ["pets", "caltech101", "dtd"])
def test_no_image_starts_a_program(which, tmp_path, monkeypatch):
    """For PostScript, Pillow would."""
    write(which, tmp_path, monkeypatch)
    file = next(file for file in sorted(tmp_path.rglob("*.jpg")) if "BACKGROUND" not in file.parent.name)
    Image.new("RGB", (8, 8)).save(file, "eps")
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", None)  # a call would fail in another way
    with pytest.raises(UserError, match=rf"cannot decode the image .*{file.name} \(it is none of JPEG"):
        dataset_of(which, tmp_path).prepare()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("which", ALL)
def test_its_config_opens_it(which, tmp_path, monkeypatch):
    write(which, tmp_path, monkeypatch)
    places = (f"paths.data={tmp_path}", f"paths.cache={tmp_path / 'cache'}", f"dataset.num_classes={CLASSES}")
    config = resolve(composed(f"dataset={which}", *places))["dataset"]
    dataset = make(config)
    assert dataset.train().images.shape[1:] == (3, config["image_size"], config["image_size"])
    assert dataset.has_labels
    assert config["stem"] == ("cifar" if which == "svhn" else "stl")
