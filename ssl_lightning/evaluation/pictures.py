"""What a report draws of an evaluation: plain values, of a few kinds, in a file that may be somebody else's."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Picture = Mapping[str, Any]
"""Of one of the kinds below, under `kind`, with a `title`."""

MAX_POINTS = 2000
"""Of a map: more are a sample."""


def curves(
    title: str, x: str, y: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float]]], diagonal: bool = False
) -> Picture:
    """Lines by name, over a common axis.

    Args:
        x, y: what the axes are.
        lines: coordinates of each.
        diagonal: whether x = y is drawn, where a perfect one would lie.
    """
    drawn = [{"name": name, "x": list(map(float, a)), "y": list(map(float, b))} for name, (a, b) in lines.items()]
    return {"kind": "curves", "title": title, "x": x, "y": y, "lines": drawn, "diagonal": diagonal}


def points(title: str, at: Sequence[Sequence[float]], classes: Sequence[int], note: str = "") -> Picture:
    """Points of the plane, coloured by class."""
    return {
        "kind": "points",
        "title": title,
        "points": [[float(x), float(y)] for x, y in at],
        "classes": list(map(int, classes)),
        "note": note,
    }


def matrix(title: str, rows: str, columns: str, values: Sequence[Sequence[float]]) -> Picture:
    """A square of shares in [0, 1], by class."""
    return {
        "kind": "matrix",
        "title": title,
        "rows": rows,
        "columns": columns,
        "values": [list(map(float, row)) for row in values],
    }


def bars(title: str, unit: str, values: Mapping[str, float]) -> Picture:
    """Lengths by name."""
    return {
        "kind": "bars",
        "title": title,
        "unit": unit,
        "names": list(values),
        "values": [*map(float, values.values())],
    }


def radar(title: str, values: Mapping[str, float], untrained: Mapping[str, float] | None = None) -> Picture:
    """Shares in [0, 1] by name, on axes about a centre; `beside` fills in those of the untrained encoder."""
    return {
        "kind": "radar",
        "title": title,
        "names": list(values),
        "values": [*map(float, values.values())],
        "untrained": [float((untrained or {}).get(name, math.nan)) for name in values] if untrained else [],
    }


def image(title: str, png: bytes, note: str = "") -> Picture:
    """A PNG file."""
    import base64

    return {"kind": "image", "title": title, "png": base64.b64encode(png).decode(), "note": note}


def beside(pictures: Sequence[Picture], untrained: Sequence[Picture]) -> list[Picture]:
    """Those of an encoder, and of the untrained one: in one where there is room for both, else one after the other."""
    radars = {picture["title"]: picture for picture in untrained if picture["kind"] == "radar"}
    shown: list[Picture] = []
    for picture in pictures:
        other = radars.get(picture["title"]) if picture["kind"] == "radar" else None
        shown.append(picture if other is None else {**picture, "untrained": other["values"]})
    others = [picture for picture in untrained if picture["kind"] != "radar"]
    return [*shown, *({**picture, "title": f"{picture['title']}, untrained"} for picture in others)]
