"""Pickles of plain data, read without executing anything."""

import pickle
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssl_lightning.errors import UserError


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
