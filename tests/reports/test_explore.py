"""Charts of report.html that the reader chooses: any metric of all cells, and curves of all runs."""

import statistics
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.files import write_text
from ssl_lightning.pipeline.report import report
from tests.reports.conftest import TOP1, Browser, Sweeps
from tests.reports.test_report import Folder

CHART = """
const titled = (node) => node.querySelector("h2").textContent === arguments[0];
const section = [...document.querySelectorAll("section")].find(titled);
const labels = [...section.querySelectorAll("label")];
const labelled = (text) => labels.find((label) => label.firstChild.data === text).control;
"""


class Chart:
    """One of the two, in the page that is open."""

    def __init__(self, browser: Browser, title: str) -> None:
        self.browser, self.title = browser, title

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.browser.run(CHART + script, self.title, *arguments)

    def choose(self, label: str, option: str) -> None:
        self.ask(
            """
            const select = labelled(arguments[1]);
            select.value = arguments[2];
            select.dispatchEvent(new Event("change"));
            """,
            label,
            option,
        )

    def options(self, label: str) -> list[str]:
        return self.ask(
            """
            const select = labelled(arguments[1]);
            return [...select.options].map((option) => option.value);
            """,
            label,
        )

    def filter(self, words: str) -> None:
        self.ask(
            """
            const input = section.querySelector("input");
            input.value = arguments[1];
            input.dispatchEvent(new Event("input"));
            """,
            words,
        )

    def lines(self) -> dict[str, dict[str, Any]]:
        """By name: class, corners, centres of marks, and the two ends of each bar, as numbers of pixels."""
        return self.ask(
            """
            const values = (node, names) => names.map((name) => Number(node.getAttribute(name)));
            return Object.fromEntries([...section.querySelectorAll("svg .line")].map((g) => [
              g.querySelector("title").textContent,
              {
                style: g.classList[1],
                corners: (g.querySelector("polyline")?.getAttribute("points") ?? "").split(" ").filter(Boolean)
                  .map((corner) => corner.split(",").map(Number)),
                marks: [...g.querySelectorAll("circle")].map((node) => values(node, ["cx", "cy"])),
                bars: [...g.querySelectorAll("line")].map((node) => values(node, ["y1", "y2"])),
                address: g.parentNode.getAttribute("href"),
              },
            ]));
            """
        )

    def scale(self) -> list[tuple[float, float]]:
        """Number and height of each line of the grid."""
        return self.ask(
            """
            const grid = [...section.querySelectorAll("svg .grid")];
            return grid.map((l) => [Number(l.nextSibling.textContent), Number(l.getAttribute("y1"))]);
            """
        )

    def legend(self) -> list[str]:
        return self.ask('return [...section.querySelectorAll(".legend li")].map((item) => item.textContent);')

    def value(self, height: float) -> float:
        """That stands at a height, by the numbers of the grid."""
        (low, bottom), (high, top) = self.scale()[0], self.scale()[-1]
        return low + (high - low) * (height - bottom) / (top - bottom)


@pytest.fixture
def metrics(browser: Browser, sweeps: Sweeps) -> Chart:
    browser.open(sweeps.page)
    return Chart(browser, "Any metric")


@pytest.fixture
def curves(browser: Browser, sweeps: Sweeps) -> Chart:
    browser.open(sweeps.page)
    return Chart(browser, "Curves of all runs")


def test_means_and_deviations_are_those_of_the_seeds(metrics, sweeps):
    """sweeps: two seeds of SimCLR at each fraction, and one DirectCLR."""
    lines = metrics.lines()
    assert sorted(lines) == [
        "directclr digits random epochs standard",
        "simclr digits random epochs standard",
    ]
    line = lines["simclr digits random epochs standard"]
    means = [metrics.value(y) for _, y in line["marks"]]
    by_fraction = {
        fraction: [100 * run.results()["metrics"]["linear/top1"] for run in sweeps.finished[2 * i : 2 * i + 2]]
        for i, fraction in enumerate(TOP1)
    }
    assert means == pytest.approx([statistics.fmean(of) for of in by_fraction.values()], abs=0.3)
    assert line["corners"] == line["marks"]
    metrics.choose("Show", "train_seconds")
    assert [
        metrics.value(y) for _, y in metrics.lines()["simclr digits random epochs standard"]["marks"]
    ] == pytest.approx([5, 20, 50, 100], abs=0.5)


