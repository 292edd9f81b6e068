"""Which rules choose the same images: tables of several rankings of a dataset."""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64, Int64

from ssl_lightning.reports.comparison import MISSING, Quantity, Row, quantity
from ssl_lightning.subsets.comparing import NEIGHBOURS, balance, kept, overlap, shares, spearman_within
from ssl_lightning.subsets.ranking import Ranking, size_of

FRACTIONS = (0.1, 0.3, 0.5, 0.7, 0.9)
AGREE = (
    "Spearman's ρ of the ranks of images {within}: 1 is the same order, 0 no relation, −1 the reverse. Of a list, only "
    "the images that it names count."
)
KEPT = (
    "Of the images that one rule keeps at a fraction, the share in % that the other keeps too. Chance: of rules that "
    "know nothing of each other. A list is not known beyond what it names; its own size has a column."
)
DROPPED = "The same of the images that are dropped. Rules may agree on what is best, and not on what is worst."
BALANCED = (
    "Labels of what is kept: to how many labels of equal share they amount (exp of their entropy), and of the images "
    "of any label the least and the largest share that is kept, in %."
)
TYPICAL = (
    "How typical the kept images are: the mean place, in %, of each among {fellows}, from the least to the most "
    "typical. A random draw has 50, give or take its standard deviation; below it outliers are kept. Typical is what "
    f"has near neighbours: the mean cosine with the {NEIGHBOURS} nearest of these, in the embeddings of the rule "
    "{rule}."
)
OF_LABEL, OF_ALL, OF_CLASS = "the images of its label", "all images", "the images of its latent class"
LOST = (
    "Not known: it is told from embeddings, and those of {rules} are no longer there, or cannot be read. They lie in "
    "features, of paths.cache, and are made with a ranking: delete one of these rules' in rankings beside it, and "
    "start again."
)
SECONDS = (
    "seconds: of ranking, embedding included where no other rule had done it before; proxy seconds: of training the "
    "proxies, which rules share. What is not known is missing."
)


class Chosen(NamedTuple):
    """A ranking, and what it is called."""

    name: str
    ranking: Ranking


class Typicality(NamedTuple):
    """How typical images are.

    Args:
        words: what that means here, or why it is not known.
        places: see `comparing.typicality`; None where they are not known.
    """

    words: str
    places: Float64[np.ndarray, " n"] | None

    @classmethod
    def of(cls, rule: str, fellows: str, places: Float64[np.ndarray, " n"]) -> "Typicality":
        """By the embeddings of a rule, among `fellows`."""
        return cls(TYPICAL.format(fellows=fellows, rule=rule), places)

    @classmethod
    def lost(cls, rules: Sequence[str]) -> "Typicality":
        return cls(LOST.format(rules=", ".join(rules)), None)


def fractions_of(chosen: Sequence[Chosen]) -> list[float]:
    """At which rankings are cut: the usual ones, and where lists end."""
    n = len(chosen[0].ranking)
    ends = {one.ranking.max_fraction for one in chosen}
    by_size = {size_of(fraction, n): fraction for fraction in (*ends, *FRACTIONS)}  # a usual one goes before its like
    by_size.pop(n, None)
    return [by_size[size] for size in sorted(by_size)]


def costs(chosen: Sequence[Chosen]) -> list[Row]:
    """What was compared, and what it took."""
    rows: list[Row] = []
    for name, ranking in chosen:
        cost = ranking.cost
        groups = len(np.unique(ranking.latent_class))
        row: Row = {"rule": name, "ranks": Quantity(_column(ranking.max_fraction), ranking.max_fraction)}
        rows.append(
            {**row}
            | {"groups": quantity(groups, ",d")}
            | {"seconds": quantity(cost.get("selection_seconds"), ".1f")}
            | {"proxy seconds": quantity(cost.get("proxy_seconds"), ".1f")}
        )
    return rows


