"""Tables and the page of several rankings."""

import base64
import itertools
import re

import numpy as np
import pytest
import torch

from ssl_lightning.data.dataset import Split
from ssl_lightning.pipeline.compare import names_of
from ssl_lightning.reports.selection_page import write_comparison
from ssl_lightning.reports.selections import (
    OF_LABEL,
    Chosen,
    Typicality,
    balances,
    correlations,
    costs,
    fractions_of,
    overlaps,
    typicalities,
)
from ssl_lightning.subsets.ranking import Ranking

LENGTH = 200
LABELS = np.arange(LENGTH) % 4


def chosen(name: str, seed: int, **provenance) -> Chosen:
    order = np.random.default_rng(seed).permutation(LENGTH)
    made = {"rule": name, **provenance}
    return Chosen(name, Ranking(order, np.zeros(LENGTH, np.int64), np.full(LENGTH, np.nan), made))


THREE = [chosen("a", 0, seconds=12.34, proxy_seconds=5.0), chosen("b", 0), chosen("list", 1, max_fraction=0.2)]


def texts(rows) -> list[list[str]]:
    return [[value if isinstance(value, str) else value.text for value in row.values()] for row in rows]


def test_lists_add_the_fraction_at_which_they_end():
    assert fractions_of(THREE) == [0.1, 0.2, 0.3, 0.5, 0.7, 0.9]
    assert fractions_of(THREE[:2]) == [0.1, 0.3, 0.5, 0.7, 0.9]
    assert fractions_of([chosen("list", 1, max_fraction=0.3 + 1e-9)]) == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_equal_rankings_agree_wholly_and_lists_where_they_reach():
    kept, dropped = texts(overlaps(THREE, dropped=False)), texts(overlaps(THREE, dropped=True))
    assert kept[0] == ["chance", "10", "20", "30", "50", "70", "90"]
    assert dropped[0] == ["chance", "90", "80", "70", "50", "30", "10"]
    assert kept[1] == dropped[1] == ["a – b", *["100"] * 6]
    assert kept[2][0] == "a – list"
    assert kept[2][3:] == dropped[2][3:] == ["–"] * 4
    first, last = (set(one.ranking.order[:40].tolist()) for one in (THREE[0], THREE[2]))
    assert kept[2][2] == f"{100 * len(first & last) / 40:.0f}"
    rows = texts(correlations(THREE, LABELS))
    assert rows[0] == ["b", "+1.00", ""]
    assert rows[1][0] == "list"
    assert rows[1][1] == rows[1][2]


def test_costs_say_what_is_known():
    assert texts(costs(THREE)) == [
        ["a", "100 %", "1", "12.3", "5.0"],
        ["b", "100 %", "1", "–", "–"],
        ["list", "20 %", "1", "–", "–"],
    ]


def test_balance_needs_labels():
    rows = texts(balances(THREE, LABELS))
    assert rows[0] == ["all images", *["4.00"] * 6]
    assert re.fullmatch(r"[34]\.\d\d \(\d+–\d+\)", rows[1][1])
    assert rows[3][3:] == ["–"] * 4
    assert balances(THREE, np.full(LENGTH, -1)) == []


def test_typicality_is_the_mean_place_of_what_is_kept():
    places = np.empty(LENGTH)
    places[THREE[0].ranking.order] = (np.arange(LENGTH)[::-1] + 0.5) / LENGTH  # the first image is the most typical
    draw, *rows = texts(typicalities(THREE, places))
    assert draw[0] == "a random draw"
    assert rows[0] == ["a", "95", "90", "85", "75", "65", "55"]
    assert rows[1] == ["b", *rows[0][1:]]
    list_of = THREE[2].ranking.order[:40]
    assert rows[2][2:] == [f"{100 * places[list_of].mean():.0f}", *["–"] * 4]


