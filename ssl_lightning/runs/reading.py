"""Text files of a run, which a disk or somebody else may have damaged."""

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.files import inside, read_text
from ssl_lightning.runs.kinds import check_config, check_identity, check_results

LAST = ("paths", "trainer", "evaluation", "callbacks", "logger")
"""Keys that some config has at its end."""


class Damaged(UserError):
    """A file of a run cannot be read.

    Args:
        what: is wrong, with the file.
        remedy: what to do, a sentence without its stop.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}. {remedy}.")
        self.what = what


def unless_damaged(read: Callable[[], dict[str, Any]], instead: str, speaks: bool = True) -> dict[str, Any] | None:
    """What is read; None, and a warning, where that is damaged.

    Args:
        instead: what is done then, a sentence for the warning.
        speaks: whether to print it.
    """
    try:
        return read()
    except Damaged as error:
        if speaks:
            print(f"Warning: {error.what}. {instead}", file=sys.stderr, flush=True)
        return None


def read_of_run(file: Path, folder: Path, limit: int = 2**28, errors: str = "strict") -> str:
    """The text of a file of the run in `folder`, which may be somebody else's: a link in it may not show what lies
    elsewhere on this machine.

    Raises:
        Damaged: the file is, or lies behind, a link that leads out of the folder.
        OSError, ValueError: see `read_text`.
    """
    if not inside(os.path.realpath(file), os.path.realpath(folder)):
        raise Damaged(
            f"{file} is a link that leads out of its run: nothing is read through it",
            "Put the file itself in its place",
        )
    return read_text(file, limit, errors)


def stopped_early(results: Mapping[str, Any]) -> bool:
    """Whether training took fewer optimizer steps than were planned. Former versions did not keep how many were."""
    planned = results.get("planned_steps") or 0
    return bool(planned) and (results.get("cost", {}).get("optimizer_steps") or 0) < planned


def read_results(
    file: Path, folder: Path, parts: Sequence[str], remedy: str = "Delete it, and start the same ssl-train again"
) -> dict[str, Any]:
    """
    Args:
        folder: of the run.
        parts: which it must have, each a mapping.
        remedy: what to do where it is damaged.
    """
    try:
        content = json.loads(read_of_run(file, folder))
        if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in parts):
            raise ValueError(f"it does not hold {', '.join(parts)}")
        check_results(content)
    except (OSError, ValueError, RecursionError) as error:  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        raise Damaged(f"{file} is damaged: {in_one_line(error)}", remedy) from error
    return content


def read_config(file: Path) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        content = _read_yaml(file)
        if not isinstance(content, dict) or not isinstance(content.get("method"), dict):
            raise ValueError("it does not hold what a run consists of")
        if "identity" in content and (lacking := [key for key in LAST if key not in content]):
            raise ValueError(f"it does not hold {lacking[0]}, so that its end may be missing")
        check_config(content)
        if content.get("schema", 1) != 1:
            check_identity(content.get("identity"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise Damaged(
            f"{file} is damaged: {in_one_line(error)}", "Start the same ssl-train again: it is written anew"
        ) from error
    return content


def _read_yaml(file: Path) -> Any:
    """What `OmegaConf.load` reads, ten times faster: by libyaml, where PyYAML comes with it."""
    import re

    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    # YAML 1.1 takes 1e-3 for a word.
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    text = read_of_run(file, file.parent, 2**22)
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
        raise ValueError("it uses aliases, by which a short file may become a large one")
    return yaml.load(text, Loader) or {}
