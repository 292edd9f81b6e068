"""Ranks that were watched during training are drawn, and what watching took is shown."""

from pathlib import Path

import pytest

from ssl_lightning.files import write_text
from ssl_lightning.reports.figures import has_ranks, rank_over_training
from ssl_lightning.runs.run import Run
from tests.reports.test_report import Command, Folder, drawn, forget, markdown, report, rows, sweep

__all__ = ["drawn", "forget", "sweep"]


def watch(run: Run, *what: str, start: float = 5.0) -> None:
    """Ranks after each of three epochs; other rows have none."""
    names = [f"spectrum/{one}/rankme" for one in what]
    lines = [",".join(["step", "epoch", "loss", *names])]
    for step in range(1, 7):
        values = [f"{start + step + i}" if step % 2 == 0 else "" for i in range(len(names))]
        lines.append(",".join([str(step), "0", "1.0", *values]))
    write_text(run.metrics_file, "\n".join(lines) + "\n")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """What would be saved."""
    made = []

    def keep(figure, path, title):
        made.append((figure, title))
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", keep)
    return made


def test_a_line_a_seed_at_the_largest_fraction_of_each_method(sweep: Folder, figures):
    watch(sweep.finish(0.5, seed=1), "r", "z", start=5.0)
    watch(sweep.finish(0.5, seed=2), "r", "z", start=6.0)
    watch(sweep.finish(0.5, seed=1, fraction=0.5), "r", "z", start=90.0)
    watch(sweep.finish(0.5, "method=directclr", seed=1), "r", "z", "r_d0", "r_rest", start=1.0)
    sweep.finish(0.5, "method=byol", seed=1)  # was not watched
    for narrow in (False, True):
        rank_over_training(sweep.cells(), Path("x.png"), "a title", narrow=narrow)
    for figure, _ in figures:
        assert [axis.get_title() for axis in figure.axes] == ["representation", "embedding", "representation after d0"]
        lines = [[line.get_ydata().tolist() for line in axis.lines] for axis in figure.axes]
        assert sorted(lines[0]) == [[3.0, 5.0, 7.0], [7.0, 9.0, 11.0], [8.0, 10.0, 12.0]]
        assert lines[2] == [[6.0, 8.0, 10.0]]
        assert figure.axes[0].lines[0].get_xdata().tolist() == [2, 4, 6]
        (legend,) = figure.legends
        assert {text.get_text().replace("\n", " ") for text in legend.texts} == {
            "directclr, fraction 1",
            "simclr, fraction 1",
        }
    (wide, _), (narrow, _) = figures
    assert wide.get_figwidth() > 3 * narrow.get_figwidth()


def test_one_fraction_goes_without_saying(sweep: Folder, figures):
    watch(sweep.finish(0.5), "r", start=5.0)
    rank_over_training(sweep.cells(), Path("x.png"), "a title")
    ((figure, _),) = figures
    assert [text.get_text() for text in figure.legends[0].texts] == ["simclr"]


def test_the_report_has_the_curves_where_there_are_some(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    report(command)
    assert "rank_over_training" not in markdown(sweep)
    assert not has_ranks(sweep.cells())
    watch(run, "r")
    report(command)
    assert "![rank_over_training](rank_over_training.png)" in markdown(sweep)
    assert (sweep.folder / "report" / "rank_over_training.png").exists()


def test_what_watching_took_has_a_column_of_its_own(command: Command, sweep: Folder):
    sweep.finish(0.5)
    assert "watching" not in report(command)
    run = sweep.finish(0.6, "method=directclr")
    results = run.results()
    run.finish(results | {"cost": results["cost"] | {"watching_seconds": 3.25}})
    assert "watching: measuring spectra" in " ".join(report(command).split())
    seconds = {row["method"]: row["watching"] for row in rows(markdown(sweep).partition("\n## Seconds\n")[2])}
    assert seconds == {"simclr": "–", "directclr": "3.2"}
