"""The comparison of rankings as a report: Markdown, one HTML file without a script, and contact sheets."""

import html
from collections.abc import Iterator, Sequence
from pathlib import Path
from string import Template
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.dataset import Split
from ssl_lightning.files import write_text
from ssl_lightning.reports.comparison import Row
from ssl_lightning.reports.html import data_uri, hash_of, part
from ssl_lightning.reports.rankings import SHEET_IMAGES, show_tiles
from ssl_lightning.reports.selections import (
    AGREE,
    BALANCED,
    DROPPED,
    KEPT,
    SECONDS,
    Chosen,
    Typicality,
    balances,
    correlations,
    costs,
    overlaps,
    typicalities,
)
from ssl_lightning.reports.tables import in_markdown, plain
from ssl_lightning.subsets.comparing import disputed, shares

DISPUTED = 20
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src '$style_hash'; \
base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>$heading</title>
<style>$style</style>
</head>
<body><main><div>
<h1>$heading</h1>
$body
</div></main></body>
</html>
"""
STYLE = "img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }\n"


class Section(NamedTuple):
    """A heading, an explanation, and a table or a picture below them, or nothing."""

    heading: str
    explanation: str
    rows: Sequence[Row] = ()
    picture: Path | None = None


def write_comparison(
    chosen: Sequence[Chosen], split: Split, dataset: str, folder: Path, typicality: Typicality | None = None
) -> None:
    """Writes report.md, report.html and contact sheets of at least two rankings of one dataset.

    Args:
        typicality: of its images; None where no rule looks at embeddings.

    Raises:
        UserError: the folder cannot be written to.
    """
    labels = split.labels.numpy()
    heading = f"{len(chosen)} rankings of {dataset}, {len(labels):,} images"
    sections = [*_tables(chosen, labels, typicality), *_pictures(chosen, split, folder)]
    write_text(folder / "report.md", "\n".join([f"# {plain(heading)}", "", *map(_in_markdown, sections)]))
    style = part("page.css") + STYLE
    page = Template(PAGE).substitute(
        heading=html.escape(heading), style=style, style_hash=hash_of(style), body="\n".join(map(_in_html, sections))
    )
    write_text(folder / "report.html", page)


def _tables(
    chosen: Sequence[Chosen], labels: Int64[np.ndarray, " n"], typicality: Typicality | None
) -> Iterator[Section]:
    yield Section("Rank correlation", agreement_in_words(labels), correlations(chosen, labels))
    yield Section("Overlap of what is kept", KEPT, overlaps(chosen, dropped=False))
    yield Section("Overlap of what is dropped", DROPPED, overlaps(chosen, dropped=True))
    if rows := balances(chosen, labels):
        yield Section("Balance of labels", BALANCED, rows)
    if typicality is not None:
        yield Section("Typicality", typicality.words, typicalities(chosen, typicality.places))
    yield Section("Cost", SECONDS, costs(chosen))


def _pictures(chosen: Sequence[Chosen], split: Split, folder: Path) -> Iterator[Section]:
    words = "The first images of each ranking, and the last ones; of a list, what it does not name is not known."
    yield Section("Best and worst images", words, picture=_ends(chosen, split, folder / "best_and_worst.png"))
    whole = [one for one in chosen if one.ranking.max_fraction == 1]
    if len(whole) > 1:
        words = (
            "The images whose places differ most (variance over rules of the share of a ranking that comes before). "
            "Below each, its place: dark is best, bright is worst."
        )
        yield Section("Most disputed images", words, picture=_disputed(whole, split, folder / "disputed.png"))


def _ends(chosen: Sequence[Chosen], split: Split, path: Path) -> Path:
    """The best and the worst images of each rule, a row a rule."""
    from matplotlib.figure import Figure

    from ssl_lightning.reports.figures import own_style, save

    with own_style():
        figure = Figure(figsize=(10, 0.5 + 0.5 * len(chosen)), layout="constrained")
        best, worst = figure.subplots(1, 2, squeeze=False)[0]
        names = [one.name for one in chosen]
        show_tiles(best, split, [one.ranking.order[:SHEET_IMAGES] for one in chosen], names)
        nothing = np.zeros(0, np.int64)
        last = [one.ranking.order[-SHEET_IMAGES:] if one.ranking.max_fraction == 1 else nothing for one in chosen]
        show_tiles(worst, split, last, [""] * len(chosen))
        best.set_title("best, from the first", fontsize="small")
        worst.set_title("worst, to the last", fontsize="small")
        return save(figure, path, "Best and worst images of each rule")


def _disputed(chosen: Sequence[Chosen], split: Split, path: Path) -> Path:
    """The images on which rules agree least, and where each rule places them."""
    from matplotlib.figure import Figure

    from ssl_lightning.reports.figures import own_style, save

    places = [shares(one.ranking) for one in chosen]
    shown = disputed(places)[:DISPUTED]
    with own_style():
        figure = Figure(figsize=(10, 1.3 + 0.25 * len(chosen)), layout="constrained")
        images, table = figure.subplots(2, 1, sharex=False, height_ratios=(1, 0.5 * len(chosen)))
        show_tiles(images, split, [shown], ["image"], len(shown))
        grid = table.imshow(np.stack(places)[:, shown], vmin=0, vmax=1, cmap="viridis", aspect="auto")
        table.set_yticks(range(len(chosen)), [one.name for one in chosen], fontsize="x-small")
        table.set_xticks([])
        table.tick_params(length=0)
        figure.colorbar(grid, ax=table, label="place: 0 first, 1 last", ticks=(0, 0.5, 1))
        return save(figure, path, f"The {len(shown)} most disputed images")


def agreement_in_words(labels: Int64[np.ndarray, " n"]) -> str:
    return AGREE.format(within="within labels, mean over these" if (labels >= 0).any() else "over all")


def _in_markdown(section: Section) -> str:
    below = in_markdown(section.rows) if section.rows else ""
    if section.picture is not None:
        below = f"![{section.heading}]({section.picture.name})"
    return f"## {section.heading}\n\n{section.explanation}\n\n{below}\n"


def _in_html(section: Section) -> str:
    head = f'<h2>{section.heading}</h2>\n<p class="faint explanation">{html.escape(section.explanation)}</p>'
    if section.picture is not None:
        return f'{head}\n<img src="{data_uri(section.picture)}" alt="{section.heading}">'
    return f'{head}\n<div class="scroll"><table>{_table(section.rows)}</table></div>' if section.rows else head


def _table(rows: Sequence[Row]) -> str:
    def cells(kind: str, values: Sequence[tuple[str, bool]]) -> str:
        made = (f"<{kind}{' class=number' * number}>{html.escape(text)}</{kind}>" for text, number in values)
        return f"<tr>{''.join(made)}</tr>"

    head = cells("th", [(name, not isinstance(value, str)) for name, value in rows[0].items()])
    body = (
        cells("td", [(value, False) if isinstance(value, str) else (value.text, True) for value in row.values()])
        for row in rows
    )
    return f"<thead>{head}</thead><tbody>{''.join(body)}</tbody>"
