"""Which cells are worth their cost."""

import itertools

import numpy as np
import pytest

from ssl_lightning.reports.comparison import columns_of_times, comparison, explanation_of_times, times
from ssl_lightning.reports.costs import IMAGE_GRADIENTS, known, pareto_front
from tests.reports.test_report import Folder, forget, sweep

__all__ = ["forget", "sweep"]


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_other_point_beats(seed):
    generator = np.random.default_rng(seed)
    points = [(float(x), float(y)) for x, y in generator.integers(0, 8, (20, 2))]
    worth = {one for one in points if not any(o != one and o[0] <= one[0] and o[1] >= one[1] for o in points)}
    front = pareto_front(points)
    assert set(front) == worth
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(front))


def test_costs_of_a_cell(sweep: Folder):
    for seed, images in ((1, 100), (2, 300)):
        run = sweep.finish(0.5, seed=seed)
        cost = {"images_seen": images, "gradient_evaluations": 30.0, "optimizer_steps": 10}
        run.finish(run.results() | {"cost": run.results()["cost"] | cost})
    (cell,) = sweep.cells()
    assert known(cell, "images_seen") == 200
    assert known(cell, IMAGE_GRADIENTS) == 600
    assert known(cell, "train_seconds") == 10


def test_what_was_not_kept_is_no_cost(sweep: Folder):
    sweep.finish(0.5)
    (cell,) = sweep.cells()
    assert known(cell, IMAGE_GRADIENTS) == known(cell, "images_seen") == 0


def test_what_choosing_images_while_training_saves_and_takes_has_columns(sweep: Folder):
    sweep.finish(0.5)
    assert "image passes" not in comparison(sweep.cells())[0]
    assert "selecting" not in columns_of_times(sweep.cells()).values()
    for name, seen, out in (("none", 1000, None), ("infobatch", 740, 260), ("scan", 700, 300)):
        run = sweep.finish(0.6, f"selection={name}")
        further = {} if out is None else {"images_left_out": out, "selecting_seconds": 0.25}
        run.finish(run.results() | {"cost": run.results()["cost"] | {"images_seen": seen} | further})
    cells = sweep.cells()
    shown = {row["variant"]: row["image passes"].text for row in comparison(cells)}
    assert shown == {"–": "1000", "selection=InfoBatch": "740", "selection=Scan": "700"}
    assert "selecting: choosing the images" in explanation_of_times(cells)
    assert {row["variant"]: row["selecting"].text for row in times(cells)} == {
        "–": "–",
        "selection=InfoBatch": "0.2",
        "selection=Scan": "0.2",
    }
