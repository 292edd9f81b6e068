"""Every archive is read back exactly as it was written, and what is wrong with one is said in one message."""

import hashlib
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from ssl_lightning.data.dataset import Fingerprint
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.sources import fashion_mnist as source
from ssl_lightning.data.sources import pickles
from ssl_lightning.data.sources.cifar import CIFAR10, CIFAR100
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.sources.fashion_mnist import FashionMNIST
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.sources.listing import ImageFiles
from ssl_lightning.errors import UserError
from tests.data.synthetic import (
    Written,
    cifar_pickle,
    in_memory,
    synthetic_images,
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_image_folder,
)

GREY = {"channels": 1, "mean": [0.5], "std": [0.25]}
COLOUR = {"channels": 3, "mean": [0.5] * 3, "std": [0.25] * 3}


def digits(**changes):
    return Digits(**{"name": "digits", "image_size": 8, "num_classes": 10, **GREY, **changes})


def fashion_mnist(root, **changes):
    values = {
        "name": "fashion_mnist",
        "image_size": 28,
        "num_classes": 10,
        **GREY,
        "root": str(root),
        **changes,
    }
    return FashionMNIST(**values)


def cifar10(root, **changes):
    values = {"name": "cifar10", "image_size": 32, "num_classes": 10, **COLOUR, "root": str(root), **changes}
    return CIFAR10(**values)


def cifar100(root, **changes):
    values = {
        "name": "cifar100",
        "image_size": 32,
        "num_classes": 100,
        **COLOUR,
        "root": str(root),
        **changes,
    }
    return CIFAR100(**values)


def image_folder(root, cache, **changes):
    values = {"name": "mine", "image_size": 32, "num_classes": None, **COLOUR, "root": str(root)}
    return ImageFolder(**{**values, "cache": str(cache), **changes})


def assert_equal(dataset, written: Written):
    dataset.prepare()
    for split, images, labels in ((dataset.train(), *written[:2]), (dataset.test(), *written[2:])):
        assert split.images.dtype == torch.uint8
        assert split.labels.dtype == torch.int64
        np.testing.assert_array_equal(split.images.numpy(), images)
        np.testing.assert_array_equal(split.labels.numpy(), labels)


@pytest.fixture
def no_debian(monkeypatch, tmp_path):
    monkeypatch.setattr(source, "DEBIAN_FASHION_MNIST", tmp_path / "no package")


# Digits


def test_digits_are_the_official_ones():
    dataset = digits()
    train, test = dataset.train(), dataset.test()
    assert (len(train.labels), len(test.labels)) == (1257, 540)
    assert train.images.shape == (1257, 1, 8, 8)
    images, labels = torch.cat([train.images, test.images]), torch.cat([train.labels, test.labels])
    # The published class sizes of the test part of UCI's "Optical Recognition of Handwritten Digits".
    assert torch.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.min() == 0
    assert images.max() == 255
    assert set(images.unique().tolist()) <= {round(value * 255 / 16) for value in range(17)}


def test_digits_split_is_disjoint_stratified_and_fixed():
    from sklearn.datasets import load_digits

    train, test = digits().train(), digits().test()
    known = {}
    for i, image in enumerate(np.rint(load_digits().data * 255 / 16).astype(np.uint8)):
        known.setdefault(image.tobytes(), []).append(i)
    assert len(known) == 1797  # all images differ, so that an image stands for its position
    positions = [[known[image.numpy().tobytes()][0] for image in split.images] for split in (train, test)]
    assert sorted(positions[0] + positions[1]) == list(range(1797))
    for split, share in ((train, 0.7), (test, 0.3)):
        for label, count in enumerate(torch.bincount(split.labels, minlength=10).tolist()):
            total = int((train.labels == label).sum() + (test.labels == label).sum())
            assert abs(count - share * total) <= 1
    assert digits().fingerprint("test") == digits().fingerprint("test")


def test_splits_are_read_once():
    dataset = digits()
    assert dataset.train() is dataset.train()


# Fashion-MNIST


@pytest.mark.parametrize("compressed", [True, False])
def test_fashion_mnist_is_read_as_written(tmp_path, no_debian, compressed):
    written = write_fashion_mnist(tmp_path, compressed=compressed)
    assert_equal(fashion_mnist(tmp_path), written)