@pytest.mark.nightly
def test_bars_are_one_deviation_to_either_side(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    for fraction, values in ((0.5, (0.2, 0.4)), (1.0, (0.7, 0.8, 0.9))):
        for seed, value in enumerate(values):
            sweep.finish(value, fraction=fraction, seed=seed)
    report([sweep.folder])
    HydraConfig.instance().cfg = None
    browser.open(sweep.folder / "report" / "report.html")
    chart = Chart(browser, "Any metric")
    (line,) = chart.lines().values()
    ends = [sorted(map(chart.value, bar)) for bar in line["bars"]]
    assert ends[0] == pytest.approx([30 - 14.14, 30 + 14.14], abs=0.3)
    assert ends[1] == pytest.approx([70, 90], abs=0.3)
    assert chart.options("colours by") == ["method"]


def test_any_measured_quantity_can_be_shown_against_any(metrics):
    names = metrics.options("Show")
    assert names[:2] == ["fraction", "images"]
    assert {"linear %", "k-NN %", "5-shot %", "RankMe r", "train_seconds", "images_per_second"} <= set(names)
    assert metrics.options("against") == names
    metrics.choose("against", "train_seconds")
    metrics.choose("Show", "RankMe r")
    found = metrics.lines()["simclr digits random epochs standard"]["marks"]
    assert len(found) == len(TOP1)
    assert found == sorted(found)


def test_what_a_cell_lacks_leaves_a_gap(metrics):
    metrics.choose("Show", "5-shot %")  # not measured at 0.2
    assert len(metrics.lines()["simclr digits random epochs standard"]["marks"]) == len(TOP1) - 1


@pytest.mark.nightly
def test_colours_and_words(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    for overrides in (("method=directclr",), (), ("batch_size=128",), ("batch_size=128", "method=directclr")):
        sweep.finish(0.5, *overrides)
    report([sweep.folder])
    HydraConfig.instance().cfg = None
    browser.open(sweep.folder / "report" / "report.html")
    chart = Chart(browser, "Any metric")
    assert chart.options("colours by") == ["method", "variant"]
    assert chart.legend() == ["directclr", "simclr"]
    assert {(name[:3], line["style"]) for name, line in chart.lines().items()} == {("dir", "c0"), ("sim", "c1")}
    chart.choose("colours by", "variant")
    assert chart.legend() == ["batch_size=128", "batch_size=256"]
    chart.filter("DIRECT 128")
    assert list(chart.lines()) == ["directclr digits random epochs standard batch_size=128"]
    chart.filter("variant=*256 linear>=50 fraction<2")
    assert {(name.rpartition("=")[2], line["style"]) for name, line in chart.lines().items()} == {("256", "c1")}
    chart.filter("nothing of the kind")
    assert chart.lines() == {}
    assert "Nothing of this was measured." in chart.ask("return section.textContent;")


def test_curves_of_all_runs_lie_over_one_another(browser, curves, sweeps):
    assert curves.options("Show") == ["lr", "loss", "online/val_top1"]
    assert {name: line["address"] for name, line in curves.lines().items()} == {
        sweeps.finished[0].id: f"#run={sweeps.finished[0].id}"  # which alone has logged something
    }
    curves.choose("Show", "loss")
    (line,) = curves.lines().values()
    assert len(line["corners"]) >= 100
    assert curves.value(line["corners"][0][1]) == pytest.approx(5, abs=0.05)
    browser.run(
        "document.querySelector('svg a').dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true}))"
    )
    browser.wait("h1", sweeps.finished[0].id)


@pytest.mark.nightly
def test_runs_that_have_logged_the_same(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    for seed in (1, 2):
        for method in ("simclr", "directclr"):
            run = sweep.finish(0.5, f"method={method}", seed=seed)
            write_text(run.metrics_file, f"step,epoch,loss\n10,0,{seed}\n30,1,{seed / 2}\n")
    report([sweep.folder])
    HydraConfig.instance().cfg = None
    browser.open(sweep.folder / "report" / "report.html")
    chart = Chart(browser, "Curves of all runs")
    assert chart.options("colours by") == ["method", "seed"]
    styles = {name[:3]: line["style"] for name, line in chart.lines().items()}
    assert styles == {"dir": "c0", "sim": "c1"}
    assert {name[:3]: line["style"] for name, line in Chart(browser, "Any metric").lines().items()} == styles
    chart.filter("simclr")
    assert {line["style"] for line in chart.lines().values()} == {"c1"}
    chart.filter("")
    chart.choose("colours by", "seed")
    assert chart.legend() == ["1", "2"]
    lines = chart.lines()
    assert len(lines) == 4
    assert {line["style"] for name, line in lines.items() if "-s1-" in name} == {"c0"}
    assert {chart.value(line["corners"][0][1]) for name, line in lines.items() if "-s2-" in name} == {2}
    chart.filter("directclr -s1-")
    assert len(chart.lines()) == 1


@pytest.mark.nightly
def test_pictures_of_several_datasets_are_folded_up(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    sweep.finish(0.5)
    sweep.finish(0.6, "dataset=fashion_mnist", "paths.data=/nowhere")
    report([sweep.folder])
    HydraConfig.instance().cfg = None
    page: Path = sweep.folder / "report" / "report.html"
    browser.open(page)
    summaries = browser.all("details > summary")
    assert [summary.text for summary in summaries] == ["digits", "fashion_mnist"]
    shown = browser.run("return [...document.querySelectorAll('.plots img')].map((image) => image.checkVisibility())")
    assert sorted(shown) == [False] * 3 + [True] * 3
    markdown = page.with_name("report.md").read_text(encoding="utf-8")
    assert markdown.count("![") == 6
    first, folded = markdown.split("<details><summary>fashion_mnist</summary>")
    assert first.count("![") == folded.count("![") == 3
