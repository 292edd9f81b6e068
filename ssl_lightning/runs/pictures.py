"""Of which kind the pictures of an evaluation are: what `ssl_lightning.evaluation.pictures` makes, and nothing else."""

import base64
import binascii
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

MAX_NUMBERS = 20_000
"""Of a picture, that a page draws without delay."""
_LARGEST = 1e100
"""Differences and ratios of smaller numbers fit a float."""
_PNG, _HEADER = b"\x89PNG\r\n\x1a\n", 24
"""How a PNG file begins, and bytes until its size is known."""
_MAX_BYTES, _MAX_PIXELS = 2**23, 2**24
"""Of an image. A small file may be one of a great many pixels."""


class _Kind(NamedTuple):
    """What a field is to be, in words, and whether it is."""

    name: str
    holds: Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    """NaN is one, infinity is none."""
    return type(value) in (int, float) and not abs(value) > _LARGEST


def _is_list(value: Any, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and len(value) <= MAX_NUMBERS and all(map(holds, value))


def _are_numbers(value: Any) -> bool:
    return _is_list(value, _is_number)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_line(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"name", "x", "y"} or not _is_text(value["name"]):
        return False
    return _are_numbers(value["x"]) and _are_numbers(value["y"]) and len(value["x"]) == len(value["y"])


def _are_lines(value: Any) -> bool:
    return _is_list(value, _is_line) and sum(len(line["x"]) for line in value) <= MAX_NUMBERS


def _is_square(value: Any) -> bool:
    return (
        _is_list(value, _are_numbers)
        and all(len(row) == len(value) for row in value)
        and len(value) ** 2 <= MAX_NUMBERS
    )


def _is_png(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > _MAX_BYTES:
        return False
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (_HEADER - 8, _HEADER - 4))
    return len(content) >= _HEADER and content.startswith(_PNG) and 0 < width * height <= _MAX_PIXELS


_TEXT = _Kind("text", _is_text)
_NUMBERS = _Kind(f"list of at most {MAX_NUMBERS:,} numbers", _are_numbers)
_NAMES = _Kind(f"list of at most {MAX_NUMBERS:,} names", lambda value: _is_list(value, _is_text))
_FIELDS: Mapping[str, Mapping[str, _Kind]] = {
    "curves": {
        "x": _TEXT,
        "y": _TEXT,
        "lines": _Kind(f"list of lines with name, and x and y as long, of at most {MAX_NUMBERS:,} points", _are_lines),
        "diagonal": _Kind("truth value", lambda value: isinstance(value, bool)),
    },
    "points": {
        "points": _Kind(
            f"list of at most {MAX_NUMBERS:,} pairs of numbers",
            lambda value: _is_list(value, lambda pair: _are_numbers(pair) and len(pair) == 2),
        ),
        "classes": _Kind("list of whole numbers", lambda value: _is_list(value, _is_whole)),
        "note": _TEXT,
    },
    "matrix": {
        "rows": _TEXT,
        "columns": _TEXT,
        "values": _Kind(f"square of at most {MAX_NUMBERS:,} numbers", _is_square),
    },
    "bars": {"unit": _TEXT, "names": _NAMES, "values": _NUMBERS},
    "radar": {"names": _NAMES, "values": _NUMBERS, "untrained": _NUMBERS},
    "image": {"png": _Kind(f"PNG file of at most {_MAX_PIXELS:,} pixels in base64", _is_png), "note": _TEXT},
}
"""Beside kind and title, all that a picture of each kind holds."""
_ALIKE = {"points": ("points", "classes"), "bars": ("names", "values"), "radar": ("names", "values", "untrained")}
"""Fields that are equally long; `untrained` may be empty."""


def check_pictures(pictures: Any) -> None:
    """Whether all can be drawn.

    Raises:
        ValueError: which one cannot, and why.
    """
    if not isinstance(pictures, list):
        raise ValueError("its pictures are no list")
    for i, picture in enumerate(pictures):
        _check(picture, f"its pictures.{i}")


def drawable(pictures: Iterable[Any]) -> list[Any]:
    """Those that a report can draw, as a file holds them. A warning names each other one: what cannot be drawn costs no
    result."""
    kept = []
    for picture in pictures:
        try:
            held = json.loads(json.dumps(picture))
            _check(held, "a picture")
            kept.append(held)
        except (TypeError, ValueError) as error:  # json raises both
            title = picture.get("title") if isinstance(picture, Mapping) else picture
            print(f"Warning: {title!r:.80} is left out, as it cannot be drawn: {error}", file=sys.stderr, flush=True)
    return kept


def _check(picture: Any, where: str) -> None:
    if not isinstance(picture, dict):
        raise ValueError(f"{where} is no mapping")
    kind = picture.get("kind")
    if not isinstance(kind, str) or kind not in _FIELDS:
        raise ValueError(f"{where}.kind is {kind!r:.40}, and none of {', '.join(_FIELDS)}")
    expected = {"title": _TEXT, **_FIELDS[kind]}
    if wrong := picture.keys() ^ {"kind", *expected}:
        raise ValueError(f"{where} is of the kind {kind}, but for {min(wrong)!r:.40}")
    for key, of in expected.items():
        if not of.holds(picture[key]):
            raise ValueError(f"{where}.{key} is {picture[key]!r:.40}, and no {of.name}")
    first, *others = _ALIKE.get(kind, ("title",))
    for key in others:
        if len(picture[key]) not in (len(picture[first]), *([0] if key == "untrained" else [])):
            raise ValueError(f"{where} has {len(picture[first])} {first}, but {len(picture[key])} {key}")
