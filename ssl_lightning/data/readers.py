"""File formats: archives, idx, the pickles of CIFAR's archives."""

import glob
import gzip
import math
import os
import pickle
import re
import shutil
import sys
import tarfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from jaxtyping import UInt8

from ssl_lightning.errors import UserError
from ssl_lightning.files import replacing

IDX_IMAGES, IDX_LABELS = 0x0803, 0x0801  # unsigned bytes in three dimensions, in one


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when the block ends, and not at all when it fails."""
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            yield file
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}. Free some space or choose another folder."
        ) from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`: one process at a time builds it, and tidies up after killed ones."""
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=2)
        except Timeout:
            print(f"Waiting for another process, which is making {path.name}.", file=sys.stderr, flush=True)
            lock.acquire()
    except OSError as error:
        raise UserError(
            f"cannot write into {path.parent}: {error.strerror or error}. Choose another folder."
        ) from error
    try:
        for unfinished in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            unfinished.unlink(missing_ok=True)
        yield
    finally:
        lock.release()


def fetch(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`, which appears only when its checksum is right."""
    from torchvision.datasets.utils import download_url  # late: it takes seconds

    part = path.with_name(f"{path.name}.part")
    try:
        download_url(url, str(path.parent), part.name, md5)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong checksum
        raise UserError(
            f"cannot download {url}: {error}. Try again, or fetch it by hand and put it at {path}."
        ) from error


def extract(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy the regular files `folder.name/<name>` of a tar archive into `folder`, and nothing else.

    No path of the archive is ever followed, so nothing can be written elsewhere.
    """
    wanted = {f"{folder.name}/{name}" for name in names}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name in wanted and (content := tar.extractfile(member)):
                    with writing(folder / Path(member.name).name) as file:
                        shutil.copyfileobj(content, file)
                    wanted.remove(member.name)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is damaged or truncated ({error}). Delete it and fetch it again.") from error
    if wanted:
        raise UserError(f"{archive} holds no {sorted(wanted)[0]}. Delete it and fetch it again.")


def read_idx(path: Path, magic: int) -> UInt8[np.ndarray, "..."]:
    """Read an idx file of unsigned bytes, gzipped if its name ends so.

    Args:
        magic: the file's first four bytes as a number; the lowest byte is the number of dimensions.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            content = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} is damaged or truncated ({error}). Delete it and fetch it again.") from error
    found = int.from_bytes(content[:4], "big")
    if len(content) < 4 or found != magic:
        raise UserError(f"{path} is no idx file of the kind {magic:#010x} (it begins with {found:#010x}). Replace it.")
    header = 4 + 4 * (magic & 0xFF)
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, header, 4)]
    if len(content) != header + math.prod(shape):
        raise UserError(
            f"{path} is truncated or damaged: {len(content)} bytes, where its header announces "
            f"{header + math.prod(shape)}. Delete it and fetch it again."
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()


class _RefusedPickle(Exception):
    """A pickle asks for more than plain data."""


class _PickledType:
    """Stands for numpy.dtype while a pickle is read. Numbers only."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        code = code.decode("ascii") if isinstance(code, bytes) else code
        if not re.fullmatch(r"[|<>=]?[biuf][1248]", code):
            raise _RefusedPickle(f"it holds an array of type {code!r}")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: Sequence[Any]) -> None:
        order = state[1].decode("ascii") if isinstance(state[1], bytes) else state[1]
        if order == ">":
            self.dtype = self.dtype.newbyteorder(">")


class _PickledArray:
    """Stands for a numpy array while a pickle is read, and for the functions that numpy's pickles call."""

    def __init__(self, *_: Any) -> None:
        self.array = np.empty(0, np.uint8)

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, shape, kind, fortran, data = state
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")

    @classmethod
    def from_buffer(
        cls, data: bytes | bytearray, kind: _PickledType, shape: tuple[int, ...], order: str, *_: Any
    ) -> Any:
        result = cls()
        result.__setstate__((1, shape, kind, order == "F", data))
        return result


def _encode_latin1(text: str, _: str) -> bytes:
    return text.encode("latin1")


# What the pickles of numpy 1 and 2, protocols 2 to 5, name. None of numpy's own functions is ever handed out.
PICKLED_ARRAYS: Mapping[str, Callable[..., Any]] = {
    "numpy.dtype": _PickledType,
    "numpy.ndarray": _PickledArray,
    "numpy.core.multiarray._reconstruct": _PickledArray,
    "numpy._core.multiarray._reconstruct": _PickledArray,
    "numpy.core.numeric._frombuffer": _PickledArray.from_buffer,
    "numpy._core.numeric._frombuffer": _PickledArray.from_buffer,
    "_codecs.encode": _encode_latin1,
}


class _RestrictedUnpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, allowed: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__(file, encoding="bytes")
        self.allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (found := self.allowed.get(f"{module}.{name}")) is None:
            raise _RefusedPickle(f"it asks for {module}.{name}")
        return found


def read_pickle(path: Path, allowed: Mapping[str, Callable[..., Any]] | None = None) -> Any:
    """Read a pickle that can build containers, numbers and strings only. Strings of Python 2 become bytes.

    Args:
        allowed: globals that the pickle may name besides, with what stands for each.
    """
    try:
        with open(path, "rb") as file:
            return _RestrictedUnpickler(file, allowed or {}).load()
    except _RefusedPickle as error:
        raise UserError(
            f"{path} is refused: {error}. A pickle may hold plain data only; fetch the original again."
        ) from error
    except Exception as error:  # a damaged pickle fails in any way
        raise UserError(f"{path} is damaged or truncated ({error}). Delete it and fetch it again.") from error


def read_cifar_batch(path: Path, label_key: str) -> tuple[UInt8[np.ndarray, "n 3 32 32"], np.ndarray]:
    """Read one file of the CIFAR archives' Python version: images and the labels under `label_key`."""
    content = read_pickle(path, PICKLED_ARRAYS)
    try:
        entries = {key.decode() if isinstance(key, bytes) else key: value for key, value in content.items()}
        images = entries["data"].array
        labels = np.array(entries[label_key], np.int64)
        if images.dtype != np.uint8 or images.shape != (len(labels), 3 * 32 * 32):
            raise ValueError(f"{len(labels)} labels and images of {images.dtype}, shape {images.shape}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is no CIFAR file with 'data' and '{label_key}' ({error!r}). Fetch it again."
        ) from error
    return images.reshape(-1, 3, 32, 32), labels
