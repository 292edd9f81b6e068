"""Reading metrics.csv, which `callbacks/metrics_file.py` writes: apart from it, since reports do without Lightning."""

import csv
import io
from pathlib import Path


def read_metrics(path: Path) -> list[dict[str, str]]:
    """The rows of a metrics.csv; a torn last line, left by a killed process, is no row."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline="")))
