"""What classes of torchvision fetch and read, and how: seven datasets that representations are tried on."""

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_lightning.errors import NotThere, UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.files import locked

Which = Literal["svhn", "flowers102", "pets", "dtd", "eurosat", "aircraft", "caltech101"]


class Listed(NamedTuple):
    """One split.

    Args:
        paths: of the image files; None where images have no files of their own.
        labels: from 0.
    """

    paths: list[str] | None
    labels: Int64[np.ndarray, " n"]


def _by_loader(dataset: Any) -> Listed:
    """Of a class that was given a loader of images, which takes paths for them."""
    items = [dataset[i] for i in range(len(dataset))]
    return Listed([path for path, _ in items], np.array([label for _, label in items], np.int64))


def _unloaded(dataset: Any) -> Listed:
    """Of a class whose images Pillow has opened, and read no pixels of."""
    paths, labels = [], []
    for i in range(len(dataset)):
        image, label = dataset[i]
        with image:
            paths.append(image.filename)
        labels.append(label)
    return Listed(paths, np.array(labels, np.int64))


def _private(dataset: Any) -> Listed:
    """Of a class that decodes each image when it is asked for, whatever its format: for some, Pillow starts programs.
    So its paths are taken from under it."""
    return Listed([os.fspath(path) for path in dataset._images], np.array(dataset._labels, np.int64))


def _arrays(dataset: Any) -> Listed:
    """Of a class that has all images in memory."""
    return Listed(None, np.array([dataset[i][1] for i in range(len(dataset))], np.int64))


class Entry(NamedTuple):
    """A dataset.

    Args:
        source: name of the class in `torchvision.datasets`.
        files: what lies below its root where it is there.
        splits: by our splits, its name for them; None where it knows none.
        listed: what an opened one holds.
    """

    source: str
    files: tuple[str, ...]
    splits: Mapping[str, str | None]
    listed: Callable[[Any], Listed] = _by_loader

    def open(self, root: Path, part: str, download: bool = False) -> Any:
        """Torchvision's dataset of one of our splits. Raises errors of many kinds."""
        import torchvision.datasets  # late: it takes seconds

        name = self.splits[part]
        split = {} if name is None else {"split": name}
        loader = {"loader": os.fspath} if self.listed is _by_loader else {}
        return getattr(torchvision.datasets, self.source)(root, download=download, **split, **loader)

    def is_in(self, root: Path) -> bool:
        return all((root / name).exists() for name in self.files)


_THREE = {part: part for part in ("train", "val", "test")}
CATALOGUE: Mapping[Which, Entry] = {
    "svhn": Entry("SVHN", ("train_32x32.mat", "test_32x32.mat"), {"train": "train", "test": "test"}, _arrays),
    "flowers102": Entry("Flowers102", ("flowers-102",), _THREE),
    "pets": Entry("OxfordIIITPet", ("oxford-iiit-pet",), {"train": "trainval", "test": "test"}, _private),
    "dtd": Entry("DTD", ("dtd",), _THREE),  # the first of its ten partitions
    "eurosat": Entry("EuroSAT", ("eurosat",), {"train": None}),
    "aircraft": Entry("FGVCAircraft", ("fgvc-aircraft-2013b",), _THREE),  # its 100 variants
    "caltech101": Entry("Caltech101", ("caltech101",), {"train": None}, _unloaded),  # without its background
}


def listed(which: Which, root: Path, download: bool) -> dict[str, Listed]:
    """The splits of a dataset below `root`, in torchvision's layout; fetched first, where that is asked for.

    MATLAB's files are read by scipy, which comes with scikit-learn; it takes arrays of them and executes nothing.

    Raises:
        UserError: it is not there, damaged, or cannot be fetched.
    """
    entry = CATALOGUE[which]
    if not entry.is_in(root):
        if not download:
            missing = next(name for name in entry.files if not (root / name).exists())
            raise NotThere(
                f"there is no {missing} in {root}. Fetch it with dataset={which} dataset.download=true, or say where "
                "it lies with dataset.root=<folder>."
            )
        _fetch(entry, root)
    try:
        return {part: entry.listed(entry.open(root, part)) for part in entry.splits}
    except Exception as error:  # of many kinds
        damaged = " and ".join(str(root / name) for name in entry.files)
        raise UserError(
            f"{damaged}: damaged or incomplete ({_reason(error)}). Delete what is there, and fetch it again with "
            f"dataset={which} dataset.download=true."
        ) from error


def _fetch(entry: Entry, root: Path) -> None:
    """Has torchvision download and unpack beside, so that what has its name is complete."""
    with locked(root / entry.files[0]):
        if entry.is_in(root):  # another process was faster
            return
        prefix = f".{entry.source}-"
        for abandoned in root.glob(f"{prefix}*"):
            shutil.rmtree(abandoned)
        with tempfile.TemporaryDirectory(dir=root, prefix=prefix) as temporary:
            try:
                with _nothing_elsewhere():
                    for part in entry.splits:
                        entry.open(Path(temporary), part, download=True)
                for name in entry.files:
                    os.replace(Path(temporary) / name, root / name)
            except Exception as error:  # of many kinds
                raise UserError(
                    f"{entry.source} cannot be downloaded ({_reason(error)}). Try again, or fetch it by hand and "
                    f"unpack it as torchvision does: {' and '.join(entry.files)} in {root}."
                ) from error


@contextlib.contextmanager
def _nothing_elsewhere() -> Iterator[None]:
    """Lets no member of a tar archive be written outside of the folder that it is unpacked into, nor be a device: some
    of the archives have no checksum."""
    if not hasattr(tarfile, "data_filter"):  # Python before 3.11.4
        yield
        return
    former = vars(tarfile.TarFile).get("extraction_filter")
    tarfile.TarFile.extraction_filter = staticmethod(tarfile.data_filter)
    try:
        yield
    finally:
        tarfile.TarFile.extraction_filter = former


def _reason(error: Exception) -> str:
    """Torchvision's checks say what to do in its own words."""
    return "a file is missing or has a wrong checksum" if type(error) is RuntimeError else in_one_line(error)
