"""report.html: one file that a browser opens without a network.

The page's script makes all that is seen from the data, which lie in the page as JSON. They enter the document as text
alone, and the page's policy lets no other script run and nothing be fetched, so the names and errors of foreign runs
stay what they are.
"""

import base64
import hashlib
import json
import math
import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple, get_args

from ssl_lightning.evaluation.protocol import protocol_in
from ssl_lightning.reports.agreement import EXPLANATION as EXPLANATION_OF_AGREEMENT
from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.comparison import (
    METRICS,
    MISSING,
    Quantity,
    Row,
    columns_of,
    comparison,
    explanation_of,
    explanation_of_times,
    kinds,
    says_more,
    table_of_runs,
    times,
)
from ssl_lightning.reports.content import Content, subheading
from ssl_lightning.reports.differences import EXPLANATION as EXPLANATION_OF_DIFFERENCES
from ssl_lightning.reports.differences import Compared, too_few, uncertainty
from ssl_lightning.reports.figures import Plot
from ssl_lightning.reports.generality import EXPLANATION as EXPLANATION_OF_GENERALITY
from ssl_lightning.reports.generality import generality
from ssl_lightning.reports.records import Curve, Record
from ssl_lightning.reports.transfer import EXPLANATION as EXPLANATION_OF_TRANSFER
from ssl_lightning.reports.transfer import transfer
from ssl_lightning.runs.run import Status

PARTS = ("page", "keep", "filter", "export", "table", "chart", "explore", "looking", "pages", "ways")
"""Of the script, in their order."""


class Live(NamedTuple):
    """Of a page that is written anew while runs train.

    Args:
        every: seconds between two looks for a newer one.
        written: when, in seconds since 1970.
    """

    every: float
    written: float


def page(content: Content, figures: Sequence[Plot], live: Live | None = None) -> str:
    """The whole file.

    Args:
        figures: which become a part of the page.
        live: of a page that loads itself anew.
    """
    cells, records = content.cells, content.records
    further = [kind for kind in kinds(cells) if columns_of(kind)]
    standard = [cell for cell in cells if not columns_of([cell])]
    counts = Counter(record.status for record in records)
    summary = ", ".join(f"{counts[status]} {status}" for status in get_args(Status) if counts[status])
    data = {
        "heading": ", ".join(
            [content.heading, *(subheading(cells) if len({cell.protocol for cell in cells}) == 1 else [])]
        ),
        "summary": f"{len(records)} run{'s' * (len(records) > 1)}: {summary}",
        "live": live and live._asdict(),
        "explanation": content.explanation,
        "comparison": _table(comparison(standard)),
        "further": [
            {
                "title": _title(here),
                "table": _table(comparison(here, says_more(here))),
                "explanation": explanation_of(here),
            }
            for here in further
        ],
        "differences": [_differences(one) for one in content.differences],
        "explanation_of_differences": f"{EXPLANATION_OF_DIFFERENCES} {too_few(cells)}".strip(),
        "cells": [_cell(cell) for cell in cells],
        "agreement": [
            {"title": ", ".join(["Which metric to trust", *_about(here)]), "table": _table(rows)}
            for here, rows in content.agreed
        ],
        "explanation_of_agreement": EXPLANATION_OF_AGREEMENT,
        "times": _table(times(standard)),
        "explanation_of_times": explanation_of_times(standard),
        "transfer": _table(transfer(cells)),
        "explanation_of_transfer": EXPLANATION_OF_TRANSFER,
        "generality": _table(generality(cells)),
        "explanation_of_generality": EXPLANATION_OF_GENERALITY,
        "overview": _table(table_of_runs(records, cells)),
        "figures": [
            {
                "about": about,
                "name": wide.stem.replace("_", " "),
                "source": data_uri(wide),
                "size": _size(wide),
                "narrow": data_uri(narrow),
                "narrow_size": _size(narrow),
            }
            for wide, narrow, about in figures
        ],
        "runs": [_run(record) for record in records],
    }
    style, script = part("page.css"), "".join(part(f"{name}.js") for name in PARTS)
    return Template(part("page.html")).substitute(
        style=style,
        style_hash=hash_of(style),
        script=script,
        script_hash=hash_of(script),
        data=json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"),
    )


def _table(rows: Sequence[Row]) -> dict[str, Any]:
    """Columns [name, whether it is one of numbers]; cells as a text, or as of `_quantity`."""
    columns = [[name, not isinstance(value, str)] for name, value in rows[0].items()] if rows else []
    cells = [[_quantity(value) if isinstance(value, Quantity) else value for value in row.values()] for row in rows]
    return {"columns": columns, "rows": cells}


def _quantity(shown: Quantity) -> list[str | float | None]:
    """[text, number to sort by, 1 where it is to be seen at once, deviation], without the end that says nothing."""
    made = [shown.text, shown.value, int(shown.strong), shown.deviation]
    return made if shown.deviation is not None else made[: 2 + shown.strong]


