"""Writers of tiny synthetic datasets in the native formats, whose classes can be told apart.

Each returns what it wrote: uint8 images [n, c, h, w] and int64 labels of both splits.
"""

import gzip
import io
import pickle
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from ssl_lightning.data.dataset import ImageDataset


class Written(NamedTuple):
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def synthetic_images(
    num_images: int, num_classes: int, channels: int, size: int, seed: int = 0, split: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """A coarse random pattern for each class, the same in every split, with noise; classes equally often."""
    patterns = np.random.default_rng([seed, 0]).integers(40, 216, (num_classes, channels, 4, 4))
    generator = np.random.default_rng([seed, 1, split])
    labels = generator.permutation(np.arange(num_images) % num_classes)
    cell = np.arange(size) * 4 // size
    images = patterns[labels][:, :, cell][:, :, :, cell]
    images = images + generator.integers(-30, 31, images.shape)
    return images.astype(np.uint8), labels


def _both_splits(num_train: int, num_test: int, num_classes: int, channels: int, size: int, seed: int) -> Written:
    train = synthetic_images(num_train, num_classes, channels, size, seed, 0)
    return Written(*train, *synthetic_images(num_test, num_classes, channels, size, seed, 1))


def write_cifar10(
    root: str | Path,
    num_train: int = 40,
    num_test: int = 20,
    num_classes: int = 10,
    seed: int = 0,
    protocol: Literal["python2", 2, 3, 4, 5] = "python2",
) -> Written:
    """`root/cifar-10-batches-py/` in five training batches. `python2` is the form of the official files."""
    written = _both_splits(num_train, num_test, num_classes, 3, 32, seed)
    folder = Path(root) / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(num_train), 5)
    for i, part in enumerate(parts, 1):
        images, labels = written.train_images[part], written.train_labels[part]
        (folder / f"data_batch_{i}").write_bytes(cifar_pickle(images, {"labels": labels}, protocol))
    content = cifar_pickle(written.test_images, {"labels": written.test_labels}, protocol)
    (folder / "test_batch").write_bytes(content)
    return written


def write_cifar100(
    root: str | Path,
    num_train: int = 40,
    num_test: int = 20,
    num_classes: int = 20,
    seed: int = 0,
    protocol: Literal["python2", 2, 3, 4, 5] = "python2",
) -> Written:
    """`root/cifar-100-python/`, with fine labels below `num_classes`, and coarse ones that differ."""
    written = _both_splits(num_train, num_test, num_classes, 3, 32, seed)
    folder = Path(root) / "cifar-100-python"
    folder.mkdir(parents=True)
    for name, images, labels in (("train", *written[:2]), ("test", *written[2:])):
        keys = {"coarse_labels": (labels + 1) % 20, "fine_labels": labels}
        (folder / name).write_bytes(cifar_pickle(images, keys, protocol))
    return written


def cifar_pickle(images: np.ndarray, labels: dict[str, np.ndarray], protocol: Literal["python2", 2, 3, 4, 5]) -> bytes:
    """One file of a CIFAR archive: a dict of `data`, uint8 [n, 3072], and lists of labels."""
    data, lists = images.reshape(len(images), -1), {key: values.tolist() for key, values in labels.items()}
    if protocol != "python2":
        return pickle.dumps({"batch_label": "synthetic", **lists, "data": data}, protocol=protocol)
    return b"".join(
        [
            b"\x80\x02}(",
            *(_string(key) + b"](" + b"".join(map(_integer, values)) + b"e" for key, values in lists.items()),
            _string("data"),
            # As numpy 1 under Python 2 wrote an array: an empty one, then its state.
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + _integer(0) + b"\x85" + _string("b"),
            b"\x87R(" + _integer(1) + _integer(data.shape[0]) + _integer(data.shape[1]) + b"\x86",
            b"cnumpy\ndtype\n" + _string("u1") + _integer(0) + _integer(1) + b"\x87R(",
            _integer(3) + _string("|") + b"NNN" + _integer(-1) + _integer(-1) + _integer(0) + b"tb",
            b"\x89T" + struct.pack("<i", data.size) + data.tobytes() + b"tb",
            b"u.",
        ]
    )


def _string(text: str) -> bytes:
    """A string of Python 2 (opcode SHORT_BINSTRING)."""
    return b"U" + bytes([len(text)]) + text.encode()


def _integer(value: int) -> bytes:
    """Opcode BININT."""
    return b"J" + struct.pack("<i", value)


