"""What a report says of differences: paired by seed, with intervals, from a reference that is chosen or told."""

import itertools
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from scipy import stats

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.protocol import Protocol
from ssl_lightning.pipeline.report import report
from ssl_lightning.reports.differences import compared, differences, reference_of, too_few, uncertainty
from ssl_lightning.reports.forest import forest, worth_drawing
from ssl_lightning.reports.paired import Difference, difference, standard_error
from tests.reports.test_protocols import further
from tests.reports.test_report import Folder, forget, sweep

__all__ = ["forget", "sweep"]

OURS = {1: 0.91, 2: 0.93, 3: 0.92, 4: 0.95, 5: 0.96, 7: 0.5}
THEIRS = {1: 0.90, 2: 0.90, 3: 0.93, 4: 0.90, 5: 0.90, 6: 0.1}


def test_differences_are_paired_by_seed():
    """An independent way to all four numbers; seeds that one side lacks do not count."""
    found = difference(OURS, THEIRS)
    assert found is not None
    ours, theirs = (np.array([side[seed] for seed in range(1, 6)]) for side in (OURS, THEIRS))
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert found.seeds == 5
    assert found.mean == pytest.approx(fmean(ours - theirs))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(stats.wilcoxon(ours - theirs).pvalue)
    assert found.separated == (expected.pvalue < 0.05)


@pytest.mark.parametrize("seeds", [5, 8, 14])
def test_p_of_tied_and_equal_seeds_is_that_of_all_signs(seeds):
    """Each difference is as likely with either sign; equal seeds count for nothing."""
    random = np.random.default_rng(seeds)
    for _ in range(5):
        differences = random.integers(-3, 4, seeds) / 64
        found = difference(dict(enumerate(differences)), dict.fromkeys(range(seeds), 0.0))
        assert found is not None
        assert found.p is not None
        if not differences.any():
            assert found.p == 1
        elif seeds > 8:
            assert found.p == pytest.approx(stats.wilcoxon(differences).pvalue, abs=0.01)
        else:
            ranks = stats.rankdata(abs(differences[differences != 0]))
            sums = [sum(chosen) for chosen in itertools.product(*((0, rank) for rank in ranks))]
            own = sum(ranks[differences[differences != 0] > 0])
            tails = [sum(s <= own for s in sums), sum(s >= own for s in sums)]
            assert found.p == min(1, 2 * min(tails) / len(sums))


@pytest.mark.parametrize("seeds", [5, 8, 13])
def test_shares_of_as_many_images_are_equal(seeds):
    """As counts are: of shares, differences of the same number of images differ in their last bits."""
    generator = np.random.default_rng(seeds)
    for _ in range(50):
        ours, theirs = generator.integers(430, 450, (2, seeds))
        of_counts = difference(dict(enumerate(ours.tolist())), dict(enumerate(theirs.tolist())))
        of_shares = difference(dict(enumerate(ours / 540)), dict(enumerate(theirs / 540)))
        assert of_shares.p == of_counts.p


def test_a_shift_that_all_seeds_share_is_separated_though_seeds_differ():
    theirs = {seed: 0.5 + seed / 10 for seed in range(4)}
    ours = {seed: value + 0.01 + 0.001 * (seed % 2) for seed, value in theirs.items()}
    found = difference(ours, theirs)
    assert found is not None
    assert found.separated
    assert found.p is None  # of four seeds, no test of signs can be small


@pytest.mark.parametrize("values", [{1: 0.5}, {1: 0.5, 2: 0.6}])
def test_one_or_two_seeds_separate_nothing(values):
    found = difference({seed: value + 0.1 for seed, value in values.items()}, values)
    assert found is not None
    assert found.mean == pytest.approx(0.1)
    assert not found.separated
    assert math.isnan(found.low) == (len(values) == 1)


def test_no_common_seed():
    assert difference({1: 0.5}, {2: 0.5}) is None