def _about(cells: Sequence[Cell]) -> list[str]:
    """What tells a table from others."""
    first = cells[0]
    on = [str(first.identity["dataset"])] if "dataset" in first.shown else []
    return [*on, *([f"evaluation: {first.protocol}"] if "protocol" in first.shown else [])]


def _differences(compared: Compared) -> dict[str, Any]:
    reference = compared.reference
    title = ", ".join([f"Differences from {reference.name}", *_about(compared.cells)])
    return {"title": title, "table": _table(compared.rows), "uncertainty": uncertainty(reference)}


def _title(cells: Sequence[Cell]) -> str:
    """Of an evaluation beside the standard one, whose class is called in CamelCase."""
    return re.sub("(?<=[a-z])(?=[A-Z])", " ", cells[0].suite).capitalize() or "Evaluation"


def _cell(cell: Cell) -> dict[str, Any]:
    """What it is, by key, and what was measured of it: one value a seed, accuracies in %."""
    what = {key: str(cell.identity[key]) for key in ("method", "dataset", "subset", "budget")}
    values = {"fraction": [cell.fraction], "images": [results["mask"]["size"] for results in cell.results]}
    names = {name for results in cell.results for name in results["metrics"]}
    for name in sorted(names, key=lambda name: (name not in METRICS, name)):
        scale, unit = (100, " %") if name.endswith("top1") else (1, "")
        values[METRICS.get(name, name + unit)] = [scale * value for value in cell.values(name)]
    for name in sorted({name for results in cell.results for name in results["cost"]}):
        values[name] = cell.values(name, cost=True)
    known = {name: [value for value in of if math.isfinite(value)] for name, of in values.items()}
    return {
        "what": what | {"evaluation": cell.protocol, "variant": cell.variant or MISSING},
        "values": {name: of for name, of in known.items() if of},
    }


def _run(record: Record) -> dict[str, Any]:
    """What the page of a run shows, all of it texts."""
    results = record.results
    return {
        "id": record.run.id,
        "status": record.status,
        "error": record.error,
        "progress": record.progress,
        "config": dict(_flat(record.config)),
        "metrics": _shown(results.get("metrics", {})),
        "untrained": _shown(results.get("untrained", {})),
        "evaluations": [_evaluation(made, record.identity.dataset) for made in record.evaluations],
        "cost": _shown(results.get("cost", {})),
        "mask": _shown(results.get("mask", {})),
        "environment": _shown(results.get("environment", {})),
        "curves": [_curve(curve) for curve in record.curves],
    }


def _evaluation(made: Mapping[str, Any], pretrained: str) -> dict[str, Any]:
    """Of the run's encoder under another protocol, in words, and what is drawn of it."""
    protocol = protocol_in(made)
    return {
        "protocol": protocol.name(pretrained),
        "digest": protocol.digest,
        "metrics": _shown(made["metrics"]),
        "untrained": _shown(made.get("untrained", {})),
        "pictures": _drawn(made.get("pictures", [])),
    }


def _drawn(node: Any) -> Any:
    """Numbers to four digits, which no eye tells from more. NaN becomes null."""
    if isinstance(node, Mapping):
        return {key: _drawn(value) for key, value in node.items()}
    if isinstance(node, list):
        return list(map(_drawn, node))
    if isinstance(node, float):
        return float(f"{node:.4g}") if math.isfinite(node) else None
    return node


def _shown(node: Mapping[str, Any]) -> dict[str, str]:
    """Numbers to six digits."""
    rounded = {key: float(f"{value:.6g}") if isinstance(value, float) else value for key, value in node.items()}
    return dict(_flat(rounded))


def _flat(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Dotted keys and what stands there: lists of plain values stay one."""
    items: Sequence[tuple[Any, Any]] = ()
    if isinstance(node, Mapping):
        items = list(node.items())
    elif isinstance(node, list) and any(isinstance(item, Mapping) for item in node):
        items = list(enumerate(node))
    for name, value in items:
        yield from _flat(value, f"{key}.{name}" if key else str(name))
    if not items and key:
        yield key, node if isinstance(node, str) else json.dumps(node)


def _curve(curve: Curve) -> dict[str, str]:
    """Numbers as words of a text: there are many of them, and a page shows few."""
    values = " ".join(f"{value:.5g}" for value in curve.values)
    return {"name": curve.name, "steps": " ".join(map(str, curve.steps)), "values": values}


def data_uri(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _size(file: Path) -> tuple[int, int]:
    """Width and height of a PNG file."""
    width, height = struct.unpack_from(">II", file.read_bytes(), 16)
    return width, height


def part(file: str) -> str:
    return (resources.files(__package__) / file).read_text(encoding="utf-8")


def hash_of(text: str) -> str:
    """By which the page's policy knows its own style and script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
