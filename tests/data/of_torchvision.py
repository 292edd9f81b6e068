"""Writers of tiny datasets in the layouts of torchvision's classes, and what has these believe that they are whole.

Each writes below a root and returns images, uint8 [n, 3, s, s], and labels of its splits, in the order in which they
are read; image files are PNG under the names of JPEGs.
"""

import hashlib
import os
import shutil
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torchvision
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import utils

from tests.data.synthetic import synthetic_images

Splits = dict[str, tuple[np.ndarray, np.ndarray]]
CLASSES = 3
THREE = ("train", "val", "test")


def _made(parts: tuple[str, ...], number: int, size: int = 16) -> Splits:
    return {part: synthetic_images(number, CLASSES, 3, size, split=i) for i, part in enumerate(parts)}


def _save(image: np.ndarray, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.transpose(1, 2, 0)).save(file, "png")


def write_svhn(root: Path, number: int) -> Splits:
    """The digit 0 has the label 10."""
    made = _made(("train", "test"), number, 32)
    for part, (images, labels) in made.items():
        arrays = {"X": images.transpose(2, 3, 1, 0), "y": np.where(labels == 0, 10, labels)[:, None].astype(np.uint8)}
        savemat(root / f"{part}_32x32.mat", arrays, do_compression=True)
    return made


def write_flowers102(root: Path, number: int) -> Splits:
    """Images are numbered from 1, in another order than they are read; classes, too."""
    made = _made(THREE, number)
    numbers = iter(np.random.default_rng(0).permutation(3 * number) + 1)
    of_images, sets = np.zeros(3 * number, np.int64), {}
    for name, (images, labels) in zip(("trnid", "valid", "tstid"), made.values(), strict=True):
        sets[name] = [next(numbers) for _ in images]
        for i, image, label in zip(sets[name], images, labels, strict=True):
            _save(image, root / "flowers-102" / "jpg" / f"image_{i:05d}.jpg")
            of_images[i - 1] = label + 1
    savemat(root / "flowers-102" / "imagelabels.mat", {"labels": of_images})
    savemat(root / "flowers-102" / "setid.mat", sets)
    return made


def write_pets(root: Path, number: int) -> Splits:
    made, folder = _made(("train", "test"), number), root / "oxford-iiit-pet"
    (folder / "annotations").mkdir(parents=True)
    for part, (images, labels) in made.items():
        lines = []
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            name = f"{'cat'[label]}_breed_{part}{i}"
            _save(image, folder / "images" / f"{name}.jpg")
            lines.append(f"{name} {label + 1} 1 1\n")
        name = "trainval" if part == "train" else part
        (folder / "annotations" / f"{name}.txt").write_text("".join(lines))
    return made


def write_dtd(root: Path, number: int) -> Splits:
    """With a second partition, which is not to be read."""
    made, folder = _made(THREE, number), root / "dtd" / "dtd"
    (folder / "labels").mkdir(parents=True)
    for part, (images, labels) in made.items():
        names = [f"texture_{label}/{part}_{i}.jpg" for i, label in enumerate(labels)]
        for name, image in zip(names, images, strict=True):
            _save(image, folder / "images" / name)
        for partition, lines in ((1, names), (2, names[::-1])):
            (folder / "labels" / f"{part}{partition}.txt").write_text("".join(f"{line}\n" for line in lines))
    return made


def _by_class(number: int, name: Callable[[int, int], Path]) -> Splits:
    """All in train, sorted by class; numbered from 1 in each."""
    images, labels = _made(("train",), number)["train"]
    order = np.argsort(labels, kind="stable")
    counts = [0] * CLASSES
    for image, label in zip(images[order], labels[order], strict=True):
        counts[label] += 1
        _save(image, name(label, counts[label]))
    return {"train": (images[order], labels[order])}


def write_eurosat(root: Path, number: int) -> Splits:
    return _by_class(number, lambda label, i: root / f"eurosat/2750/Class{label}/Class{label}_{i:02d}.jpg")


def write_aircraft(root: Path, number: int) -> Splits:
    made, folder = _made(THREE, number), root / "fgvc-aircraft-2013b" / "data"
    folder.mkdir(parents=True)
    (folder / "variants.txt").write_text("".join(f"A {i}/x\n" for i in range(CLASSES)))
    for i, (part, (images, labels)) in enumerate(made.items()):
        names = [f"{1_000_000 * (i + 1) + j:07d}" for j in range(number)]
        for name, image in zip(names, images, strict=True):
            _save(image, folder / "images" / f"{name}.jpg")
        lines = [f"{name} A {label}/x\n" for name, label in zip(names, labels, strict=True)]
        (folder / f"images_variant_{part}.txt").write_text("".join(lines))
    return made


def write_caltech101(root: Path, number: int) -> Splits:
    """With its background, which is no class."""
    folder = root / "caltech101" / "101_ObjectCategories"
    _save(np.zeros((3, 16, 16), np.uint8), folder / "BACKGROUND_Google" / "image_0001.jpg")
    return _by_class(number, lambda label, i: folder / "Xyz"[label] / f"image_{i:04d}.jpg")