def test_no_difference_at_all():
    assert difference(THEIRS, THEIRS) == Difference(6, 0.0, 0.0, 0.0, 1.0)


def test_the_standard_error_is_that_of_draws_of_test_images():
    drawn = np.random.default_rng(0).binomial(500, 0.9, size=20_000) / 500
    assert standard_error(0.9, 500) == pytest.approx(drawn.std(), rel=0.02)


# The reference


def name(sweep: Folder, words: str | None = None) -> str | None:
    found = reference_of(sweep.cells(), words)
    return found and found.name


def test_simclr_on_a_random_subset_is_the_reference(sweep):
    for method, subset in (("directclr", "random"), ("simclr", "sas"), ("simclr", "random")):
        sweep.finish(0.5, f"method={method}", f"subset={subset}")
    assert name(sweep) == "simclr random, fraction 1"
    assert name(sweep, "directclr") == "directclr random, fraction 1"
    assert name(sweep, "SAS") == "simclr sas, fraction 1"


def test_the_value_of_a_setting_is_a_word(sweep):
    for projector in ("none", "linear"):
        sweep.finish(0.5, f"projector@method.projector={projector}")
    assert name(sweep, "linear") == name(sweep, "projector=linear") == "simclr random projector=linear, fraction 1"


@pytest.mark.parametrize(
    ("words", "why"), [("simclr", "names 2 lines of the comparison, and no other"), ("byol", "names no line")]
)
def test_words_of_no_line_or_of_several(sweep, words, why):
    for subset in ("sas", "random"):
        sweep.finish(0.5, f"subset={subset}")
    with pytest.raises(UserError, match=why) as error:
        reference_of(sweep.cells(), words)
    assert "simclr random; simclr sas" in str(error.value)


def grid(sweep: Folder) -> None:
    """Two methods on three subsets; the random ones of BYOL are 20 points below those of SimCLR, the others 3 above."""
    for seed in (1, 2, 3):
        for method, start in (("simclr", 0.6), ("byol", 0.4)):
            for subset, more in (("random", 0.0), ("sas", 0.03), ("density", 0.01)):
                sweep.finish(start + more + seed / 100, f"method={method}", f"subset={subset}", seed=seed)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (
            "random",
            "random, of the same method",
            {("byol", "sas"): "+3.0", ("byol", "density"): "+1.0",
             ("simclr", "sas"): "+3.0", ("simclr", "density"): "+1.0"},
        ),
        (
            "simclr",
            "simclr, of the same subset",
            {("byol", "random"): "-20.0", ("byol", "sas"): "-20.0", ("byol", "density"): "-20.0"},
        ),
        (
            "simclr random",
            "simclr random, fraction 1",
            {("byol", "random"): "-20.0", ("byol", "sas"): "-17.0", ("byol", "density"): "-19.0",
             ("simclr", "sas"): "+3.0", ("simclr", "density"): "+1.0"},
        ),
    ],
)  # fmt: skip
def test_words_of_several_lines_compare_each_with_its_like(sweep, words, name, expected):
    grid(sweep)
    cells = sweep.cells()
    reference = reference_of(cells, words)
    assert reference is not None
    assert reference.name == name
    rows = differences(cells, reference)
    assert {
        (one.cell.identity["method"], one.cell.identity["subset"]): one.row["linear %"].text.partition(" ")[0]
        for one in rows
    } == expected
    assert all(one.row["seeds"].value == 3 for one in rows)


def test_what_is_as_near_to_one_as_to_another_is_compared_with_none(sweep):
    grid(sweep)
    sweep.finish(0.5, "method=vicreg", "subset=sas")
    cells = sweep.cells()
    reference = reference_of(cells, "random")
    assert reference is not None
    assert {one.cell.identity["method"] for one in differences(cells, reference)} == {"simclr", "byol"}


