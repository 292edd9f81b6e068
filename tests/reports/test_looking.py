"""Pictures of evaluations in report.html: what a run's page draws of each kind, and beside those of another run."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.evaluation.pictures import Picture, bars, curves, image, matrix, points, radar
from ssl_lightning.evaluation.protocol import Protocol
from ssl_lightning.pipeline.report import report
from ssl_lightning.runs.run import Run
from tests.reports.conftest import Browser
from tests.reports.test_html import CONTRASTS, NASTY
from tests.reports.test_protocols import further
from tests.reports.test_report import Folder
from tests.runs.test_pictures import png

NAN = float("nan")
LOOKING = Protocol("digits", "abc", {"suite": "Map"})
SHARES = {"blur": 0.75, "noise of a kind with a long name": 0.5, "fog": NAN, "snow": 0.25}


def of_every_kind(up: float = 0.0) -> list[Picture]:
    """Of an encoder that is better by `up`."""
    lines = {"one": ([0.2, 0.6, 1], [0.1, 0.5 + up, 0.8]), "other": ([0.2, 0.6, 1], [0.3, NAN, 0.4])}
    plane = [[0, 0], [4, 0], [4, 2], [0, 2], [NAN, 0]]
    pictures = [
        curves("Reliability", "probability", "share", lines, diagonal=True),
        points("Map", plane, [0, 0, 1, 12, 1], "5 of 9 images"),
        matrix("Confusion", "label", "named", [[0.9 + up, 0.1, 0], [0, NAN, 1], [0.001, 0, 0.999]]),
        bars("By class", "%", {"0": 98.765 + up, "a name that is much too long for it": 50, "2": NAN}),
        radar("Corruptions", {name: share + up for name, share in SHARES.items()}, dict.fromkeys(SHARES, 0.125)),
        image("Nearest", png(), "left: test images"),
    ]
    return pictures


class Looked(NamedTuple):
    page: Path
    first: Run
    second: Run
    third: Run


@pytest.fixture(scope="module")
def looked(tmp_path_factory) -> Iterator[Looked]:
    """The first two runs have pictures; the third has others of the same name, of other data."""
    folder = Folder(tmp_path_factory.mktemp("looked") / "runs" / "grid")
    runs = [folder.finish(0.5, seed=seed) for seed in (1, 2, 3)]
    untrained = {**bars("By class", "%", {"0": 10.0}), "title": "By class, untrained"}
    more: Mapping[str, Any] = {"columns": {"linear/top1": "linear %"}, "untrained": {"linear/top1": 0.125}}
    further(runs[0], 0.25, "map", LOOKING, pictures=[*of_every_kind(), untrained], **more)
    further(runs[1], 0.75, "map", LOOKING, pictures=of_every_kind(0.05))
    further(runs[2], 0.75, "map", Protocol("digits", "def", {"suite": "Map"}), pictures=of_every_kind())
    report([folder.folder])
    yield Looked(folder.folder / "report" / "report.html", *runs)
    HydraConfig.instance().cfg = None


class Drawing:
    """A figure of the page that is open."""

    def __init__(self, browser: Browser, title: str, within: str = "") -> None:
        (self.node,) = [
            figure for figure in browser.all(f"{within} figure.picture") if title == _first_line(figure.text)
        ]
        self.browser = browser

    def values(self, selector: str, *names: str) -> list[list[str]]:
        script = """
          const [figure, selector, names] = arguments;
          return [...figure.querySelectorAll(selector)].map((node) => names.map((name) => node.getAttribute(name)));
        """
        return self.browser.run(script, self.node, selector, names)

    def texts(self, selector: str) -> list[str]:
        script = "return [...arguments[0].querySelectorAll(arguments[1])].map((node) => node.textContent)"
        return self.browser.run(script, self.node, selector)

    def numbers(self, selector: str, *names: str) -> list[list[float]]:
        return [[float(value) for value in values] for values in self.values(selector, *names)]

    @property
    def about(self) -> str:
        ((label,),) = self.values("svg[role=img]", "aria-label")
        return label


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def test_metrics_stand_beside_the_pictures(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    name = "Evaluation: Map"
    assert browser.table(name) == [{"metric": "linear/top1", "trained": "0.25", "untrained": "0.125"}]
    table, pictures = (browser.find(f".evaluation > {part}").rect for part in (".scroll", ".pictures"))
    assert table["x"] + table["width"] <= pictures["x"]
    assert [figure.get_attribute("data-kind") for figure in browser.all("figure.picture")] == [
        *("curves", "points", "matrix", "bars", "bars", "radar", "image"),
    ]
    first, second = (Drawing(browser, f"By class{untrained}, %").node.rect for untrained in ("", ", untrained"))
    assert first["y"] == second["y"]
    assert first["x"] + first["width"] < second["x"]


def test_curves(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "Reliability")
    assert drawn.texts(".line title") == ["x = y", "one", "other"]
    lines = [
        [tuple(map(float, at.split(","))) for at in line.split()] for (line,) in drawn.values("polyline", "points")
    ]
    assert [len(line) for line in lines] == [2, 3, 2]  # NaN is left out
    (left, bottom), (right, top) = lines[0]
    assert left < right
    assert top < bottom
    x, y = zip(*lines[1], strict=True)  # both axes go from 0 to 1
    assert x == pytest.approx([left + share * (right - left) for share in (0.2, 0.6, 1)], abs=0.1)
    assert y == pytest.approx([bottom + share * (top - bottom) for share in (0.1, 0.5, 0.8)], abs=0.1)
    assert {"probability", "share", "0.5", "1"} <= set(drawn.texts("text"))
    assert drawn.texts(".legend li") == ["one", "other"]
    assert drawn.about == (
        "Reliability: share against probability. one: 0.1 at 0.2, 0.8 at 1; other: 0.3 at 0.2, 0.4 at 1"
    )


def test_points(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "Map")
    assert [len(drawn.values(f".dots:nth-of-type({i}) path", "d")) for i in (1, 2, 3)] == [2, 1, 1]
    assert drawn.texts(".dots title") == ["class 0", "class 1", "class 12"]
    assert drawn.values(".dots", "class") == [["dots c0"], ["dots c1"], ["dots c2"]]
    assert drawn.texts(".legend li") == ["0", "1", "12"]
    assert drawn.values(".legend g", "class") == [["c0"], ["c1"], ["c2"]]
    script = (
        "const style = getComputedStyle(arguments[0].querySelector('.legend path')); return [style.fill, style.color]"
    )
    fill, colour = browser.run(script, drawn.node)
    assert fill == colour  # else black, on dark too
    corners = [
        tuple(map(float, place.removeprefix("translate(").removesuffix(")").split(",")))
        for (place,) in drawn.values(".dots path", "transform")
    ]
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = corners
    assert (y0, x1, y2, x3) == (y1, x2, y3, x0)
    assert x1 - x0 == pytest.approx(2 * (y1 - y2), abs=0.2)  # one scale for both, and up is up
    assert "5 of 9 images" in drawn.node.text
    assert drawn.about == "Map: 4 points of 3 classes"


@pytest.mark.nightly
def test_many_classes_have_no_legend(browser, tmp_path):
    folder = Folder(tmp_path / "runs" / "grid")
    run = folder.finish(0.5)
    many = points("Map", [[i, i * i] for i in range(30)], range(30))
    tall = bars("By class", "%", {str(i): i for i in range(100)})
    wide = matrix("Confusion", "label", "named", [[float(i == j) for j in range(30)] for i in range(30)])
    further(run, 0.25, "map", LOOKING, pictures=[many, tall, wide])
    report([folder.folder])
    browser.open(folder.folder / "report" / "report.html", f"#run={run.id}")
    drawn = Drawing(browser, "Map")
    assert drawn.values(".legend", "class") == []
    assert "30 classes: the pointer says which." in drawn.node.text
    looks = zip(drawn.values(".dots path", "d"), drawn.values(".dots", "class"), strict=True)
    assert len({(*shape, *colour) for shape, colour in looks}) == 24  # three shapes of eight colours
    drawn = Drawing(browser, "By class, %")
    assert len(drawn.values("rect.bar", "width")) == 100
    assert drawn.about == "By class, %: 100 values, lowest 0 0, highest 99 99"
    assert drawn.node.rect["height"] < 600
    drawn = Drawing(browser, "Confusion")
    assert len(drawn.values("rect.heat", "x")) == 900
    assert drawn.values("text.share", "x") == []
    assert drawn.numbers("rect.heat:first-of-type", "fill-opacity") == [[1]]
    HydraConfig.instance().cfg = None


def test_a_matrix(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "Confusion")
    assert drawn.texts("rect.heat title")[:3] == [f"label 0, named {j}: {v} %" for j, v in enumerate((90, 10, 0))]
    assert drawn.texts("rect.heat title")[4] == "label 1, named 1: –"
    assert drawn.texts("text.share") == ["90", "10", "–", "100", "100"]  # what rounds to 0 is left out
    opacities = [opacity for (opacity,) in drawn.numbers("rect.heat", "fill-opacity")]
    assert opacities == pytest.approx([value**0.5 / 2 for value in (0.9, 0.1, 0, 0, 0, 1, 0.001, 0, 0.999)], abs=6e-4)
    places = drawn.numbers("rect.heat", "x", "y")
    assert places[1][0] > places[0][0]
    assert places[1][1] == places[0][1] < places[3][1]
    assert {"label", "named"} <= set(drawn.texts("text"))
    assert drawn.about == "Confusion: 3 by 3 shares, label by named, on the diagonal 94.95 % in the mean"


def test_bars(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "By class, %")
    assert drawn.texts("text.value") == ["98.77", "50", "–"]
    (full,), (half,), (none,) = drawn.numbers("rect.bar", "width")
    assert half / full == pytest.approx(50 / 98.77, rel=1e-2)
    assert none == 0
    assert drawn.texts("rect.bar title")[1] == "a name that is much too long for it: 50 %"
    (cut,) = (text for text in drawn.texts("text") if "…" in text)
    assert cut.startswith("a name")
    assert drawn.about == "By class, %: 0 98.77, a name that is much too long for it 50"


def test_a_radar(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "Corruptions")
    assert drawn.texts("circle.point title") == [
        "blur: 75 %",
        "noise of a kind with a long name: 50 %",
        "snow: 25 %",
    ]
    (radius,) = drawn.numbers("circle.ring:last-of-type", "r")[-1]
    (cx, cy) = drawn.numbers("circle.ring", "cx", "cy")[0]
    (up, right, left) = drawn.numbers("circle.point", "cx", "cy")
    assert up == pytest.approx([cx, cy - 0.75 * radius], abs=0.1)
    assert right == pytest.approx([cx + 0.5 * radius, cy], abs=0.1)
    assert left == pytest.approx([cx - 0.25 * radius, cy], abs=0.1)
    assert [len(corners.split()) for (corners,) in drawn.values("polygon", "points")] == [4, 3, 3]
    assert drawn.values(".line", "class") == [["line c1 d1"], ["line c0 d0"]]
    assert drawn.texts(".legend li") == ["trained", "untrained"]
    assert drawn.values(".legend g", "class") == [["c0 d0"], ["c1 d1"]]
    assert {"blur", "fog", "snow"} <= set(drawn.texts("text"))
    assert "Untrained: blur 12.5 %" in drawn.about


def test_an_image(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    drawn = Drawing(browser, "Nearest")
    ((alt,),) = drawn.values("img", "alt")
    assert alt == "Nearest"
    shown = browser.run("return arguments[0].querySelector('img').decode().then(() => true)", drawn.node)
    assert shown
    (size,) = browser.run(
        "return [...arguments[0].querySelectorAll('img')].map((i) => [i.naturalWidth, i.className])", drawn.node
    )
    assert size == [3, "small"]
    assert "left: test images" in drawn.node.text


@pytest.mark.nightly
@pytest.mark.parametrize("width", [1280, 375])
def test_two_runs_side_by_side(browser, looked, width):
    from selenium.webdriver.support.ui import Select

    browser.emulate(width)
    browser.open(looked.page, f"#run={looked.first.id}")
    alone = len(browser.all("figure.picture"))
    others = Select(browser.find("select"))
    others.select_by_visible_text(looked.second.id)
    assert len(browser.all("figure.picture")) == alone + 12  # the untrained one has no counterpart
    for title in ("Reliability", "Map", "Confusion", "By class, %", "Corruptions", "Nearest"):
        ours, theirs = (Drawing(browser, f"{whose}: {title}").node.rect for whose in ("this run", "the other"))
        if width == 1280:
            assert ours["y"] == theirs["y"]
            assert ours["x"] + ours["width"] < theirs["x"]
        else:
            assert ours["x"] == theirs["x"]
            assert ours["y"] + ours["height"] < theirs["y"]
    ours, theirs = (Drawing(browser, f"{whose}: Confusion") for whose in ("this run", "the other"))
    assert (ours.texts("text.share")[0], theirs.texts("text.share")[0]) == ("90", "95")
    others.select_by_visible_text(looked.third.id)
    assert len(browser.all("figure.picture")) == alone  # an evaluation on other data
    others.select_by_index(0)
    assert len(browser.all("figure.picture")) == alone


INSIDE = """
  return [...document.querySelectorAll(".picture svg[role=img]")].flatMap((svg) => {
    const whole = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("text, rect, polyline, polygon, circle, path")].filter((node) => {
      const box = node.getBoundingClientRect();
      return box.left < whole.left - 1 || box.right > whole.right + 1
        || box.top < whole.top - 1 || box.bottom > whole.bottom + 1;
    }).map((node) => `${svg.getAttribute("aria-label").slice(0, 20)}: ${node.outerHTML.slice(0, 120)}`);
  });
