"""What a report draws of an evaluation: plain values, of a few kinds, in a file that may be somebody else's."""

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
    """Shares in [0, 1] by name, on axes about a centre."""
    return {
        "kind": "radar",
        "title": title,
        "names": list(values),
        "values": [*map(float, values.values())],
        "untrained": [float((untrained or {}).get(name, 0.0)) for name in values] if untrained else [],
    }


def image(title: str, png: bytes, note: str = "") -> Picture:
    """A PNG file."""
    import base64

    return {"kind": "image", "title": title, "png": base64.b64encode(png).decode(), "note": note}
