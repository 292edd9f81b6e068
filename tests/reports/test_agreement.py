"""Rank correlations against SciPy's, and which run a metric would choose."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from ssl_lightning.reports.agreement import agreement, spearman
from tests.reports.test_report import Command, Folder, forget, markdown, report, rows, sweep

__all__ = ["forget", "sweep"]


def test_the_coefficient_is_that_of_scipy_and_the_interval_fisher_s():
    generator = np.random.default_rng(0)
    x = generator.integers(0, 6, 12).astype(float)  # with ties
    y = x + generator.normal(size=12)
    found = spearman(list(zip(x, y, strict=True)))
    assert found is not None
    assert found.rho == pytest.approx(spearmanr(x, y).statistic)
    z = 0.5 * math.log((1 + found.rho) / (1 - found.rho))
    half = 1.96 * math.sqrt((1 + found.rho**2 / 2) / 9)
    assert math.atanh(found.low) == pytest.approx(z - half, rel=1e-4)
    assert math.atanh(found.high) == pytest.approx(z + half, rel=1e-4)
    assert found.runs == 12


def test_of_few_runs_or_one_value_nothing_is_said():
    assert spearman([(float(i), float(i)) for i in range(4)]) is None
    assert spearman([(1.0, float(i)) for i in range(6)]) is None
    perfect = spearman([(float(i), float(i)) for i in range(6)])
    assert perfect is not None
    assert perfect.rho == 1
    assert math.atanh(perfect.low) == pytest.approx(
        math.atanh(1 - 2 / 35) - 1.96 * math.sqrt((1 + 1 / 2) / 3), rel=1e-3
    )


def runs(sweep: Folder, knn: list[float], rank: list[float]) -> None:
    for seed, (first, second) in enumerate(zip(knn, rank, strict=True), 1):
        run = sweep.finish(0.1 * seed, seed=seed)
        results = run.results()
        metrics = results["metrics"] | {"knn/top1": first, "representation/rankme": second}
        run.finish(results | {"metrics": metrics})


def test_a_metric_that_finds_several_best_chooses_none_of_them(sweep: Folder):
    """By its choice one gets what they have in the mean, and not the best of them."""
    runs(sweep, knn=[0.1, 0.2, 0.3, 0.4, 0.9, 0.9], rank=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    (row,) = (row for row in agreement(sweep.cells()) if row["metric"] == "k-NN %")
    assert row["chosen %"].value == pytest.approx(55)  # type: ignore[union-attr]


def test_a_row_a_metric(command: Command, sweep: Folder):
    runs(sweep, knn=[i / 10 for i in range(1, 9)], rank=[8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 1.0, 2.0])
    found = {row["metric"]: row for row in agreement(sweep.cells())}
    assert found["k-NN %"]["ρ"].value == pytest.approx(1)  # type: ignore[union-attr]
    assert found["k-NN %"]["ρ"].strong  # type: ignore[union-attr]
    assert found["RankMe r"]["ρ"].value == pytest.approx(spearmanr(range(8), [8, 7, 6, 5, 4, 3, 1, 2]).statistic)  # type: ignore[union-attr]
    assert found["RankMe r"]["chosen %"].value == pytest.approx(10)  # type: ignore[union-attr]
    assert found["RankMe r"]["best %"].value == pytest.approx(80)  # type: ignore[union-attr]
    assert found["RankMe r"]["labels"] == "–"
    report(command)
    text = markdown(sweep).partition("\n## Which metric to trust\n")[2]
    assert {"RankMe r", "k-NN %"} <= {row["metric"] for row in rows(text.partition("\n## ")[0])}
    assert "Spearman" in text


def test_a_curve_s_last_value_counts(sweep: Folder):
    for seed in range(1, 7):
        run = sweep.finish(0.1 * seed, seed=seed)
        run.metrics_file.write_text(f"step,spectrum/r/alpha_req\n1,9\n2,{1 + 1 / seed}\n")
    found = {row["metric"]: row for row in agreement(sweep.cells())}
    assert found["α-ReQ r, nearest to 1"]["ρ"].value == pytest.approx(1)  # type: ignore[union-attr]
