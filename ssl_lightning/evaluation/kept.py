"""Parts of an evaluation that take long: what is killed goes on after those that it had."""

import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from ssl_lightning.errors import UserError
from ssl_lightning.files import read_text, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Kept:
    """Values of parts, a file each, until the whole is there.

    Args:
        folder: of one encoder, data and protocol; None: nothing is kept.
    """

    folder: Path | None = None
    _found: list[float] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def seconds(self) -> float:
        """Of those parts that were there already."""
        return sum(self._found)

    def __call__(self, part: str, make: Callable[[], T]) -> T:
        """What `make` gives, plain values as JSON holds them; or gave, to a process that has ended since.

        Args:
            part: with all that its values depend on besides what `folder` is of.
        """
        if self.folder is None:
            return make()
        file = self.folder / f"{sha256(part.encode()).hexdigest()[:16]}.json"
        with contextlib.suppress(
            OSError, ValueError, TypeError, KeyError, RecursionError
        ):  # not there, or damaged: it is made
            content = json.loads(read_text(file))
            if isinstance(content, dict) and content.get("part") == part:
                self._found.append(float(content["seconds"]))
                return content["value"]
        started = time.monotonic()
        value = make()
        seconds = time.monotonic() - started
        with contextlib.suppress(UserError):  # a full disk, or another that has just ended with the same encoder
            write_json(file, {"part": part, "value": value, "seconds": seconds})
        return value

    def forget(self) -> None:
        """Once the whole is kept elsewhere."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
