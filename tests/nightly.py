"""What `make test` proves by examples, and the nightly tests in full."""

from typing import Any

import pytest


def one_in(number: int, *cases: Any) -> list[Any]:
    """Cases of a parametrised test, of which `make test` takes the first of each `number` in their order."""
    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.nightly if i % number else ())
        for i, case in enumerate(cases)
    ]
