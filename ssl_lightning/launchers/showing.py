"""What a pool shows of its jobs: all lines that they print, or in a terminal a line of each that runs, written anew in
place."""

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EVERY = 0.5
"""Seconds between two looks at how far the jobs are."""
KEPT = 6
"""Last lines of a job that failed that are shown."""


class Lines:
    """One after another, for a file or a pipe."""

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def tells(self, line: str) -> None:
        """Something about all jobs."""
        print(line, flush=True)

    def starts(self, number: int, where: str, title: str, overrides: Sequence[str]) -> None:
        print(f"#{number} starts on {where}: {title}", flush=True)

    def says(self, number: int, line: str) -> None:
        """A job has printed something."""
        print(f"#{number} | {line}", flush=True)

    def ends(self, number: int, how: str, well: bool) -> None:
        print(f"#{number} {how}", flush=True)

    def look(self, waiting: int) -> None:
        """It may show how far the jobs are, and how many have not begun."""


class _Row:
    """Of a job that runs."""

    def __init__(self, title: str, overrides: Sequence[str]) -> None:
        self.title, self.overrides = title, overrides
        self.since = time.monotonic()
        self.lines: deque[str] = deque(maxlen=KEPT)


class Live(Lines):
    """In a terminal: a line of each job that runs, and one that counts the others. What has ended stays above them as a
    line with the last that it has said; what has failed, with its last lines.

    Args:
        how_far: of a job, by its overrides, in words; empty where that is not known.
    """

    def __init__(self, console: "Console", how_far: Callable[[Sequence[str]], str]) -> None:
        from rich.live import Live as Screen

        self._screen = Screen(console=console, auto_refresh=False, transient=True)
        self._how_far = how_far
        self._rows: dict[int, _Row] = {}
        self._ended: Counter[str] = Counter()
        self._next = 0.0

    def __enter__(self) -> "Live":
        self._screen.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._screen.update("")
        self._screen.stop()

    def tells(self, line: str) -> None:
        self._screen.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def starts(self, number: int, where: str, title: str, overrides: Sequence[str]) -> None:
        self._rows[number] = _Row(title, overrides)
        self._next = 0.0

    def says(self, number: int, line: str) -> None:
        self._rows[number].lines.append(line)

    def ends(self, number: int, how: str, well: bool) -> None:
        row = self._rows.pop(number)
        self._ended["done" if well else "failed"] += 1
        self.tells(f"#{number} {row.title}: {how}" + (f" | {row.lines[-1]}" if well and row.lines else ""))
        for line in row.lines if not well else ():
            self.tells(f"#{number} | {line}")
        self._next = 0.0

    def look(self, waiting: int) -> None:
        if (now := time.monotonic()) < self._next:
            return
        self._next = now + EVERY
        self._screen.update(self._table(waiting, now), refresh=True)

    def _table(self, waiting: int, now: float) -> "Table":
        from rich.table import Table
        from rich.text import Text

        table = Table.grid(padding=(0, 2), expand=True)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=2)
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=3)
        table.add_column(no_wrap=True, justify="right")
        for number, row in self._rows.items():
            shown = self._how_far(row.overrides) or (row.lines[-1] if row.lines else "begins")
            words = f"#{number}", row.title, shown, f"{now - row.since:.0f} s"
            table.add_row(*map(Text, words))
        counts = {**self._ended, "running": len(self._rows), "waiting": waiting}
        summary = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
        whole = Table.grid(expand=True)
        whole.add_row(table)
        whole.add_row(Text(summary, style="bold"))
        return whole


def lines_or_live(how_far: Callable[[Sequence[str]], str]) -> Lines:
    """What suits standard output. Arguments as of `Live`."""
    from rich.console import Console

    console = Console()
    return Live(console, how_far) if console.is_terminal and not console.is_dumb_terminal else Lines()
