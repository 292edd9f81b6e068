"""What the documents say of tests is there."""

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
DOCUMENTS = ("SECURITY.md", "docs/reliability.md")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document):
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", (TOP / document).read_text(encoding="utf-8"))
    assert len(named) > 5
    for file, test in named:
        path = TOP / file
        assert path.exists(), file
        assert not test or f"def {test}(" in path.read_text(encoding="utf-8"), f"{file}::{test}"


def test_every_row_of_the_table_names_a_test():
    lines = (TOP / "docs/reliability.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("|")][2:]
    assert len(rows) > 10
    for row in rows:
        assert "`tests/" in row or "by reasoning" in row, row
