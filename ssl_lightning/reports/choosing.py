"""Which rows are meant: `method=simclr`, `fraction<0.5`, `status=failed`."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ssl_lightning.errors import UserError
from ssl_lightning.reports.rows import columns_of

_ORDERS: Mapping[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Filter:
    """A comparison of a column with a value.

    Args:
        column: of a row; or the end of one column's name, as in `temperature` for `method.temperature`.
        compares: =, !=, <, <=, > or >=.
        value: as it was written; of = and != a pattern, as in `run=simclr-*`.
    """

    column: str
    compares: str
    value: str

    def keeps(self, row: Mapping[str, Any], column: str) -> bool:
        """Whether a row is meant. One that lacks the column is not."""
        if (found := row.get(column)) is None:
            return False
        wanted = _number(self.value)
        if self.compares in _ORDERS:
            own = _number(found)
            return own is not None and wanted is not None and _ORDERS[self.compares](own, wanted)
        if type(found) in (int, float) and wanted is not None:
            equal = found == wanted
        else:
            text = str(found)
            equal = fnmatchcase(text.lower() if isinstance(found, bool) else text, self.value)
        return equal == (self.compares == "=")


def filter_in(text: str) -> Filter | None:
    """None where the text compares nothing.

    Raises:
        UserError: it orders what is no number.
    """
    if (parts := re.fullmatch(r"([\w./%-]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)", text)) is None:
        return None
    made = Filter(*parts.groups())
    if made.compares in _ORDERS and _number(made.value) is None:
        raise UserError(f"{text}: {made.value!r} is no number, but {made.compares} compares numbers. Try = or !=.")
    return made


def chosen(rows: Sequence[Mapping[str, Any]], filters: Sequence[Filter]) -> list[int]:
    """Indices of the rows that all filters keep.

    Raises:
        UserError: no row has the column of a filter, or several end as it says.
    """
    columns = [column_of(rows, one.column) for one in filters] if rows else []
    pairs = list(zip(filters, columns, strict=False))
    return [i for i, row in enumerate(rows) if all(one.keeps(row, column) for one, column in pairs)]


def column_of(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The column that a name, or the end of one, means.

    Raises:
        UserError: none, or several.
    """
    columns = columns_of(rows)
    if name in columns:
        return name
    ends = [column for column in columns if re.search(rf"[./]{re.escape(name)}$", column)]
    if len(ends) == 1:
        return ends[0]
    if ends:
        raise UserError(f"{name} may be {', '.join(sorted(ends))}. Write one of them in full.")
    import difflib

    near = difflib.get_close_matches(name, columns, 1)
    raise UserError(
        f"No run has {name!r}. " + (f"Is it {near[0]}?" if near else "ssl-runs ls --csv shows what they have.")
    )


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
