"""Of which kinds the pictures of an evaluation are, in a file that may be damaged or somebody else's."""

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

_PNG = b"\x89PNG\r\n\x1a\n"
_MOST = 100
"""Pictures of an evaluation."""
_LARGEST = 1_000_000
"""Numbers, or letters of a PNG file, in one."""

_Check = Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < 2**53)


def _is_whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and len(value) <= _LARGEST and all(map(check, value))


def _is_line(value: Any) -> bool:
    fields: Mapping[str, _Check] = {"name": _is_text, "x": _list_of(_is_number), "y": _list_of(_is_number)}
    return isinstance(value, dict) and _has(value, fields) and len(value["x"]) == len(value["y"])


def _is_png(value: Any) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode(value, validate=True).startswith(_PNG)
    except (binascii.Error, ValueError):
        return False


def _has(value: Mapping[str, Any], fields: Mapping[str, _Check]) -> bool:
    return value.keys() == fields.keys() and all(check(value[name]) for name, check in fields.items())


_FIELDS: Mapping[str, Mapping[str, _Check]] = {
    "curves": {
        "x": _is_text,
        "y": _is_text,
        "lines": _list_of(_is_line),
        "diagonal": lambda value: type(value) is bool,
    },
    "points": {
        "points": _list_of(lambda pair: _list_of(_is_number)(pair) and len(pair) == 2),
        "classes": _list_of(_is_whole),
        "note": _is_text,
    },
    "matrix": {"rows": _is_text, "columns": _is_text, "values": _list_of(_list_of(_is_number))},
    "bars": {"unit": _is_text, "names": _list_of(_is_text), "values": _list_of(_is_number)},
    "radar": {"names": _list_of(_is_text), "values": _list_of(_is_number), "untrained": _list_of(_is_number)},
    "image": {"png": _is_png, "note": _is_text},
}


def check_pictures(pictures: Any) -> None:
    """
    Raises:
        ValueError: they are not what `evaluation.pictures` makes; says which.
    """
    if not isinstance(pictures, list) or len(pictures) > _MOST:
        raise ValueError(f"its pictures are no list of at most {_MOST}")
    for i, picture in enumerate(pictures):
        if not isinstance(picture, dict) or picture.get("kind") not in _FIELDS:
            raise ValueError(f"its pictures.{i} is of no known kind")
        fields = {"kind": _is_text, "title": _is_text, **_FIELDS[picture["kind"]]}
        if not _has(picture, fields) or not _fits(picture):
            raise ValueError(f"its pictures.{i} is no picture of kind {picture['kind']}")


def _fits(picture: Mapping[str, Any]) -> bool:
    """Whether lists that belong together are of one length."""
    kind = picture["kind"]
    if kind == "points":
        return len(picture["points"]) == len(picture["classes"])
    if kind == "matrix":
        return bool(picture["values"]) and all(len(row) == len(picture["values"]) for row in picture["values"])
    if kind == "radar" and len(picture["untrained"]) not in (0, len(picture["names"])):
        return False
    return kind not in ("bars", "radar") or 0 < len(picture["names"]) == len(picture["values"])
