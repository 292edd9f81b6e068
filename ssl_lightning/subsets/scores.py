"""Scores from elsewhere: a file with a number for each image."""

import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float64

from ssl_lightning.config.markers import Content
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.composed import QuotaRule
from ssl_lightning.subsets.quota import Offer
from ssl_lightning.subsets.ranking import Ranking, generator


@dataclass(frozen=True, kw_only=True)
class Scores(QuotaRule):
    """Ranks by the numbers that a file holds; ties are broken by a seeded order. The score is the number, negative
    where the smallest are kept.

    Args:
        path: .npy or .npz of one array, .json of a list, .txt or .csv of a number a line; a finite number for each
            image of train, in its order.
        keep: which of them are best.
        balanced: rank within each label, so that every fraction keeps the proportions of the labels.
    """

    path: Annotated[str, Content]
    keep: Literal["largest", "smallest"] = "largest"
    balanced: bool = False

    name: ClassVar[str] = "scores"

    @cached_property
    def scores(self) -> Float64[np.ndarray, " n"]:
        return read_scores(Path(self.path))

    def content_digest(self) -> str:
        return hashlib.sha256(self.scores.astype("<f8").tobytes()).hexdigest()[:16]

    def offers(self) -> frozenset[Offer]:
        return frozenset(["scores"])

    def check_dataset(self, dataset: ImageDataset) -> None:
        if self.balanced:
            dataset.all_labels("subset.balanced=true")
        if (n := dataset.fingerprint().length) != len(self.scores):
            raise UserError(
                f"{self.path} holds {len(self.scores):,} scores, but {dataset.name} has {n:,} training images. Give "
                "one for each, in the order of the dataset."
            )

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        self.check_dataset(dataset)
        score = self.scores if self.keep == "largest" else 0 - self.scores
        n = len(score)
        order = np.lexsort((generator(self.seed, "ties").permutation(n), -score))
        groups = dataset.all_labels("subset.balanced=true").numpy() if self.balanced else np.zeros(n, np.int64)
        return self.arranged(order, groups[:, None], score, self.provenance(dataset, ()))


def read_scores(path: Path) -> Float64[np.ndarray, " n"]:
    """The numbers of a file in the format that its suffix names. Nothing in it is ever executed.

    Raises UserError that names the file and, of a wrong value, its place.
    """
    known = ", ".join(sorted(_READERS))
    if (read := _READERS.get(path.suffix.lower())) is None:
        raise UserError(f"subset.path is {path}, but scores are read from files that end in {known}. Save them as one.")
    if not path.is_file():
        raise UserError(f"subset.path: there is no file {path}. Give a number for each training image ({known}).")
    try:
        values = read(path)
    except Exception as error:  # a damaged file fails in any way
        raise UserError(f"{path} holds no readable scores ({error}). Make it again, or give another file.") from error
    if not len(values):
        raise UserError(f"{path} holds no score. Make it again, or give another subset.path.")
    if (wrong := np.flatnonzero(~np.isfinite(values))).size:
        raise UserError(
            f"{path}: score {wrong[0]}, counted from 0, is {values[wrong[0]]}. Give a finite number for each image."
        )
    return values


def _of_array(array: np.ndarray) -> Float64[np.ndarray, " n"]:
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"it is {array.dtype}{list(array.shape)}, not one dimension of numbers")
    return array.astype(np.float64)


def _of_npy(path: Path) -> Float64[np.ndarray, " n"]:
    with path.open("rb") as file:
        return _of_array(np.lib.format.read_array(file, allow_pickle=False))


def _of_npz(path: Path) -> Float64[np.ndarray, " n"]:
    if not zipfile.is_zipfile(path):  # of which numpy.load would say that it might be a pickle
        raise ValueError("it is no archive of arrays, or its end is missing")
    with np.load(path, allow_pickle=False) as arrays:
        if len(arrays.files) != 1:
            raise ValueError(f"of its arrays {arrays.files} it is not known which one is meant; save that one as .npy")
        return _of_array(arrays[arrays.files[0]])


def _of_json(path: Path) -> Float64[np.ndarray, " n"]:
    values = json.loads(path.read_text(encoding="utf-8-sig"))
    if not isinstance(values, list):
        raise ValueError("it holds no list")
    if (wrong := next((i for i, value in enumerate(values) if type(value) not in (int, float)), None)) is not None:
        raise ValueError(f"score {wrong}, counted from 0, is no number")
    return np.array(values, np.float64)


def _of_text(path: Path) -> Float64[np.ndarray, " n"]:
    """The first line that is not empty may name the column, by a word without digits."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    found = [(number, text) for number, line in enumerate(lines, 1) if (text := line.partition("#")[0].strip())]
    if found and re.fullmatch(r"[^\d,;\t]+", found[0][1]) and found[0][1].lower() not in ("nan", "inf", "-inf"):
        del found[0]
    values: list[float] = []
    for number, text in found:
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(f"line {number} is {text[:40]!r}, not one number") from None
    return np.array(values, np.float64)


_READERS: dict[str, Callable[[Path], Float64[np.ndarray, " n"]]] = {
    ".npy": _of_npy,
    ".npz": _of_npz,
    ".json": _of_json,
    ".txt": _of_text,
    ".csv": _of_text,
}
