"""Values of overrides are quoted in one place."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from ssl_lightning.config.hydra import quoted

PARSER = OverridesParser.create()


@pytest.mark.parametrize(
    "value",
    ["a", "", "é ( ) ~ # = , [x] {y} : ;", "it's", 'a "b"', "\\", 'a\\\\"b', "${paths.runs}", "1", "true", "x\udcff"],
)
def test_hydra_takes_a_quoted_value_as_it_is(value):
    override = PARSER.parse_override(f"key={quoted(value)}")
    assert override.value() == value
    assert PARSER.parse_override(f"key=[{quoted(value)}]").value() == [value]
    again = PARSER.parse_override(f"key={override.get_value_element_as_str()}")  # as jobs of a multirun are given it
    assert again.value() == value
