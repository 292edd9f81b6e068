"""Errors of Python, torch and Lightning as one line: what is wrong, in which file or place, what to do."""

import errno
import inspect
import itertools
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from ssl_lightning.known_errors import DEBUG, KNOWN, REMEDIES


def explained(error: BaseException) -> str:
    """One line of a foreign error: what, where, what to do. An unexpected one is named with file and line.

    Where code of the user's own was on the way, that place is named and not one in a library.
    """
    error = _cause(error)
    places = [*_places(error)]
    own = next((place for place in reversed(places) if place.owner == "user"), None)
    line = _of_system(error) if isinstance(error, OSError) else None
    if line is None:
        line = _known(error)
    if line is not None:
        return f"{line} ({own})" if own else line
    nearest = {place.owner: place for place in places}
    where = next((f" ({nearest[owner]})" for owner in _OWNERS if owner in nearest), "")
    text = _text(error)
    return f"{type(error).__name__}{text and ': '}{text}{where}\n{DEBUG}"


def same_command() -> str:
    """How to name the command that goes on from what this one has saved."""
    forced = any(argument.lstrip("+").lower() in ("force=true", "force=1", "force=yes") for argument in sys.argv)
    return "the same command without force=true" if forced else "the same command"


def in_one_line(error: Exception) -> str:
    """What it says, or the system about it, without the full stop; the beginning where that is long."""
    said = isinstance(error, OSError) and error.strerror
    return said or " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def place_of(made: Callable[..., object]) -> str:
    """Name of a class or function, with file and line where these are known."""
    try:
        called = inspect.unwrap(made)
        return f"{made.__qualname__} ({inspect.getsourcefile(called)}:{inspect.getsourcelines(called)[1]})"
    except (OSError, TypeError):
        return made.__qualname__


def reason(error: OSError, remedy: str | None = None) -> str:
    """What the system says, and what to do: half of a message that begins with what failed.

    Args:
        remedy: in place of the general one.
    """
    said = in_one_line(error)
    number = errno.ENOSPC if "requested and" in said else error.errno or 0  # NumPy: so many requested, so many written
    remedy = remedy or REMEDIES.get(number, "Check that it can be read and written")
    return f"{said}. {remedy}."


def _of_system(error: OSError) -> str | None:
    if error.errno not in REMEDIES:
        return None
    named = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    if not named and error.errno in (errno.ENOENT, errno.EEXIST, errno.EISDIR, errno.ENOTDIR):
        return None  # it would help nobody
    return f"{' -> '.join(named)}{': ' if named else ''}{reason(error)}"


def _known(error: BaseException) -> str | None:
    names = {kind.__name__ for kind in type(error).__mro__}
    for known in KNOWN:
        if names & set(known.kinds.split("|")) and (found := re.search(known.holds, str(error), re.DOTALL)):
            groups = {name: " ".join((value or "").split()).rstrip(".") for name, value in found.groupdict().items()}
            return known.line.format(**groups)
    return None


def _cause(error: BaseException) -> BaseException:
    """What Hydra has wrapped, when it called or imported a component, or another thread or process."""
    while error.__cause__ is not None and (
        type(error).__name__ == "InstantiationException"
        or ("exited unexpectedly" in str(error) and str(error.__cause__))  # of some, the reason is known
    ):
        error = error.__cause__
    return error


def _text(error: BaseException) -> str:
    """In one line; of an error in another process, whose text is its traceback, the last."""
    text = str(error).partition("\nException raised from")[0].strip()  # C++ frames of torch
    if _REMOTE in text:
        text = text.splitlines()[-1].partition(": ")[2]
    return " ".join(text.split())


_REMOTE = "Traceback (most recent call last)"
_PACKAGE = Path(__file__).parent
_FRAMEWORKS = ("torch", "lightning", "hydra", "omegaconf")
_OWNERS = ("user", "library", "package", "framework")
"""Whose line of code says most of an unexpected error, in this order."""


class _Place(NamedTuple):
    """A line of code that was on the way to an error."""

    file: str
    line: int

    @property
    def owner(self) -> str:
        path = Path(self.file)
        if _PACKAGE in path.parents:
            return "package"
        for folder, name in itertools.pairwise(path.parts):
            if folder in ("site-packages", "dist-packages"):
                return "framework" if name in _FRAMEWORKS else "library"
        return "framework" if self.file.startswith(("<", sysconfig.get_path("stdlib"))) else "user"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def _places(error: BaseException) -> Iterator[_Place]:
    """From the outermost on."""
    for frame in traceback.extract_tb(error.__traceback__):
        yield _Place(frame.filename, frame.lineno or 0)
    if isinstance(error, SyntaxError) and error.filename:
        yield _Place(error.filename, error.lineno or 0)
    if _REMOTE in str(error):
        for file, line in re.findall(r'File "(.+?)", line (\d+)', str(error)):
            yield _Place(file, int(line))