def write_fashion_mnist(
    root: str | Path,
    num_train: int = 40,
    num_test: int = 20,
    num_classes: int = 10,
    seed: int = 0,
    layout: Literal["torchvision", "debian"] = "torchvision",
    compressed: bool = True,
) -> Written:
    """Four idx files in `root/FashionMNIST/raw/`, or directly in `root` as in Debian's package folder."""
    written = _both_splits(num_train, num_test, num_classes, 1, 28, seed)
    folder = Path(root) / "FashionMNIST" / "raw" if layout == "torchvision" else Path(root)
    folder.mkdir(parents=True, exist_ok=True)
    for part, images, labels in (("train", *written[:2]), ("t10k", *written[2:])):
        for name, magic, values in (
            ("images-idx3-ubyte", 0x0803, images[:, 0]),
            ("labels-idx1-ubyte", 0x0801, labels.astype(np.uint8)),
        ):
            content = struct.pack(f">{1 + values.ndim}i", magic, *values.shape) + values.tobytes()
            path = folder / f"{part}-{name}{'.gz' if compressed else ''}"
            path.write_bytes(gzip.compress(content) if compressed else content)
    return written


def write_image_folder(
    root: str | Path,
    num_train: int = 40,
    num_test: int = 20,
    num_classes: int = 10,
    seed: int = 0,
    size: int = 32,
    channels: int = 3,
    suffix: str = "png",
    test_folder: Literal["test", "val"] = "test",
) -> Written:
    """`root/train/<class>/` and `root/<test_folder>/<class>/`.

    Returns the images in the order in which they are read: by class, then by file name.
    """
    splits = []
    unsorted = _both_splits(num_train, num_test, num_classes, channels, size, seed)
    for part, images, labels in (("train", *unsorted[:2]), (test_folder, *unsorted[2:])):
        order = np.argsort(labels, kind="stable")
        images, labels = images[order], labels[order]
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = Path(root) / part / f"class_{label:03d}" / f"{i:05d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).save(path)
        splits += [images, labels]
    return Written(*splits)


def write_stl10(root: Path, labelled: int = 20, unlabelled: int = 24, test: int = 20) -> dict[str, np.ndarray]:
    """The five files: images column by column, labels from 1."""
    folder = root / "stl10_binary"
    folder.mkdir(parents=True)
    written = {}
    for i, (part, number) in enumerate((("train", labelled), ("unlabeled", unlabelled), ("test", test))):
        images, labels = synthetic_images(number, 10, 3, 96, split=i)
        (folder / f"{part}_X.bin").write_bytes(images.transpose(0, 1, 3, 2).tobytes())
        written |= {part: images, f"{part}_labels": labels}
        if part != "unlabeled":
            (folder / f"{part}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    return written


def write_tiny_imagenet(archive: Path, per_class: int = 4, sorted_val: bool = False) -> tuple[np.ndarray, list[int]]:
    """The archive of three classes, PNG under the names of JPEGs. Returns the images of val in order of their names,
    and their labels."""
    wnids = ["n01", "n02", "n03"]
    images, labels = synthetic_images(12, 3, 3, 64, split=1)
    with zipfile.ZipFile(archive, "w") as file:

        def write(name: str, image: np.ndarray) -> None:
            content = io.BytesIO()
            Image.fromarray(image.transpose(1, 2, 0)).save(content, "png")
            file.writestr(f"tiny-imagenet-200/{name}", content.getvalue())

        train, train_labels = synthetic_images(3 * per_class, 3, 3, 64)
        for i, (image, label) in enumerate(zip(train, train_labels, strict=True)):
            write(f"train/{wnids[label]}/images/{wnids[label]}_{i}.JPEG", image)
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = wnids[label] if sorted_val else "images"
            write(f"val/{folder}/val_{i:02d}.JPEG", image)
        write("test/images/test_0.JPEG", images[0])
        rows = "".join(f"val_{i:02d}.JPEG\t{wnids[label]}\t0\t0\t62\t62\n" for i, label in enumerate(labels))
        if not sorted_val:
            file.writestr("tiny-imagenet-200/val/val_annotations.txt", rows)
    return images, labels.tolist()


@dataclass(kw_only=True)
class InMemory(ImageDataset):
    """A dataset of given arrays, both splits alike, for tests that need no files."""

    images: np.ndarray
    labels: np.ndarray

    def prepare(self) -> None:
        pass

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        return self.images, self.labels

    def count_classes(self) -> int:
        return int(self.labels.max()) + 1


def in_memory(labels: np.ndarray, name: str = "memory") -> InMemory:
    """Distinct 1×2×2 images with these labels."""
    images = np.arange(4 * len(labels)).astype(np.uint8).reshape(-1, 1, 2, 2)
    return InMemory(
        name=name,
        image_size=2,
        channels=1,
        num_classes=None,
        mean=[0.5],
        std=[0.5],
        images=images,
        labels=np.asarray(labels, np.int64),
    )