def test_fashion_mnist_files_are_what_torchvision_reads(tmp_path):
    written = write_fashion_mnist(tmp_path, compressed=False)
    theirs = torchvision.datasets.FashionMNIST(tmp_path, train=False)
    np.testing.assert_array_equal(theirs.data.numpy(), written.test_images[:, 0])
    np.testing.assert_array_equal(theirs.targets.numpy(), written.test_labels)


def test_fashion_mnist_reads_debians_folder_when_root_has_none(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "DEBIAN_FASHION_MNIST", tmp_path / "package")
    packaged = write_fashion_mnist(tmp_path / "package", layout="debian", seed=1)
    assert_equal(fashion_mnist(tmp_path / "data"), packaged)
    own = write_fashion_mnist(tmp_path / "data", seed=2)
    assert_equal(fashion_mnist(tmp_path / "data"), own)


@pytest.mark.skipif(not source.DEBIAN_FASHION_MNIST.exists(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_fashion_mnist(tmp_path):
    dataset = fashion_mnist(tmp_path)
    assert dataset.train().images.shape == (60_000, 1, 28, 28)
    assert torch.bincount(dataset.train().labels).tolist() == [6_000] * 10
    assert torch.bincount(dataset.test().labels).tolist() == [1_000] * 10
    # The published statistics of the training images, to the four digits that are commonly quoted.
    pixels = dataset.train().images.double() / 255
    assert pixels.mean().item() == pytest.approx(0.2860, abs=5e-5)
    assert pixels.std().item() == pytest.approx(0.3530, abs=5e-5)


def test_fashion_mnist_downloads_into_torchvisions_layout(tmp_path, no_debian, server, monkeypatch):
    folder, address = server
    written = write_fashion_mnist(folder, layout="debian")
    resources = [(path.name, hashlib.md5(path.read_bytes()).hexdigest()) for path in sorted(folder.iterdir())]
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "resources", resources)
    assert_equal(fashion_mnist(tmp_path / "data", download=True), written)
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    assert sorted(path.name for path in raw.iterdir()) == [name for name, _ in resources]


def test_a_download_with_a_wrong_checksum_is_refused(tmp_path, no_debian, server, monkeypatch):
    folder, address = server
    write_fashion_mnist(folder, layout="debian")
    monkeypatch.setattr(torchvision.datasets.FashionMNIST, "mirrors", [address])
    for problem in ("corrupted", "404"):
        with pytest.raises(UserError, match=f"cannot download {address}.*{problem}.*by hand"):
            fashion_mnist(tmp_path / "data", download=True).prepare()
        assert not list((tmp_path / "data" / "FashionMNIST" / "raw").glob("*.gz"))
        for path in folder.iterdir():
            path.unlink()


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_idx_file_is_named(tmp_path, no_debian, compressed):
    write_fashion_mnist(tmp_path, compressed=compressed)
    path = next((tmp_path / "FashionMNIST" / "raw").glob("train-images*"))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=f"{path.name} is .*truncated"):
        fashion_mnist(tmp_path).train()


def test_idx_files_of_the_wrong_kind_are_refused(tmp_path, no_debian):
    write_fashion_mnist(tmp_path, compressed=False)
    raw = tmp_path / "FashionMNIST" / "raw"
    (raw / "train-images-idx3-ubyte").write_bytes((raw / "train-labels-idx1-ubyte").read_bytes())
    with pytest.raises(UserError, match="train-images-idx3-ubyte is no idx file of the kind 0x00000803"):
        fashion_mnist(tmp_path).train()


def test_images_and_labels_of_different_number_are_refused(tmp_path, no_debian):
    write_fashion_mnist(tmp_path)
    raw = tmp_path / "FashionMNIST" / "raw"
    (raw / "train-labels-idx1-ubyte.gz").write_bytes((raw / "t10k-labels-idx1-ubyte.gz").read_bytes())
    with pytest.raises(UserError, match=r"40 images, but train-labels-idx1-ubyte.gz beside it 20 labels"):
        fashion_mnist(tmp_path).train()


# CIFAR


