"""Calibration against sums by hand."""

import numpy as np
import pytest
import torch

from ssl_lightning.evaluation.calibration import Calibration, calibration, reliability
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset, encoders


def by_hand(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> dict[str, float]:
    n, c = probabilities.shape
    named, confidence = probabilities.argmax(1), probabilities.max(1)
    ece = 0.0
    for b in range(bins):
        inside = [i for i in range(n) if b / bins < confidence[i] <= (b + 1) / bins]
        if inside:
            right = np.mean([named[i] == labels[i] for i in inside])
            ece += len(inside) / n * abs(right - np.mean(confidence[inside]))
    brier = np.mean([sum((probabilities[i, j] - (labels[i] == j)) ** 2 for j in range(c)) for i in range(n)])
    nll = -np.mean([np.log(probabilities[i, labels[i]]) for i in range(n)])
    return {"ece": ece, "brier": brier, "nll": nll}


@pytest.mark.parametrize("bins", [1, 4, 15])
def test_the_definitions(bins):
    generator = torch.Generator().manual_seed(0)
    probabilities = (2 * torch.randn(200, 3, generator=generator, dtype=torch.float64)).softmax(1)
    labels = torch.randint(3, (200,), generator=generator)
    found = calibration(probabilities, labels, bins)
    assert found == pytest.approx(by_hand(probabilities.numpy(), labels.numpy(), bins), rel=1e-5)
    x, y = reliability(probabilities, labels, bins)
    counts = [((probabilities.max(1).values * bins).long().clamp(max=bins - 1) == b).sum() for b in range(bins)]
    weights = [int(count) / 200 for count in counts if count]
    assert sum(w * abs(a - b) for w, a, b in zip(weights, x, y, strict=True)) == pytest.approx(found["ece"], rel=1e-5)


def test_certain_and_right_or_wrong():
    certain = torch.eye(2, dtype=torch.float64)
    assert calibration(certain, torch.tensor([0, 1])) == {"ece": 0, "brier": 0, "nll": 0}
    wrong = calibration(certain, torch.tensor([1, 0]))
    assert (wrong["ece"], wrong["brier"]) == (1, 2)
    assert wrong["nll"] > 700  # the least that a number can be, not infinity


def test_encoders_are_ordered():
    """Log loss: what has collapsed is sure of nothing, and calibrated."""
    found = {
        name: Calibration(l2_grid=(1e-2,)).evaluate(subject_of(encoder, dataset())).metrics
        for name, encoder in encoders().items()
    }
    trained, untrained, collapsed = (found[name]["calibration/nll"] for name in ("trained", "untrained", "collapsed"))
    assert trained < untrained < collapsed
    assert collapsed == pytest.approx(np.log(4), rel=1e-3)
    assert found["collapsed"]["calibration/ece"] == pytest.approx(0, abs=1e-3)
    assert Calibration().columns.keys() <= found["trained"].keys()
