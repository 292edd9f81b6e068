"""A list of positions from elsewhere: a file that another program, a colleague or the authors of a paper have left."""

import hashlib
import json
import re
import reprlib
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_lightning.config.markers import Content
from ssl_lightning.data.dataset import Fingerprint, ImageDataset
from ssl_lightning.data.mask import Mask
from ssl_lightning.data.sources.pickles import read_pickle
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.ranking import RANKING_FILE, Budget, Ranking, refuse_foreign, size_of
from ssl_lightning.subsets.rule import SubsetRule


class PositionList(NamedTuple):
    """What a file says.

    Args:
        positions: distinct, 0 or more, best first.
        place: where in the file the i-th of them stands, in words.
        fingerprint: of the split that they are positions of, where the file knows it.
        length: of that split, where the file knows it.
        ranking: of all positions, where the file holds one.
    """

    positions: Int64[np.ndarray, " m"]
    place: Callable[[int], str]
    fingerprint: Fingerprint | None = None
    length: int | None = None
    ranking: Ranking | None = None


@dataclass(frozen=True, kw_only=True)
class File(SubsetRule):
    """The positions that a file lists, best first; what it does not list comes behind and cannot be cut.

    Args:
        path: .npy, .npz or .json of integers; .npy or .npz of as many booleans as there are images; .txt, an integer
            a line; .pkl or .pickle with a list of integers, or lists by class, which then give in proportion to
            their lengths; or a ranking, with its latent classes: an .npz, or a folder of `ssl-select export=`.
    """

    path: Annotated[str, Content]
    seed: int = field(default=0, init=False)  # nothing is drawn

    name: ClassVar[str] = "file"
    key: ClassVar[str] = "subset.path"
    """Where the path stands."""

    @cached_property
    def listing(self) -> PositionList:
        return read_positions(Path(self.path), self.key)

    def content_digest(self) -> str:
        positions, *_, ranking = self.listing
        digest = hashlib.sha256(positions.astype("<i8").tobytes())
        if ranking is not None:
            digest.update(ranking.latent_class.astype("<i8").tobytes())
            digest.update(repr(ranking.provenance.get("max_fraction")).encode())
        return digest.hexdigest()[:16]

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        positions, place, made_for, length, ranking = self.listing
        fingerprint = dataset.fingerprint()
        n = fingerprint.length
        if ranking is not None or made_for is not None:
            refuse_foreign(self.path, made_for, fingerprint)
        if ranking is not None:  # with its own seed, by which ties were broken
            return replace(ranking, provenance={**ranking.provenance, "rule": self.name})
        if length not in (None, n):
            raise UserError(
                f"{self.path} holds {length} booleans, but {dataset.name} has {n} training images. "
                "Give one for each, or the positions themselves."
            )
        if (beyond := np.flatnonzero(positions >= n)).size:
            i = int(beyond[0])
            raise UserError(
                f"{self.path}, {place(i)}: {positions[i]} is no position of {dataset.name}, whose {n} training images "
                f"are counted from 0 to {n - 1}. Choose the dataset that the list was made for."
            )
        others = np.setdiff1d(np.arange(n), positions, assume_unique=True)
        provenance = self.provenance(dataset, ()) | {"max_fraction": len(positions) / n}
        return Ranking(np.concatenate([positions, others]), np.zeros(n, np.int64), np.full(n, np.nan), provenance)

    def cut(self, ranking: Ranking, fraction: float | None, budget: Budget) -> Mask:
        last = ranking.max_fraction
        if fraction is not None and (wanted := size_of(fraction, len(ranking))) > (
            listed := size_of(last, len(ranking))
        ):
            raise UserError(
                f"subset.fraction is {fraction:g}, {wanted} of {len(ranking)} images, but {self.path} ranks "
                f"{listed} of them. Choose a smaller fraction, or subset.fraction=null, which takes all of these."
            )
        return super().cut(ranking, fraction, budget)


def read_positions(path: Path, key: str = File.key) -> PositionList:
    """Read a file of positions in the format that its suffix names. Nothing in it is ever executed.

    Args:
        key: where a user has written the path.

    Raises UserError that names the file and, of a wrong value, its place.
    """
    if path.is_dir():
        path /= RANKING_FILE
    known = ", ".join(sorted(_READERS))
    if (read := _READERS.get(path.suffix.lower())) is None:
        raise UserError(f"{key} is {path}, but the formats that are read end in {known}. Save the list as one.")
    if not path.is_file():
        raise UserError(
            f"{key}: there is no file {path}. Give a list of positions ({known}), or a folder of ssl-select export=."
        )
    try:
        listing = read(path)
    except UserError:
        raise
    except Exception as error:  # a damaged file fails in any way
        raise UserError(
            f"{path} is no readable list of positions ({error}). Make it again, or give another {key}."
        ) from error
    positions, place = listing.positions, listing.place
    if len(positions) == 0:
        raise UserError(f"{path} lists no position. Make it again, or give another {key}.")
    order = np.argsort(positions, kind="stable")
    if (again := np.flatnonzero(np.diff(positions[order]) == 0)).size:
        first, second = (int(i) for i in order[again[0] : again[0] + 2])
        raise UserError(
            f"{path} lists {positions[first]} twice, at {place(first)} and at {place(second)}. Remove one of them."
        )
    return listing


