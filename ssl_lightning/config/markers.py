"""What a parameter means for the identity of what is made with it: `Annotated[int, Speed]` at its declaration.

A parameter without a marker may change the result, and counts.
"""

import functools
import typing
from collections.abc import Callable
from typing import Annotated, Any


class Speed:
    """How fast, or in how much memory; the result is the same."""


class Place:
    """Where things lie, or what is shown; the result is the same."""


class After:
    """What is done with an encoder once it is trained."""


class Seed:
    """What runs of one cell of a report differ in."""


class Content:
    """A file, or another run: what it holds counts, by a digest of its own, and not where it lies."""


class Unset:
    """Null is as if it were not there: a YAML file can show a setting that there was not, and runs keep their names."""


Marker = type[Speed] | type[Place] | type[After] | type[Seed] | type[Content] | type[Unset]
MARKERS: tuple[Marker, ...] = (Speed, Place, After, Seed, Content, Unset)
IRRELEVANT: tuple[Marker, ...] = (Speed, Place, After)


def marker_of(hint: Any) -> Marker | None:
    """The marker in `Annotated[..., marker]`, if any."""
    if typing.get_origin(hint) is not Annotated:
        return None
    return next((item for item in hint.__metadata__ if item in MARKERS), None)


@functools.cache
def hints_of(target: Callable[..., Any]) -> dict[str, Any]:
    """Annotations of the parameters of a class or function, with their metadata; none where another library's cannot
    be evaluated."""
    called: Any = target
    if isinstance(target, type):
        called = target.__init__  # type: ignore[misc]
    try:
        return typing.get_type_hints(called, include_extras=True)
    except Exception:
        return {}
