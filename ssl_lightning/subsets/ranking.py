"""Rankings of a dataset's positions, and masks cut from them under a budget."""

import json
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64

from ssl_lightning.data.dataset import Fingerprint
from ssl_lightning.data.mask import Mask
from ssl_lightning.errors import UserError
from ssl_lightning.files import writing

RANKING_FORMAT, KEYED_FORMAT = 1, 2
"""Of files, without and with keys: what read only the first would cut the second by other shares."""
RANKING_FILE = "ranking.npz"
"""In a folder that is handed on."""


Budget = Literal["exact", "floor"]


def generator(seed: int, purpose: str) -> np.random.Generator:
    """A stream of random numbers of its own for each seed and purpose."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *purpose.encode()])))


@dataclass(frozen=True, eq=False)
class Ranking:
    """A full order of a dataset's positions, best first within each latent class.

    The sample of rank j (from 0) in a class of n_k has the key (j + ½)/n_k. `order` is stored sorted by key,
    ties by an order drawn from provenance["seed"]; an order given otherwise is brought into this form. So
    every prefix of `order` is a mask, masks are nested, and each class count is within ½ of n_k·t at one
    common threshold t.

    Args:
        order: every position once.
        latent_class: the group of each position.
        score: of each position; larger is better, NaN where the rule has none.
        provenance: JSON-able; "fingerprint" (`Fingerprint.as_dict`), "rule", "parameters", "seed" and more, such as
            the "seconds" that it took to make, and the "proxy_seconds" in which its proxies were trained.
        keys: of each position, where a quota gives others than the above: `order` is then sorted by these, and within
            equals as well.

    Raises ValueError if `order` is no permutation.
    """

    order: Int64[np.ndarray, " n"]
    latent_class: Int64[np.ndarray, " n"]
    score: Float64[np.ndarray, " n"]
    provenance: dict[str, Any]
    keys: Float64[np.ndarray, " n"] | None = None

    def __post_init__(self) -> None:
        length = len(self.order)
        if length == 0 or not np.array_equal(np.sort(self.order), np.arange(length)):
            raise ValueError(f"order does not hold each of {length} positions once")
        rank, size = self._ranks()
        ties = generator(self.provenance.get("seed", 0), "ties").permutation(length)
        keys = (rank + 0.5) / size if self.keys is None else self.keys[self.order]
        by_key = np.lexsort((ties[self.order], keys))
        object.__setattr__(self, "order", self.order[by_key])
        for key in ("order", "latent_class", "score", *(["keys"] if self.keys is not None else [])):
            values = getattr(self, key).copy()
            values.setflags(write=False)
            object.__setattr__(self, key, values)

    def __len__(self) -> int:
        return len(self.order)

    @property
    def fingerprint(self) -> Fingerprint | None:
        values = self.provenance.get("fingerprint")
        return None if values is None else Fingerprint.from_dict(values)

    @property
    def max_fraction(self) -> float:
        """Up to where it can be cut."""
        return self.provenance.get("max_fraction", 1.0)

    @property
    def scored(self) -> bool:
        """Whether the rule has scores."""
        return not np.isnan(self.score).all()

    @property
    def cost(self) -> dict[str, float]:
        """Seconds that it took, whoever made it: of ranking, and of training its proxies. Rankings of former versions
        say nothing, and others may hold anything."""
        said = {"selection_seconds": "seconds", "proxy_seconds": "proxy_seconds"}
        values = {name: self.provenance.get(key) for name, key in said.items()}
        return {name: value for name, value in values.items() if type(value) is float}

    def mask(self, fraction: float, budget: Budget = "exact") -> Mask:
        """Cut the ranking at a fraction in (0, 1].

        Args:
            budget: `exact` takes the first round(fraction · n), halves up, at least one; `floor` the best
                ⌊fraction · n_k⌋ of each latent class.
        """
        check_fraction(fraction)
        last = self.max_fraction
        if size_of(fraction, len(self)) > size_of(last, len(self)):
            raise UserError(
                f"subset.fraction is {fraction}, but this ranking was made up to {last:g}. "
                f"Choose a smaller fraction, or set subset.max_fraction={fraction:g}."
            )
        rank, size = self._ranks()
        if budget == "exact":
            taken = np.arange(len(self)) < size_of(fraction, len(self))
        elif budget == "floor":
            if self.keys is not None:
                raise UserError(
                    "subset.budget=floor takes the floor of each latent class's proportional share, but this ranking "
                    "has another quota. Choose subset.budget=exact."
                )
            quota = {int(n): math.floor(_written(fraction) * int(n)) for n in np.unique(size)}
            taken = rank < np.array([quota[int(n)] for n in size])
        else:
            raise UserError(f"subset.budget is {budget!r}: choose exact or floor.")
        if not taken.any():
            raise UserError(
                f"subset.budget=floor leaves no image at subset.fraction={fraction}: the largest latent "
                f"class has {size.max()}. Raise the fraction or set subset.budget=exact."
            )
        positions = np.sort(self.order[taken])
        rule = str(self.provenance.get("rule", ""))
        return Mask(positions, rule, float(fraction), len(self), self.fingerprint)

    def save(self, path: str | Path) -> None:
        """Write an .npz that needs no pickle to be read."""
        keyed = {} if self.keys is None else {"keys": self.keys}
        number = KEYED_FORMAT if keyed else RANKING_FORMAT
        header = np.array(json.dumps({"format": number, **self.provenance}, sort_keys=True))
        arrays = {"order": self.order, "latent_class": self.latent_class, "score": self.score, "provenance": header}
        with writing(Path(path)) as file:
            np.savez_compressed(file, allow_pickle=False, **arrays, **keyed)

    @classmethod
    def load(cls, path: str | Path, fingerprint: Fingerprint | None) -> "Ranking":
        """Read a ranking; with a fingerprint, refuse one that was made for other data."""
        if not Path(path).is_file():
            raise UserError(f"no ranking at {path}. Check the path, or make one with ssl-select.")
        try:
            with np.load(path, allow_pickle=False) as arrays:
                provenance = json.loads(str(arrays["provenance"]))
                if (found := provenance.pop("format")) not in (RANKING_FORMAT, KEYED_FORMAT):
                    raise ValueError(f"format {found}, where {RANKING_FORMAT} and {KEYED_FORMAT} are read")
                length = len(arrays["order"])
                ranking = cls(
                    order=_column(arrays, "order", "int64", length),
                    latent_class=_column(arrays, "latent_class", "int64", length),
                    score=_column(arrays, "score", "float64", length),
                    provenance=provenance,
                    keys=_column(arrays, "keys", "float64", length) if found == KEYED_FORMAT else None,
                )
            made_for = ranking.fingerprint
            if made_for is not None and made_for.length != len(ranking):
                raise ValueError(f"{len(ranking)} positions for {made_for}")
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise _damaged(path, error) from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:  # readable, with wrong content
            raise _damaged(path, error) from error
        if fingerprint is not None:
            refuse_foreign(path, made_for, fingerprint)
        return ranking

    def _ranks(self) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """For each place of `order`: its sample's rank in its latent class, and that class's size."""
        return ranks_in(self.latent_class[self.order])


def ranks_in(groups: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
    """For each of a sequence of images, given the group of each: how many of its group come before it, and how many
    there are."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    grouped = np.argsort(inverse, kind="stable")
    rank = np.empty(len(inverse), np.int64)
    rank[grouped] = np.arange(len(inverse)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank, sizes[inverse]


def members_of(groups: Int64[np.ndarray, " n"]) -> list[Int64[np.ndarray, " m"]]:
    """Of each group, from the smallest number on, where its members are, sorted."""
    _, inverse, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    return np.split(np.argsort(inverse, kind="stable"), np.cumsum(sizes)[:-1])


def turning_points(ranking: Ranking) -> Float64[np.ndarray, " k"]:
    """For each latent class, the share of its members that come before the first with a negative score; 1 if none."""
    places = ranking.order[np.argsort(ranking.latent_class[ranking.order], kind="stable")]
    _, first, sizes = np.unique(ranking.latent_class[places], return_index=True, return_counts=True)
    positive = (ranking.score[places] >= 0).astype(np.int64)  # once one is negative, all are
    return np.add.reduceat(positive, first) / sizes


def _column(arrays: Mapping[str, np.ndarray], key: str, dtype: str, length: int) -> np.ndarray:
    values = arrays[key]
    if values.dtype != dtype or values.shape != (length,):
        raise ValueError(f"{key} is {values.dtype}{list(values.shape)}, not {dtype}[{length}]")
    return values


def _damaged(path: str | Path, error: Exception) -> UserError:
    return UserError(f"{path} is no readable ranking ({error}). Delete it and make it again.")


def refuse_foreign(path: str | Path, made_for: Fingerprint | None, fingerprint: Fingerprint) -> None:
    """Positions mean nothing in other data than they were made for."""
    if made_for != fingerprint:
        raise UserError(
            f"the ranking {path} was made for {made_for or 'unnamed data'}, but the dataset is "
            f"{fingerprint}. Make it again with ssl-select, or choose the dataset it was made for."
        )


def size_of(fraction: float, length: int) -> int:
    """round(fraction · length), halves up, at least one."""
    return max(1, math.floor(_written(fraction) * length + Fraction(1, 2)))


def _written(fraction: float) -> Fraction:
    """The number that was written: 0.29 means 29/100, though the nearest float lies below it."""
    return Fraction(fraction).limit_denominator(10**9)


def check_fraction(fraction: float) -> None:
    if not 0 < fraction <= 1:
        raise UserError(f"subset.fraction is {fraction}: give a number above 0 and at most 1.")
