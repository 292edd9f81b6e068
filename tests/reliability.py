"""Writes docs/reliability.md from the tests that are marked for it:  python -m tests.reliability"""

import ast
from collections.abc import Iterator
from pathlib import Path

TOP = Path(__file__).parents[1]
DOCUMENT = TOP / "docs" / "reliability.md"
HEAD = """\
# What can go wrong, and what is lost

Every row is a test, which `make test-nightly` runs (`make test` most of them, `make slurm` those of SLURM, `make ray`
those of Ray), and this table is made of their marks (`python -m tests.reliability`).
`make storm` (`MINUTES=1`) kills random processes of a sweep, time and again, and compares what it leaves with that of
an undisturbed one, bit for bit.

| what happens | what is lost | what is read | tests |
| --- | --- | --- | --- |
"""
FOOT = """
A power cut loses what the disk had not been asked to keep. Checkpoints, results and configs are synced, with their
folders, before they get their names (`ssl_lightning/files.py`); rows of `metrics.csv` since the last checkpoint may be
missing, and are written again. This is by reasoning: no test cuts the power.
"""


def marks() -> Iterator[tuple[str, str, str, str]]:
    """What happens, what is lost, what is read, and the test, of each that is marked."""
    for file in sorted((TOP / "tests").rglob("test_*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
                if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.reliability":
                    (what,) = map(ast.literal_eval, mark.args)
                    told = {str(word.arg): ast.literal_eval(word.value) for word in mark.keywords}
                    name = f"`{file.relative_to(TOP).as_posix()}::{node.name}`"
                    yield what, told.get("lost", ""), told.get("read", ""), name


def table() -> str:
    """Tests of one thing are one row; the first of them says what is lost and read."""
    rows: dict[str, tuple[str, str, list[str]]] = {}
    for what, lost, read, name in marks():
        known = rows.get(what, ("", "", []))
        rows[what] = known[0] or lost, known[1] or read, [*known[2], name]
    lines = [
        f"| {what} | {lost} | {read} | {', '.join(names)} |"
        for what, (lost, read, names) in sorted(rows.items(), key=lambda row: row[0].lower().lstrip("`"))
    ]
    return HEAD + "\n".join(lines) + "\n" + FOOT


if __name__ == "__main__":
    DOCUMENT.write_text(table(), encoding="utf-8")
