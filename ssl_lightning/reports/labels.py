"""Names of lines, which may be long, in legends and beside rows."""

import itertools
import textwrap
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

LINES, MOST_LINES = 3, 6  # of a label in a legend, and of one beside a row
ROW, LINE, AROUND = 0.24, 0.16, 0.9  # inches: of a row, of each further line of its label, of what is around rows


def folded(text: str, letters: int, lines: int = LINES) -> str:
    """At most so many lines of so many letters."""
    return "\n".join(textwrap.wrap(text, letters, max_lines=lines, placeholder=" …"))


class Rows:
    """Labels beside rows below each other, which leave each other room.

    Args:
        labels: from above.
        narrow: of panels below each other.
    """

    def __init__(self, labels: Sequence[str], narrow: bool) -> None:
        self._names = [folded(label, 16 if narrow else 40, MOST_LINES) for label in labels]
        self._narrow = narrow
        heights = [ROW + LINE * name.count("\n") for name in self._names]
        self._height = sum(heights)
        self.at = [height / 2 - end for height, end in zip(heights, itertools.accumulate(heights), strict=True)]
        """Where each row is."""

    def fit(self, figure: Figure, number: int) -> None:
        """Makes a figure of so many panels high enough."""
        height = (self._height + AROUND) * (number if self._narrow else 1)
        figure.set_figheight(max(figure.get_figheight(), height))

    def label(self, axis: Axes, named: bool) -> None:
        axis.set_yticks(self.at, self._names if named else [""] * len(self.at), fontsize="small")
        axis.set_ylim(-self._height, 0)
