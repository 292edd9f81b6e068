"""Of which kind everything is that the files of a run hold: a disk or somebody else may have changed them."""

from collections.abc import Mapping
from typing import Any

from ssl_lightning.runs.pictures import check_pictures

_NUMBER, _WHOLE = (int, float), (int,)
_KINDS: Mapping[str, Mapping[str, tuple[type, ...]]] = {
    "identity": {
        **dict.fromkeys(("method", "dataset", "subset", "budget"), (str,)),
        "fraction": _NUMBER,
        "seed": _WHOLE,
    },
    "mask": {"size": _WHOLE},
    "cost": {"train_seconds": _NUMBER},
    "protocol": {"dataset": (str,), "content": (str,), "settings": (dict,)},
}
"""Of the parts that results have, what each must hold."""
_NUMBERS = ("metrics", "cost", "untrained")
"""Parts of which every value is a number."""
_DEEPEST = 40
"""Levels of nesting in a config."""


def check_results(content: Mapping[str, Any]) -> None:
    """Whether all that reports read is of its kind.

    Raises:
        ValueError: what is not.
    """
    for part, kinds in _KINDS.items():
        held = content.get(part, {})
        if not isinstance(held, dict):
            raise ValueError(f"its {part} is no mapping")
        further = part == "cost" and "identity" not in content  # an evaluation's, which has trained nothing
        for key, kind in kinds.items() if part in content and not further else ():
            if type(held.get(key)) not in kind:
                raise ValueError(f"its {part}.{key} is {held.get(key)!r:.40}")
    for part in _NUMBERS:
        for key, value in _mapping(content, part).items():
            if not _is_number(value):
                raise ValueError(f"its {part}.{key} is {value!r:.40}, and no number")
    for key, values in _mapping(content, "spectra").items():
        if not isinstance(values, list) or not values or not all(map(_is_number, values)):
            raise ValueError(f"its spectra.{key} is no list of numbers")
    for key, heading in _mapping(content, "columns").items():
        if not isinstance(heading, str):
            raise ValueError(f"its columns.{key} is {heading!r:.40}, and no text")
    if not isinstance(content.get("explanation", ""), str):
        raise ValueError("its explanation is no text")
    check_pictures(content.get("pictures", []))
    _mapping(content, "environment")
    if content.get("evaluation") is not None:
        _mapping(content, "evaluation")
    steps = content.get("planned_steps"), content.get("optimizer_steps"), content.get("cost", {}).get("optimizer_steps")
    if any(type(number) not in (int, type(None)) for number in steps):
        raise ValueError("its numbers of steps are none")
    if type(content.get("test_images", 0)) is not int:
        raise ValueError("its test_images is no number")
    if not isinstance(content.get("stopped_by", ""), str):
        raise ValueError("its stopped_by is no name")
    if not isinstance(content.get("protocol", {}).get("reading", {}), dict):
        raise ValueError("its protocol.reading is no mapping")


def _mapping(content: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    held = content.get(part, {})
    if not isinstance(held, dict):
        raise ValueError(f"its {part} is no mapping")
    return held


def _is_number(value: Any) -> bool:
    """One that fits a float. NaN and infinity do."""
    return type(value) is float or (type(value) is int and abs(value) < 2**1023)


def check_config(value: Any, path: str = "", depth: int = 0) -> None:
    """Whether a config holds nothing but mappings by name, lists, text, numbers, truth values and null.

    Raises:
        ValueError: what else it holds.
    """
    where = path or "its top level"
    if depth > _DEEPEST:
        raise ValueError(f"{where} is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{where} has the key {key!r:.40}, which is no text")
            check_config(item, f"{path}.{key}".lstrip("."), depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_config(item, path, depth + 1)
    elif value is not None and type(value) not in (str, bool) and not _is_number(value):
        raise ValueError(f"{where} is of the kind {type(value).__name__}, or out of range")


def check_identity(identity: Any) -> None:
    """Of a config.

    Raises:
        ValueError: it does not say what a run is.
    """
    if not isinstance(identity, dict):
        raise ValueError("it does not hold what the run is")
    for key in ("ignored", "seeds"):
        keys = identity.get(key, [])
        if not isinstance(keys, list) or not all(isinstance(item, str) for item in keys):
            raise ValueError(f"its identity.{key} is no list of keys")
    contents = identity.get("contents", {})
    if not isinstance(contents, dict) or not all(isinstance(digest, str) for digest in contents.values()):
        raise ValueError("its identity.contents are no digests by name")
    if any(not isinstance(identity.get(key, ""), str) for key in ("method", "dataset", "subset", "budget", "digest")):
        raise ValueError("its identity is not in words")