WRITERS = {
    "svhn": write_svhn,
    "flowers102": write_flowers102,
    "pets": write_pets,
    "dtd": write_dtd,
    "eurosat": write_eurosat,
    "aircraft": write_aircraft,
    "caltech101": write_caltech101,
}


def write(which: str, root: Path, patch: pytest.MonkeyPatch, number: int = 12) -> Splits:
    """Unpacked; `patch` gives torchvision the checksums that it looks at."""
    root.mkdir(parents=True, exist_ok=True)
    written = WRITERS[which](root, number)
    if which in ("svhn", "flowers102"):
        _trust(which, {file.name: _md5(file) for file in root.rglob("*.mat")}, "http://127.0.0.1:9/", patch)
    return written


def serve(which: str, folder: Path, address: str, patch: pytest.MonkeyPatch, number: int = 12) -> Splits:
    """As its archives, for torchvision to fetch from `address`."""
    unpacked = folder / "unpacked"
    unpacked.mkdir()
    written = WRITERS[which](unpacked, number)
    archives = [unpacked / name for name in ARCHIVES[which](unpacked)]
    _trust(which, {archive.name: _md5(archive) for archive in archives}, address, patch)
    for archive in archives:
        os.replace(archive, folder / archive.name)
    shutil.rmtree(unpacked)
    return written


def _tar(folder: Path, name: str, *members: str) -> str:
    with tarfile.open(folder / name, "w:gz") as tar:
        for member in members:
            tar.add(folder / member, member)
    return name


def _caltech_archive(root: Path) -> list[str]:
    """A tar in a zip."""
    folder = root / "caltech101" / "caltech-101"
    folder.mkdir()
    _tar(root / "caltech101", "caltech-101/101_ObjectCategories.tar.gz", "101_ObjectCategories")
    shutil.make_archive(str(root / "caltech101" / "caltech-101"), "zip", root / "caltech101", "caltech-101")
    return ["caltech101/caltech-101.zip"]


def _eurosat_archive(root: Path) -> list[str]:
    shutil.make_archive(str(root / "eurosat" / "EuroSAT"), "zip", root / "eurosat", "2750")
    return ["eurosat/EuroSAT.zip"]


def _pets_archives(root: Path) -> list[str]:
    folder = root / "oxford-iiit-pet"
    return [f"oxford-iiit-pet/{_tar(folder, f'{name}.tar.gz', name)}" for name in ("images", "annotations")]


MATS = ["flowers-102/imagelabels.mat", "flowers-102/setid.mat"]
ARCHIVES: Mapping[str, Callable[[Path], list[str]]] = {
    "svhn": lambda root: ["train_32x32.mat", "test_32x32.mat"],
    "flowers102": lambda root: [f"flowers-102/{_tar(root / 'flowers-102', '102flowers.tgz', 'jpg')}", *MATS],
    "pets": _pets_archives,
    "dtd": lambda root: [f"dtd/{_tar(root / 'dtd', 'dtd-r1.0.1.tar.gz', 'dtd')}"],
    "eurosat": _eurosat_archive,
    "aircraft": lambda root: [_tar(root, "fgvc-aircraft-2013b.tar.gz", "fgvc-aircraft-2013b")],
    "caltech101": _caltech_archive,
}
"""By dataset: what makes its archives of the unpacked one, and their names below its root."""


def _md5(file: Path) -> str:
    return hashlib.md5(file.read_bytes()).hexdigest()


def _trust(which: str, md5s: Mapping[str, str], address: str, patch: pytest.MonkeyPatch) -> None:
    """Torchvision's addresses and checksums become these."""

    def from_here(url: str, *_: Any, **settings: Any) -> None:
        name = url.rpartition("/")[2]
        utils.download_and_extract_archive(address + name, **{**settings, "md5": md5s[name]})

    known = torchvision.datasets
    match which:
        case "svhn":
            names = {"train": "train_32x32.mat", "test": "test_32x32.mat"}
            files = {part: [address + name, name, md5s[name]] for part, name in names.items()}
            patch.setattr(known.SVHN, "split_list", files)
        case "flowers102":
            names = {"image": "102flowers.tgz", "label": "imagelabels.mat", "setid": "setid.mat"}
            patch.setattr(known.Flowers102, "_file_dict", {key: (name, md5s.get(name)) for key, name in names.items()})
            patch.setattr(known.Flowers102, "_download_url_prefix", address)
        case "pets":
            patch.setattr(known.OxfordIIITPet, "_RESOURCES", [(address + name, md5) for name, md5 in md5s.items()])
        case "dtd":
            patch.setattr(known.DTD, "_URL", f"{address}dtd-r1.0.1.tar.gz")
            patch.setattr(known.DTD, "_MD5", md5s["dtd-r1.0.1.tar.gz"])
        case "aircraft":
            patch.setattr(known.FGVCAircraft, "_URL", f"{address}fgvc-aircraft-2013b.tar.gz")
        case "eurosat" | "caltech101":
            module = {"eurosat": "eurosat", "caltech101": "caltech"}[which]
            patch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", from_here)