def test_of_lines_with_as_many_common_words_the_shorter_is_nearer(sweep):
    """What was done to the images is a word of some lines: those without are compared with one without."""
    for nuisance in ("none", "long_tail", "duplicates"):
        for subset in ("random", "sas"):
            sweep.finish(0.5, f"dataset.nuisance={nuisance}", f"subset={subset}")
    cells = sweep.cells()
    reference = reference_of(cells, "random")
    assert reference is not None
    against = {one.cell.line: reference.of(one.cell).line for one in differences(cells, reference)}
    assert against == {line: line.replace("sas", "random") for line in against}
    assert len(against) == 3


def test_the_uncertainty_names_each_of_several(sweep):
    for method in ("simclr", "directclr"):
        for subset in ("random", "sas"):
            run = sweep.finish(0.9, f"method={method}", f"subset={subset}")
            run.finish(run.results() | {"test_images": 10_000})
    reference = reference_of(sweep.cells(), "random")
    assert reference is not None
    assert uncertainty(reference) == (
        "Binomial standard error of its linear %: ±0.30 of directclr random at fraction 1 (10,000 test images), "
        "±0.30 of simclr random at fraction 1 (10,000 test images)."
    )


def test_of_one_line_all_images_are_the_reference(sweep):
    for fraction in (0.2, 0.5, 1.0):
        sweep.finish(fraction, fraction=fraction)
    cells = sweep.cells()
    reference = reference_of(cells)
    assert reference is not None
    assert reference.name == "simclr random, fraction 1"
    assert [one.row["linear %"].text for one in differences(cells, reference)] == ["-80.0", "-50.0"]


def test_cells_are_compared_at_their_fraction(sweep):
    for fraction in (0.2, 1.0):
        for seed in (1, 2, 3):
            sweep.finish(0.5 + fraction / 10 + seed / 100, fraction=fraction, seed=seed)
            sweep.finish(0.5 + seed / 100 + 0.002 * (seed == 2), "method=directclr", fraction=fraction, seed=seed)
    cells = sweep.cells()
    reference = reference_of(cells)
    assert reference is not None
    rows = {one.cell.fraction: one.row for one in differences(cells, reference)}
    assert {fraction: row["linear %"].text.partition(" ")[0] for fraction, row in rows.items()} == {
        0.2: "-1.9",
        1.0: "-9.9",
    }
    assert all(row["linear %"].strong for row in rows.values())
    assert all(row["seeds"].value == 3 and row["p"].value is None for row in rows.values())


def test_a_single_cell_has_nothing_to_be_compared_with(sweep):
    sweep.finish(0.5)
    assert reference_of(sweep.cells()) is None


def test_the_uncertainty_is_that_of_the_test_images(sweep):
    for method in ("simclr", "directclr"):
        run = sweep.finish(0.9, f"method={method}")
        run.finish(run.results() | {"test_images": 10_000})
    reference = reference_of(sweep.cells())
    assert reference is not None
    assert uncertainty(reference) == (
        "Binomial standard error of its linear %: ±0.30 at fraction 1 (10,000 test images)."
    )


# The picture


def test_the_picture_has_each_difference_with_its_interval(sweep, monkeypatch):
    """The larger above; in colours what is separated."""
    kept = []

    def look(figure, path, title):
        kept.append((figure, title))
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", look)
    for seed, noise in ((1, 0.0), (2, 0.001), (3, 0.002)):
        sweep.finish(0.5, seed=seed)
        for subset, more in (("density", -0.1 + noise), ("herding", 0.01 - 10 * noise), ("sas", 0.1 - noise)):
            sweep.finish(0.5 + more, f"subset={subset}", seed=seed)
    found = compared(sweep.cells(), "random")
    assert found is not None
    assert worth_drawing(found)
    forest(found, ["linear %", "k-NN %"], sweep.folder / "x.png", "digits: differences")
    ((figure, title),) = kept
    assert title == "digits: differences from simclr random, fraction 1"
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["simclr sas", "simclr herding", "simclr density"]
    by_line = {one.cell.line: one.found["linear %"] for one in found.against}
    for i, (label, colour) in enumerate(zip(labels, ("tab:blue", "tab:grey", "tab:red"), strict=True)):
        point, _, (bar,) = figure.axes[0].containers[i]
        (x,), (y,) = point.get_data()
        assert (x, y) == (by_line[label].mean, figure.axes[0].get_yticks()[i])
        assert point.get_color() == colour
        np.testing.assert_allclose(bar.get_segments()[0][:, 0], [by_line[label].low, by_line[label].high])


