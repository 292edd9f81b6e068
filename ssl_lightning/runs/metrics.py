"""metrics.csv: a row per logging interval. Reader and writer, without Lightning: reports read many of these files."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.files import write_text
from ssl_lightning.runs.reading import read_of_run


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a torn last line, left by a killed process, is no row, and no line is that names no
    step, as in a damaged file.

    Raises:
        UserError: it leads out of the folder that it is in, which is the run's.
        OSError, ValueError: it cannot be read.
    """
    if not path.exists():
        return []
    text = read_of_run(path, path.parent, errors="replace").replace("\0", "\ufffd")
    rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
    return [row for row in rows if (row.get("step") or "").isdecimal() and None not in row]


class MetricsWriter:
    """Appends rows to a CSV file; a new column rewrites it.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def append(self, row: Mapping[str, Any]) -> None:
        """Writes a row; it names its optimizer step under `step`."""
        if set(row) <= set(self._columns):
            with self.path.open("a", newline="", encoding="utf-8") as file:
                csv.DictWriter(file, self._columns).writerow(row)
        else:
            self._write([*read_metrics(self.path), row])

    def rewind(self, step: int) -> None:
        """Forgets the rows after the optimizer step."""
        self._write([row for row in read_metrics(self.path) if int(row["step"]) <= step])

    def _write(self, rows: list[Mapping[str, Any]]) -> None:
        self._columns = list(dict.fromkeys(key for row in rows for key in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns)
        writer.writeheader()
        writer.writerows(rows)
        write_text(self.path, text.getvalue())