"""
LEGIBLE = """
  return [...document.querySelectorAll(".picture svg text")].map((text) => {
    const { a, b } = text.getScreenCTM(); // some are turned
    return Number.parseFloat(getComputedStyle(text).fontSize) * Math.hypot(a, b);
  });
"""


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_nothing_is_clipped_or_too_small(browser, looked, width):
    from selenium.webdriver.support.ui import Select

    browser.emulate(width)
    browser.open(looked.page, f"#run={looked.first.id}")
    Select(browser.find("select")).select_by_visible_text(looked.second.id)
    assert browser.run(INSIDE) == []
    assert min(browser.run(LEGIBLE)) >= (9.5 if width == 320 else 11)
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser, looked, scheme):
    browser.emulate(scheme=scheme)
    browser.open(looked.page, f"#run={looked.first.id}")
    ratios, _ = browser.run(CONTRASTS)
    assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}


def test_every_picture_says_what_it_is(browser, looked):
    browser.open(looked.page, f"#run={looked.first.id}")
    for figure in browser.all("figure.picture"):
        title = figure.find_element("css selector", "figcaption").text
        labels = [svg.get_attribute("aria-label") for svg in figure.find_elements("css selector", "svg[role=img]")]
        labels += [image.get_attribute("alt") for image in figure.find_elements("css selector", "img")]
        assert [label[: len(title)] for label in labels] == [title]


# Foreign files


@pytest.mark.nightly
def test_hostile_words_stay_text(browser, tmp_path):
    folder = Folder(tmp_path / "runs" / "grid")
    run = folder.finish(0.5)
    hostile = [
        curves(NASTY, NASTY, NASTY, {NASTY: ([0, 1], [0, 1])}),
        points(NASTY, [[0, 0]], [-5], NASTY),
        matrix(NASTY, NASTY, NASTY, [[1]]),
        bars(NASTY, NASTY, {NASTY: 5}),
        radar(NASTY, {NASTY: 5}, {NASTY: -1}),
        image(NASTY, png(), NASTY),
    ]
    further(run, 0.25, "map", LOOKING, pictures=hostile)
    report([folder.folder])
    page = folder.folder / "report" / "report.html"
    assert "<img" not in page.read_text(encoding="utf-8")
    browser.open(page, f"#run={run.id}")
    assert browser.driver.title == run.id
    assert browser.run("return document.scripts.length") == 2
    assert [caption.text for caption in browser.all(".picture figcaption")] == [
        f"{NASTY}, {NASTY}" if kind == "bars" else NASTY
        for kind in ("curves", "points", "matrix", "bars", "radar", "image")
    ]
    assert [image.get_attribute("src")[:15] for image in browser.all("img")] == ["data:image/png;"]
    browser.emulate(375)
    assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
    HydraConfig.instance().cfg = None


@pytest.mark.nightly
def test_extreme_and_missing_numbers(browser, tmp_path):
    folder = Folder(tmp_path / "runs" / "grid")
    run = folder.finish(0.5)
    empty = [
        curves("a", "x", "y", {"": ([NAN], [1])}),
        points("b", [], []),
        matrix("c", "r", "c", []),
        bars("d", "", {"a": NAN}),
        radar("e", {}),
    ]
    extreme = [
        curves("f", "x", "y", {"": ([-1e99, 1e99], [0, 1e99])}, diagonal=True),
        points("g", [[1e99, -1e-99], [0, 0]], [0, 1]),
        matrix("h", "r", "c", [[1e99, -5], [0, 0]]),
        bars("i", "", {"a": 1e99, "b": -1e99}),
        radar("j", {"a": 1e99, "b": -1}),
    ]
    further(run, 0.25, "map", LOOKING, pictures=[*empty, *extreme])
    report([folder.folder])
    browser.open(folder.folder / "report" / "report.html", f"#run={run.id}")
    assert [figure.text.endswith("It has no numbers.") for figure in browser.all("figure.picture")] == [
        *([True] * 5),
        *([False] * 5),
    ]
    assert browser.run(INSIDE) == []
    HydraConfig.instance().cfg = None


def test_ticks_of_numbers_that_hardly_differ(browser, looked):
    browser.open(looked.page)
    assert browser.run("return ticks(0, 10)") == [0, 5, 10]
    assert browser.run("return ticks(1e14, 1e14 + 1)") == [1e14]  # at larger ones, a step would be lost in rounding


@pytest.mark.nightly
def test_a_damaged_picture_is_named_and_stops_no_other(browser, tmp_path, capsys):
    folder = Folder(tmp_path / "runs" / "grid")
    damaged, whole = folder.finish(0.5, seed=1), folder.finish(0.7, seed=2)
    for run in (damaged, whole):
        further(run, 0.25, "map", LOOKING, pictures=of_every_kind())
    file = damaged.evaluation_file("map")
    content = json.loads(file.read_text())
    content["pictures"][-1]["png"] = "PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+"
    file.write_text(json.dumps(content))
    report([folder.folder])
    said = " ".join(capsys.readouterr().out.split())
    assert f"{file} is damaged: its pictures.5.png is 'PHN2" in said
    page = folder.folder / "report" / "report.html"
    browser.open(page, f"#run={damaged.id}")
    assert browser.table("Metrics")
    assert browser.all("figure.picture") == []
    browser.open(page, f"#run={whole.id}")
    assert len(browser.all("figure.picture")) == 6
    HydraConfig.instance().cfg = None
