"""Headings of a report's columns: shares are shown in %, and are known by the end of their heading."""

import pytest

from ssl_lightning.evaluation.calibration import Calibration
from ssl_lightning.evaluation.corruptions import Corruptions
from ssl_lightning.evaluation.episodes import Episodes
from ssl_lightning.evaluation.evaluator import Evaluator
from ssl_lightning.evaluation.map import Map
from ssl_lightning.evaluation.universality import Universality


@pytest.mark.parametrize("kind", [Calibration, Corruptions, Episodes, Map, Universality])
def test_a_share_ends_in_percent(kind: type[Evaluator]):
    for metric, heading in kind().columns.items():
        assert "%" not in heading[:-1], heading
        assert heading.endswith("%") or not metric.endswith(("top1", "gain")), heading