def test_no_picture_of_what_seeds_cannot_separate(sweep):
    for seed in (1, 2):
        for subset in ("random", "sas", "density"):
            sweep.finish(0.5, f"subset={subset}", seed=seed)
    found = compared(sweep.cells(), "random")
    assert found is not None
    assert not worth_drawing(found)
    for subset in ("random", "sas"):
        sweep.finish(0.5, f"subset={subset}", seed=3)
    found = compared(sweep.cells(), "random")
    assert found is not None
    assert worth_drawing(found)


# The report


@pytest.fixture
def reported(sweep: Folder, capsys: Any) -> tuple[str, str]:
    """Three seeds of two methods, of which one is 10 points better, within a tenth: Markdown, and what is printed."""
    for seed in (1, 2, 3):
        sweep.finish(0.5 + seed / 10, seed=seed)
        sweep.finish(0.6 + seed / 10 + seed / 1000, "method=directclr", seed=seed)
    report([sweep.folder])
    return (sweep.folder / "report" / "report.md").read_text(encoding="utf-8"), capsys.readouterr().out


def test_what_is_separated_is_bold(reported):
    markdown, printed = reported
    section = markdown.partition("## Differences from simclr random, fraction 1")[2]
    assert "**+10.2 [+10.0, +10.4]**" in section
    assert "Warning" not in section
    assert "+10.2 [+10.0, +10.4]" in printed


def test_too_few_seeds_are_told(sweep, capsys):
    for method in ("simclr", "directclr"):
        sweep.finish(0.5, f"method={method}")
    report([sweep.folder])
    assert too_few(sweep.cells()) == "Warning: one seed in some cells: nothing is shown by so few."
    assert too_few(sweep.cells()) in capsys.readouterr().out


@pytest.mark.nightly
def test_the_page_has_the_table_too(browser, tmp_path: Path):
    sweep = Folder(tmp_path / "runs" / "grid")
    for seed in (1, 2, 3):
        sweep.finish(0.5 + seed / 10, seed=seed)
        sweep.finish(0.6 + seed / 10 + seed / 1000, "method=directclr", seed=seed)
    report([sweep.folder], reference="directclr")
    browser.open(sweep.folder / "report" / "report.html")
    (row,) = browser.table("Differences from directclr random, fraction 1")
    assert row["linear %"] == "-10.2 [-10.4, -10.0]"
    assert row["linear %"] in [cell.text for cell in browser.all("td.strong")]


def test_a_reference_that_some_evaluations_lack_is_that_of_the_others(sweep):
    """Of two methods, one was evaluated further, on two subsets."""
    for subset in ("random", "sas"):
        run = sweep.finish(0.5, f"subset={subset}")
        further(run, 0.2, "a", Protocol("digits", "", {"k": 1}))
        sweep.finish(0.6, "method=directclr", f"subset={subset}")
    report([sweep.folder], reference="directclr random")
    text = (sweep.folder / "report" / "report.md").read_text()
    assert text.count("## Differences from directclr random") == 1
    assert "k=1" in text
    with pytest.raises(UserError, match="'byol' names no line") as error:
        report([sweep.folder], reference="byol")
    assert "directclr random; directclr sas; simclr random" in str(error.value)