def test_the_spread_of_a_random_draw_is_that_of_all_draws():
    places = np.array([0.1, 0.35, 0.35, 0.7, 0.8, 0.95, 0.4, 0.2, 0.5, 0.85])
    order = np.random.default_rng(0).permutation(10)
    ranking = Ranking(order, np.zeros(10, np.int64), np.full(10, np.nan), {"rule": "a"})
    draw, _ = texts(typicalities([Chosen("a", ranking)], places))
    for text, m in zip(draw[1:], (1, 3, 5, 7, 9), strict=True):
        means = [100 * np.mean(some) for some in itertools.combinations(places, m)]
        assert text == f"{np.mean(means):.0f} ± {np.std(means):.1f}"


def test_lost_embeddings_are_said_in_place_of_numbers(tmp_path):
    images = torch.zeros(LENGTH, 1, 4, 4, dtype=torch.uint8)
    write_comparison(THREE, Split(images, torch.from_numpy(LABELS)), "d", tmp_path, Typicality.lost(["a", "b"]))
    for name in ("report.md", "report.html"):
        assert "those of a, b are no longer there" in (tmp_path / name).read_text()


@pytest.mark.parametrize("known", [True, False])
def test_the_page_says_whose_embeddings_tell_what_is_typical(tmp_path, known):
    images = torch.zeros(LENGTH, 1, 4, 4, dtype=torch.uint8)
    typical = Typicality.of("<sas>", OF_LABEL, np.full(LENGTH, 0.5)) if known else None
    write_comparison(THREE, Split(images, torch.from_numpy(LABELS)), "d", tmp_path, typical)
    text = (tmp_path / "report.md").read_text()
    assert ("## Typicality" in text) == ("of the rule <sas>" in text) == known


@pytest.mark.parametrize("labels", [LABELS, np.full(LENGTH, -1)], ids=["labels", "none"])
def test_the_page_is_one_file_of_text_and_pictures(tmp_path, labels):
    images = torch.randint(0, 256, (LENGTH, 3, 6, 6), dtype=torch.uint8)
    named = [THREE[0], THREE[1]._replace(name="<img src=x onerror=alert(1)>"), THREE[2]]
    write_comparison(named, Split(images, torch.from_numpy(labels)), "d<b>", tmp_path)
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["best_and_worst.png", "disputed.png", "report.html", "report.md"]
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "<img src=x" not in page + text
    assert "<script" not in page
    assert "d<b>" not in page + text
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    pictures = [base64.b64decode(found) for found in re.findall(r"data:image/png;base64,([^\"]+)", page)]
    assert pictures == [(tmp_path / name).read_bytes() for name in names[:2]]
    assert ("Balance of labels" in page) == ("Balance of labels" in text) == bool((labels >= 0).any())
    for heading in re.findall(r"^## (.*)$", text, flags=re.M):
        assert f"<h2>{heading}</h2>" in page


def test_lists_alone_have_no_disputed_images(tmp_path):
    images = torch.zeros(LENGTH, 1, 4, 4, dtype=torch.uint8)
    lists = [chosen("x", 1, max_fraction=0.2), chosen("y", 2, max_fraction=0.4)]
    write_comparison(lists, Split(images, torch.from_numpy(LABELS)), "d", tmp_path)
    assert not (tmp_path / "disputed.png").exists()
    assert "disputed" not in (tmp_path / "report.md").read_text()


def test_rankings_are_called_by_what_tells_them_apart():
    common = ("dataset=digits", "seed=1")
    assert names_of([(*common, "subset=sas"), (*common, "subset=el2n")]) == ["sas", "el2n"]
    assert names_of([("subset=sas", "subset.looks=2"), ("subset=sas", "subset.looks=4")]) == [
        "sas, looks=2",
        "sas, looks=4",
    ]
    assert names_of([("subset=sas", "export=a"), ("subset=sas", "export=b", "seed=2")]) == ["sas", "sas, seed=2"]
    assert names_of([common]) == [""]
