"""What the documents say of tests is there."""

import re
from pathlib import Path

import pytest

from tests.reliability import DOCUMENT, table

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


def test_the_table_of_what_can_go_wrong_is_that_of_the_tests():
    assert DOCUMENT.read_text(encoding="utf-8") == table(), "write it again: python -m tests.reliability"
    rows = [line for line in table().splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    for row in rows:
        what, lost, _, tests = re.split(r" \| ", row.strip("| "))
        assert "" not in (what, lost, tests), row