def correlations(chosen: Sequence[Chosen], labels: Int64[np.ndarray, " n"]) -> list[Row]:
    """Of each two, below the diagonal: see `spearman_within`. Images without a label are a group."""
    places = [shares(one.ranking) for one in chosen]
    groups = np.where(labels >= 0, labels, -1)
    rows: list[Row] = []
    for i, one in enumerate(chosen[1:], 1):
        found = [spearman_within(places[i], places[j], groups) for j in range(i)]
        cells = [_number(value, "+.2f") for value in found] + [Quantity("", None)] * (len(chosen) - 1 - i)
        rows.append({"": one.name} | dict(zip((other.name for other in chosen[:-1]), cells, strict=True)))
    return rows


def overlaps(chosen: Sequence[Chosen], dropped: bool) -> list[Row]:
    """Of each two, at each fraction, what both keep or drop, beside chance."""
    fractions, n = fractions_of(chosen), len(chosen[0].ranking)
    masks = [[kept(one.ranking, fraction) for fraction in fractions] for one in chosen]
    if dropped:
        masks = [[None if mask is None else ~mask for mask in row] for row in masks]
    chance = [1 - size_of(fraction, n) / n if dropped else size_of(fraction, n) / n for fraction in fractions]
    columns = list(map(_column, fractions))
    rows: list[Row] = [{"rules": "chance"} | dict(zip(columns, map(_percent, chance), strict=True))]
    for (i, one), (j, other) in itertools.combinations(enumerate(chosen), 2):
        found = [_percent(overlap(a, b)) for a, b in zip(masks[i], masks[j], strict=True)]
        rows.append({"rules": f"{one.name} – {other.name}"} | dict(zip(columns, found, strict=True)))
    return rows


def typicalities(chosen: Sequence[Chosen], places: Float64[np.ndarray, " n"] | None) -> list[Row]:
    """Of each at each fraction, the mean of `Typicality.places` of what is kept, beside that of a random draw."""
    if places is None:
        return []
    fractions, n = fractions_of(chosen), len(places)
    sizes = [size_of(fraction, n) for fraction in fractions]
    # Of the mean of m values drawn from n without replacement.
    spread = [math.sqrt(places.var(ddof=1) * (1 - m / n) / m) if m and n > 1 else math.nan for m in sizes]
    draw = [
        Quantity(MISSING, None) if math.isnan(s) else Quantity(f"{100 * places.mean():.0f} ± {100 * s:.1f}", None)
        for s in spread
    ]
    rows: list[Row] = [{"rule": "a random draw"} | dict(zip(map(_column, fractions), draw, strict=True))]
    for name, ranking in chosen:
        masks = [kept(ranking, fraction) for fraction in fractions]
        found = [math.nan if mask is None or not mask.any() else float(places[mask].mean()) for mask in masks]
        rows.append({"rule": name} | dict(zip(map(_column, fractions), map(_percent, found), strict=True)))
    return rows


def balances(chosen: Sequence[Chosen], labels: Int64[np.ndarray, " n"]) -> list[Row]:
    """Of each at each fraction; nothing where there are no labels."""
    whole = balance(np.ones(len(labels), np.bool_), labels)
    if whole is None:
        return []
    fractions = fractions_of(chosen)
    rows: list[Row] = []
    for name, ranking in chosen:
        found = [balance(kept(ranking, fraction), labels) for fraction in fractions]
        cells = [
            Quantity(MISSING, None)
            if one is None
            else Quantity(f"{one.effective:.2f} ({100 * one.least:.0f}–{100 * one.most:.0f})", one.effective)
            for one in found
        ]
        rows.append({"rule": name} | dict(zip(map(_column, fractions), cells, strict=True)))
    same = [Quantity(f"{whole.effective:.2f}", whole.effective)] * len(fractions)
    return [{"rule": "all images"} | dict(zip(map(_column, fractions), same, strict=True)), *rows]


def _column(fraction: float) -> str:
    return f"{100 * fraction:.3g} %"


def _percent(share: float) -> Quantity:
    return _number(100 * share, ".0f")


def _number(value: float, form: str) -> Quantity:
    return Quantity(MISSING, None) if math.isnan(value) else quantity(value, form)