@pytest.mark.parametrize("protocol", ["python2", 2, 3, 4, 5])
def test_cifar_is_read_as_written(tmp_path, protocol):
    assert_equal(cifar10(tmp_path), write_cifar10(tmp_path, protocol=protocol))
    assert_equal(cifar100(tmp_path), write_cifar100(tmp_path, protocol=protocol))


def test_numpy_1_pickles_are_read(tmp_path):
    written = write_cifar10(tmp_path, protocol=3)
    for path in (tmp_path / "cifar-10-batches-py").iterdir():
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert_equal(cifar10(tmp_path), written)


def test_any_array_of_numbers_survives_the_restricted_unpickler(tmp_path):
    for array in (
        np.arange(6, dtype=">i4").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([True, False]),
    ):
        for protocol in (2, 3, 4, 5):
            (tmp_path / "array").write_bytes(pickle.dumps(array, protocol=protocol))
            read = pickles.read_pickle(tmp_path / "array", pickles.PICKLED_ARRAYS).array
            np.testing.assert_array_equal(read, array)


class Payload:
    """Runs a command when it is unpickled freely."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_with_a_payload_is_refused_and_not_run(tmp_path, protocol):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    content = {b"data": Payload(f"touch {tmp_path}/owned"), b"labels": []}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(UserError, match=r"data_batch_3 is refused: it asks for (posix|nt)\.system"):
        cifar10(tmp_path).train()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["builtins eval", "numpy fromfile", "numpy.core.multiarray fromfile", "numpy load"])
def test_other_globals_are_refused_by_name(tmp_path, name):
    path = tmp_path / "batch"
    path.write_bytes(b"c" + name.replace(" ", "\n").encode() + b"\n.")
    with pytest.raises(UserError, match=f"asks for {name.replace(' ', '.')}"):
        pickles.read_pickle(path, pickles.PICKLED_ARRAYS)


def test_arrays_of_objects_are_refused(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(np.array([{}, []], dtype=object), protocol=2))
    with pytest.raises(UserError, match="refused: it holds an array of type 'O8'"):
        pickles.read_pickle(path, pickles.PICKLED_ARRAYS)


def test_pickles_hold_no_arrays_unless_asked_for(tmp_path):
    path = tmp_path / "list"
    path.write_bytes(pickle.dumps([3, 1, {2: [0]}, "text"]))
    assert pickles.read_pickle(path) == [3, 1, {2: [0]}, "text"]
    path.write_bytes(pickle.dumps(np.arange(3), protocol=4))
    with pytest.raises(UserError, match=r"asks for numpy\._?core\.multiarray\._reconstruct"):
        pickles.read_pickle(path)


def test_a_truncated_batch_is_named(tmp_path):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(UserError, match="test_batch is damaged or truncated"):
        cifar10(tmp_path).test()


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((4, 3, 16, 16), np.uint8), {"labels": np.zeros(4, int)}),
        (np.zeros((4, 3, 32, 32), np.float32), {"labels": np.zeros(4, int)}),
        (np.zeros((4, 3, 32, 32), np.uint8), {"labels": np.zeros(3, int)}),
        (np.zeros((4, 3, 32, 32), np.uint8), {"fine_labels": np.zeros(4, int)}),
    ],
)
def test_batches_of_another_form_are_refused(tmp_path, images, labels):
    write_cifar10(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    path.write_bytes(cifar_pickle(images, labels, 4))
    with pytest.raises(UserError, match="test_batch is no CIFAR file"):
        cifar10(tmp_path).test()


def pack(root: Path, folder: str, archive: str) -> None:
    with tarfile.open(root / archive, "w:gz") as tar:
        tar.add(root / folder, folder)
    for path in (root / folder).iterdir():
        path.unlink()
    (root / folder).rmdir()


def test_an_archive_is_extracted(tmp_path):
    written = write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "readme.html").write_text("not wanted")
    pack(tmp_path, "cifar-10-batches-py", "cifar-10-python.tar.gz")
    assert_equal(cifar10(tmp_path), written)
    expected = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    assert sorted(path.name for path in (tmp_path / "cifar-10-batches-py").iterdir()) == expected


def test_an_archive_cannot_write_elsewhere(tmp_path):
    root = tmp_path / "data"
    write_cifar100(root)
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as tar:
        (tmp_path / "evil").write_bytes(b"evil")
        tar.add(tmp_path / "evil", "cifar-100-python/../../escaped")
        link = tarfile.TarInfo("cifar-100-python/train")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "evil")
        tar.addfile(link)
        tar.add(root / "cifar-100-python" / "test", "cifar-100-python/test")
    for name in ("train", "test"):
        (root / "cifar-100-python" / name).unlink()
    with pytest.raises(UserError, match="holds no cifar-100-python/train"):
        cifar100(root).prepare()
    assert not (tmp_path / "escaped").exists()
    assert [path.name for path in (root / "cifar-100-python").iterdir()] == ["test"]


def test_a_truncated_archive_is_named(tmp_path):
    write_cifar10(tmp_path)
    pack(tmp_path, "cifar-10-batches-py", "cifar-10-python.tar.gz")
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cifar-10-python\.tar\.gz is damaged or truncated"):
        cifar10(tmp_path).prepare()


def test_cifar_is_downloaded(tmp_path, server, monkeypatch):
    folder, address = server
    written = write_cifar10(folder)
    pack(folder, "cifar-10-batches-py", "cifar-10-python.tar.gz")
    md5 = hashlib.md5((folder / "cifar-10-python.tar.gz").read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", address + "cifar-10-python.tar.gz")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "tgz_md5", md5)
    assert_equal(cifar10(tmp_path / "data", download=True), written)


# Missing and disagreeing data


def test_missing_data_say_where_and_what_to_do(tmp_path, no_debian):
    for dataset, folder in (
        (cifar10(tmp_path), tmp_path / "cifar-10-batches-py"),
        (cifar100(tmp_path), tmp_path / "cifar-100-python"),
        (fashion_mnist(tmp_path), tmp_path / "FashionMNIST" / "raw"),
    ):
        for act in (dataset.prepare, dataset.train, dataset.fingerprint):
            with pytest.raises(UserError) as caught:
                act()
            assert str(folder) in str(caught.value)
            assert "dataset.download=true" in str(caught.value)
    with pytest.raises(UserError, match=r"no images in .*dataset.root.*train/<class>"):
        image_folder(tmp_path, tmp_path / "cache").prepare()


def test_one_missing_batch_is_named(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    with pytest.raises(UserError, match="no data_batch_4 in"):
        cifar10(tmp_path).train()


def test_disagreeing_configuration_names_the_key_and_the_right_value(tmp_path):
    write_cifar10(tmp_path)
    for changes, right in (
        ({"num_classes": 100}, "dataset.num_classes=10"),
        ({"image_size": 28}, "dataset.image_size=32"),
        (GREY, "dataset.channels=3"),
    ):
        with pytest.raises(UserError, match=right):
            cifar10(tmp_path, **changes).train()
    with pytest.raises(UserError, match=r"dataset\.mean has 1 values for 3 channels"):
        cifar10(tmp_path, mean=[0.5])


def test_labels_out_of_range_are_refused(tmp_path):
    write_cifar10(tmp_path, num_classes=12)
    with pytest.raises(UserError, match="labels of train run from 0 to 11"):
        cifar10(tmp_path).train()


def test_the_number_of_classes_is_found_when_it_is_not_given(tmp_path):
    write_image_folder(tmp_path / "data", num_classes=4)
    dataset = image_folder(tmp_path / "data", tmp_path / "cache")
    dataset.train()
    assert dataset.num_classes == 4
    with pytest.raises(UserError, match=r"dataset\.num_classes=4"):
        image_folder(tmp_path / "data", tmp_path / "cache", num_classes=5).train()


# Fingerprints


def test_a_fingerprint_tells_content_and_order():
    labels = np.arange(6) % 3
    fingerprint = in_memory(labels).fingerprint()
    assert fingerprint == in_memory(labels).fingerprint()
    assert (fingerprint.name, fingerprint.split, fingerprint.length) == ("memory", "train", 6)
    expected = hashlib.sha256(labels.astype("<i8").tobytes() + bytes(range(24))).hexdigest()
    assert fingerprint.digest == expected[:16]
    assert in_memory(labels[::-1]).fingerprint().digest != fingerprint.digest
    other_pixel = in_memory(labels)
    other_pixel.images[5, 0, 1, 1] += 1
    assert other_pixel.fingerprint().digest != fingerprint.digest


def test_a_fingerprint_is_readable_and_survives_json():
    fingerprint = digits().fingerprint()
    assert str(fingerprint) == f"digits/train[1257]:{fingerprint.digest}"
    assert Fingerprint.from_dict(fingerprint.as_dict()) == fingerprint
    assert digits().fingerprint("test") != fingerprint


def test_named_datasets_need_no_content_key(tmp_path):
    assert digits().content_digest("train") == cifar10(tmp_path).content_digest("test") == ""


# The validation part


def test_validation_holds_out_its_share_of_each_class():
    labels = np.repeat([0, 1, 2, 3, 4], [1, 2, 4, 100, 1000])
    dataset = in_memory(labels[np.random.default_rng(0).permutation(len(labels))])
    held_out = dataset.validation()
    assert torch.bincount(dataset.train().labels[held_out], minlength=5).tolist() == [0, 1, 1, 10, 100]


def test_validation_leaves_something_of_each_class():
    dataset = in_memory(np.repeat([0, 1, 2], [1, 2, 10]))
    dataset.validation_fraction = 0.99
    assert torch.bincount(dataset.train().labels[~dataset.validation()], minlength=3).tolist() == [1, 1, 1]


def test_validation_is_fixed_whatever_was_called_before():
    first = digits().validation()
    dataset = digits()
    dataset.test(), dataset.fingerprint(), dataset.validation()
    np.random.default_rng(1).random(3)
    torch.manual_seed(7)
    assert torch.equal(dataset.validation(), first)
    assert len(first) == 1257
    # It is drawn: not just the first images of each class.
    labels = dataset.train().labels
    firsts = torch.cat(
        [torch.nonzero(labels == label)[: int((first & (labels == label)).sum())] for label in range(10)]
    )
    assert not torch.equal(torch.nonzero(first)[:, 0], firsts[:, 0].sort().values)


# Image folders


@pytest.mark.parametrize(("suffix", "channels"), [("png", 3), ("bmp", 3), ("png", 1)])
@pytest.mark.parametrize("test_folder", ["test", "val"])
def test_an_image_folder_is_read_as_written(tmp_path, suffix, channels, test_folder):
    written = write_image_folder(tmp_path / "data", suffix=suffix, channels=channels, test_folder=test_folder, size=24)
    changes = {"image_size": 24, **(GREY if channels == 1 else COLOUR)}
    assert_equal(image_folder(tmp_path / "data", tmp_path / "cache", **changes), written)


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "webp"])
def test_lossy_images_are_read_about_as_written(tmp_path, suffix):
    written = write_image_folder(tmp_path / "data", suffix=suffix)
    train = image_folder(tmp_path / "data", tmp_path / "cache").train()
    np.testing.assert_array_equal(train.labels.numpy(), written.train_labels)
    error = np.abs(train.images.numpy().astype(float) - written.train_images)
    assert error.mean(axis=(1, 2, 3)).max() < 25  # the noise; patterns of other classes are twice as far


def test_colour_and_grey_are_converted(tmp_path):
    colour = write_image_folder(tmp_path / "colour")
    grey = image_folder(tmp_path / "colour", tmp_path / "cache", **GREY).train().images.numpy()
    luma = np.tensordot([0.299, 0.587, 0.114], colour.train_images, (0, 1))
    assert np.abs(grey[:, 0] - luma).max() <= 1
    written = write_image_folder(tmp_path / "grey", channels=1)
    images = image_folder(tmp_path / "grey", tmp_path / "cache").train().images.numpy()
    np.testing.assert_array_equal(images, np.repeat(written.train_images, 3, 1))


def square_of(path, size, channels):
    name = np.frombuffer(path.name.encode(), np.uint8)
    one = np.ones(1, np.int64)
    files = ImageFiles(str(path.parent), "", ["a"], 0 * one, name, len(name) * one, one.astype(np.uint64))
    return StreamedImages(files, size, channels).central(0)


def test_the_central_square_is_taken_without_resampling_when_it_fits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 8, 3), np.uint8)
    for name, image in (("tall", pixels), ("wide", pixels.transpose(1, 0, 2))):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
        decoded = square_of(tmp_path / f"{name}.png", 8, 3)
        expected = image[1:9] if name == "tall" else image[:, 1:9]
        np.testing.assert_array_equal(decoded.transpose(1, 2, 0), expected)


def test_shrinking_is_antialiased(tmp_path):
    checkerboard = np.indices((64, 64)).sum(0) % 2 * 255
    Image.fromarray(checkerboard.astype(np.uint8)).save(tmp_path / "image.png")
    decoded = square_of(tmp_path / "image.png", 8, 1)
    assert decoded.shape == (1, 8, 8)
    assert np.abs(decoded.astype(int) - 127).max() <= 8  # without, it would be 0 or 255


def test_images_are_decoded_once(tmp_path, monkeypatch):
    written = write_image_folder(tmp_path / "data", suffix="bmp")
    assert_equal(image_folder(tmp_path / "data", tmp_path / "cache"), written)
    fingerprint = image_folder(tmp_path / "data", tmp_path / "cache").fingerprint()
    decoded = []

    def counted(images, position):
        decoded.append(position)
        return real(images, position)

    real = StreamedImages.central
    monkeypatch.setattr(StreamedImages, "central", counted)
    again = image_folder(tmp_path / "data", tmp_path / "cache")
    assert_equal(again, written)
    assert again.fingerprint() == fingerprint
    assert decoded == []

    path = tmp_path / "data" / "train" / "class_000" / "00000.bmp"  # whose size stays the same
    changed = 255 - written.train_images[0]
    Image.fromarray(changed.transpose(1, 2, 0)).save(path)
    written.train_images[0] = changed
    assert_equal(image_folder(tmp_path / "data", tmp_path / "cache"), written)
    assert len(decoded) == 40  # those of train
    assert image_folder(tmp_path / "data", tmp_path / "cache").fingerprint() != fingerprint


def test_the_stored_digest_is_that_of_the_content(tmp_path):
    write_image_folder(tmp_path / "data")
    dataset = image_folder(tmp_path / "data", tmp_path / "cache")
    for split in ("train", "test"):
        assert dataset.fingerprint(split).digest == super(ImageFolder, dataset)._content_digest(split)


def test_other_sizes_and_channels_are_stored_apart(tmp_path):
    write_image_folder(tmp_path / "data")
    for changes in ({}, {"image_size": 16}, GREY):
        dataset = image_folder(tmp_path / "data", tmp_path / "cache", **changes)
        assert dataset.train().images.shape[1:] == (dataset.channels, dataset.image_size, dataset.image_size)
    assert len([path for path in (tmp_path / "cache" / "datasets").iterdir() if path.is_dir()]) == 2 * 3


def test_the_content_key_does_not_depend_on_the_location(tmp_path):
    for place in ("here", "there"):
        write_image_folder(tmp_path / place)

    def digests(place):
        dataset = image_folder(tmp_path / place, tmp_path / "cache")
        return dataset.content_digest("train"), dataset.content_digest("test")

    before = digests("here")
    assert before == digests("there")
    assert "" not in before
    assert not (tmp_path / "cache" / "datasets").exists()  # nothing is decoded for it
    with open(tmp_path / "there" / "test" / "class_001" / "extra.png", "wb") as file:
        file.write(b"not decoded")
    train, test = digests("there")
    assert train == before[0]
    assert test != before[1]


def test_a_corrupt_image_is_named_and_nothing_is_stored(tmp_path):
    write_image_folder(tmp_path / "data")
    path = tmp_path / "data" / "train" / "class_003" / "broken.png"
    path.write_bytes(next(path.parent.iterdir()).read_bytes()[:60])
    with pytest.raises(UserError, match=r"cannot decode the image .*class_003/broken.png"):
        image_folder(tmp_path / "data", tmp_path / "cache").train()
    left = {path.name for path in (tmp_path / "cache" / "datasets").rglob("*.npy")}
    assert left == {"train_labels.npy"}
    path.unlink()
    assert len(image_folder(tmp_path / "data", tmp_path / "cache").train().labels) == 40


def test_damaged_stored_images_are_refused(tmp_path):
    write_image_folder(tmp_path / "data")
    image_folder(tmp_path / "data", tmp_path / "cache").train()
    stored = next((tmp_path / "cache").rglob("train_images.npy"))
    stored.write_bytes(stored.read_bytes()[:-1000])
    with pytest.raises(UserError, match=f"{stored.parent.name} are damaged.*Delete that folder"):
        image_folder(tmp_path / "data", tmp_path / "cache").train()


@pytest.mark.reliability(
    "stored pixels or labels have changed",
    lost="nothing: they are refused",
    read="`the decoded images in … are damaged (they have changed). Delete that folder.`",
)
@pytest.mark.parametrize("kind", ["images", "labels"])
def test_stored_pixels_and_labels_that_have_changed_are_refused(tmp_path, kind, monkeypatch):
    write_image_folder(tmp_path / "data")
    image_folder(tmp_path / "data", tmp_path / "cache").train()
    (stored,) = (tmp_path / "cache").rglob(f"train_{kind}.npy")
    content = bytearray(stored.read_bytes())
    content[-8] ^= 1
    stored.write_bytes(content)
    with monkeypatch.context() as other:
        other.setenv("LOCAL_RANK", "1")
        image_folder(tmp_path / "data", tmp_path / "cache").train()  # the first process of a machine looks
    with pytest.raises(UserError, match=r"are damaged.*they have changed.*Delete that folder"):
        image_folder(tmp_path / "data", tmp_path / "cache").train()


def test_changing_a_tensor_leaves_the_stored_images_alone(tmp_path):
    written = write_image_folder(tmp_path / "data")
    image_folder(tmp_path / "data", tmp_path / "cache").train().images.zero_()
    assert_equal(image_folder(tmp_path / "data", tmp_path / "cache"), written)


def test_classes_of_train_and_test_must_agree(tmp_path):
    written = write_image_folder(tmp_path / "data", num_classes=3)
    (tmp_path / "data" / "test" / "class_001").rename(tmp_path / "data" / "test" / "klass_001")
    with pytest.raises(UserError, match=r"test are not those of .*train: class_001, klass_001 in only one"):
        image_folder(tmp_path / "data", tmp_path / "cache").prepare()
    # An unlabelled test folder, as many datasets have, gives way to a labelled val.
    write_image_folder(tmp_path / "other", num_classes=3, test_folder="val")
    (tmp_path / "other" / "val").rename(tmp_path / "data" / "val")
    shutil.rmtree(tmp_path / "data" / "test")
    shutil.copytree(tmp_path / "data" / "val" / "class_000", tmp_path / "data" / "test" / "images")
    test = image_folder(tmp_path / "data", tmp_path / "cache").test()
    np.testing.assert_array_equal(test.images.numpy(), written.test_images)


def test_hidden_and_other_files_are_passed_over_and_folders_below_a_class_searched(tmp_path):
    written = write_image_folder(tmp_path / "data")
    folder = tmp_path / "data" / "train" / "class_000"
    (folder / "notes.txt").write_text("text")
    (folder / "._00000.png").write_bytes(b"a resource fork")
    (folder / "images").mkdir()
    for path in folder.glob("0*.png"):
        path.rename(folder / "images" / path.name)
    (tmp_path / "data" / "train" / "empty").mkdir()
    assert_equal(image_folder(tmp_path / "data", tmp_path / "cache"), written)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    write_image_folder(tmp_path / "data")
    (tmp_path / "cache").write_text("a file, not a folder")
    with pytest.raises(UserError, match=f"cannot write into {tmp_path}/cache/datasets"):
        image_folder(tmp_path / "data", tmp_path / "cache").prepare()


# The synthetic images themselves


def test_synthetic_classes_can_be_told_apart():
    train, train_labels = synthetic_images(40, 10, 3, 32, split=0)
    test, test_labels = synthetic_images(20, 10, 3, 32, split=1)
    distances = np.square(test[:, None].astype(float) - train[None]).sum((2, 3, 4))
    np.testing.assert_array_equal(train_labels[distances.argmin(1)], test_labels)