def _index(i: int) -> str:
    return f"index {i}"


def _positions(path: Path, values: Sequence[Any], place: Callable[[int], str]) -> Int64[np.ndarray, " m"]:
    for i, value in enumerate(values):
        if type(value) is not int or not 0 <= value < 2**63:  # a bool is an int
            advice = " A file of a score for each image is read by subset=scores." if type(value) is float else ""
            raise UserError(
                f"{path}, {place(i)}: {reprlib.repr(value)} is no position. These are whole numbers, counted from 0."
                f"{advice}"
            )
    return np.array(values, np.int64)


def _of_array(path: Path, array: np.ndarray) -> PositionList:
    if array.ndim != 1:
        raise ValueError(f"it holds {array.dtype}{list(array.shape)}, not one dimension of integers or booleans")
    if array.dtype == np.bool_:
        return PositionList(np.flatnonzero(array), _index, length=len(array))
    return PositionList(_positions(path, array.tolist(), _index), _index)


def _of_npy(path: Path) -> PositionList:
    with path.open("rb") as file:
        return _of_array(path, np.lib.format.read_array(file, allow_pickle=False))


def _of_npz(path: Path) -> PositionList:
    if not zipfile.is_zipfile(path):  # of which numpy.load would say that it might be a pickle
        raise ValueError("it is no archive of arrays, or its end is missing")
    with np.load(path, allow_pickle=False) as arrays:
        names = arrays.files
        if "provenance" not in names:
            if len(names) != 1:
                raise ValueError(f"it holds the arrays {names}, where one, or a ranking of ssl-select, is read")
            return _of_array(path, arrays[names[0]])
    ranking = Ranking.load(path, None)  # the dataset is not open yet
    return PositionList(ranking.order, _index, ranking.fingerprint, ranking=ranking)


def _of_json(path: Path) -> PositionList:
    content = json.loads(path.read_text(encoding="utf-8-sig"))
    positions, fingerprint = content, None
    if isinstance(content, dict):
        positions, values = content.get("positions"), content.get("fingerprint")
        try:
            fingerprint = None if values is None else Fingerprint.from_dict(values)
        except (KeyError, TypeError, ValueError):
            raise ValueError('its "fingerprint" is no object of "name", "split", "length" and "hash"') from None
    if not isinstance(positions, list):
        raise ValueError('it holds neither a list nor an object with a list of "positions"')
    return PositionList(_positions(path, positions, _index), _index, fingerprint)


def _of_text(path: Path) -> PositionList:
    values: list[int | str] = []
    lines: list[int] = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        if text := line.partition("#")[0].strip():
            values.append(int(text) if re.fullmatch("-?[0-9]+", text) else text)
            lines.append(number)

    def place(i: int) -> str:
        return f"line {lines[i]}"

    return PositionList(_positions(path, values, place), place)


def _of_pickle(path: Path) -> PositionList:
    try:
        content = read_pickle(path)
    except UserError as error:
        if "it asks for numpy" in str(error):
            raise UserError(
                f"{path} holds objects of numpy, and a pickle is read for plain lists of integers only. "
                "Save the positions with numpy.save, as .npy."
            ) from error
        raise
    if not isinstance(content, dict):
        return PositionList(_positions(path, _plain_list(content, "it"), _index), _index)
    # One latent class for all: which of them the images that are not listed belong to is unknown, and any guess would
    # let some come before the last that are listed.
    classes = {name: _plain_list(values, f"its class {name!r}") for name, values in content.items()}
    entries = [(value, name, i) for name, values in classes.items() for i, value in enumerate(values)]
    share = [(i + 0.5) / len(classes[name]) for _, name, i in entries]
    by_share = [entries[i] for i in np.argsort(share, kind="stable")]  # nested and in proportion, as in `Ranking`

    def place(i: int) -> str:
        _, name, index = by_share[i]
        return f"index {index} of class {name!r}"

    return PositionList(_positions(path, [value for value, _, _ in by_share], place), place)


def _plain_list(value: Any, what: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"{what} is of type {type(value).__name__}, not a list")
    return value


_READERS: dict[str, Callable[[Path], PositionList]] = {
    ".npy": _of_npy,
    ".npz": _of_npz,
    ".json": _of_json,
    ".txt": _of_text,
    ".pkl": _of_pickle,
    ".pickle": _of_pickle,
}
