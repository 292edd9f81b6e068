"""Ranges of numbers, as annotations of parameters: a config is checked against them before anything starts."""

import math
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt

Count = Annotated[int, Gt(0)]
"""1 or more."""

Several = Annotated[int, Ge(2)]
"""2 or more: of classes, of which one alone is always right."""

Number = Annotated[int, Ge(0)]
"""0 or more."""

SeedNumber = Annotated[int, Ge(0), Le(2**32 - 1)]
"""What the generators of NumPy, scikit-learn and torch all take."""

Positive = Annotated[float, Gt(0), Lt(math.inf)]

NonNegative = Annotated[float, Ge(0), Lt(math.inf)]

Share = Annotated[float, Ge(0), Le(1)]
"""From 0 to 1, such as a probability."""

Percent = Annotated[float, Gt(0), Le(100)]

Deviation = Annotated[float, Gt(0), Le(1)]
"""A standard deviation of values from 0 to 1."""

Part = Annotated[float, Gt(0), Lt(1)]
"""Neither nothing nor all."""

Temperature = Annotated[float, Ge(1e-3), Le(1e3)]
"""Of a softmax: below, its logits leave what float32 can tell apart."""

DISTINCT = "distinct"
"""Beside the annotation of a list: it holds each value once, as each is measured."""

Unlimited = Literal[-1]
"""What Lightning writes for no limit."""
