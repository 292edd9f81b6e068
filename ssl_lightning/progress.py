"""What takes long says how far it is: a bar in a terminal, a line a stage in a log."""

import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

Begins = Callable[[str], None]
"""Told what begins, and over how many images."""


def silent(stage: str) -> None:
    """Says nothing."""


def in_log(stage: str) -> None:
    """A line where standard output is no terminal: there no bar can be seen, and nothing else for minutes."""
    if not sys.stdout.isatty():
        print(f"  {stage}", flush=True)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterable[T]:
    """`items`, with a bar that vanishes at the end where standard error is a terminal."""
    from rich.console import Console
    from rich.progress import track as rich_track

    console = Console(stderr=True)
    return rich_track(items, description, total=total, console=console, transient=True, disable=not console.is_terminal)
