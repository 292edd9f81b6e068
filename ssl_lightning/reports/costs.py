"""What a cell has cost, in several units, and which cells are worth it."""

from collections.abc import Sequence

import numpy as np

from ssl_lightning.reports.cells import Cell

SECONDS = "training time of one run, seconds"
IMAGE_GRADIENTS = "image_gradients"
"""Images seen, times the gradient evaluations of each."""
COSTS = {
    "images_seen": "images seen in training",
    IMAGE_GRADIENTS: "images × gradient evaluations",
    "train_seconds": SECONDS,
}
"""Kinds of cost, with what is written at their axes."""


def known(cell: Cell, cost: str) -> float:
    """Mean cost of a run of the cell; 0 where it was not kept."""
    if cost != IMAGE_GRADIENTS:
        return max(0.0, float(np.nan_to_num(cell.statistics(cost, cost=True)[0])))
    kept = [results["cost"] for results in cell.results]
    wanted = ("images_seen", "gradient_evaluations", "optimizer_steps")
    if any(not one.get(name) for one in kept for name in wanted):
        return 0.0
    return float(np.mean([one["images_seen"] * one["gradient_evaluations"] / one["optimizer_steps"] for one in kept]))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Of (cost, accuracy), those that no other one of at most the cost exceeds, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front
