"""report.html in a real browser: it says what report.md says, by mouse and keyboard, and nothing in it is foreign."""

import json
import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.evaluation.protocol import Protocol
from ssl_lightning.files import write_text
from ssl_lightning.pipeline.parts import identity_of
from ssl_lightning.pipeline.report import report
from ssl_lightning.runs.run import Run
from tests.reports.test_protocols import further
from tests.reports.test_report import Folder, config_of, results_of, rows

NASTY = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\"><!--"
NASTY_NAME = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def nasty(tmp_path_factory) -> Iterator[tuple[Path, Run, Run]]:
    """A report of runs whose every word tries to become a part of the page."""
    folder = tmp_path_factory.mktemp("nasty") / "runs" / "grid"
    made = []
    for seed in (1, 2):
        config = config_of(seed=seed)
        config["sweep"] = NASTY
        config["dataset"]["name"] = NASTY_NAME
        identity = identity_of(config, {})
        run = Run(folder / f"{seed}-{identity.digest}")
        if seed == 1:
            with run.locked(identity, config):
                run.finish(results_of(config, 0.5) | {"environment": {"device": NASTY}})
        else:
            with pytest.raises(ValueError, match="<script>"), run.locked(identity, config):
                raise ValueError(NASTY)
        made.append(run)
    report([folder])
    yield folder / "report" / "report.html", made[0], made[1]
    HydraConfig.instance().cfg = None


def test_the_comparison_is_that_of_markdown(browser, sweeps):
    browser.open(sweeps.page)
    shown = browser.table("Comparison")
    assert shown == rows(sweeps.text)
    assert {row["method"] for row in shown} == {"untrained", "simclr", "directclr"}
    (heading,) = re.findall("^# (.*)$", sweeps.text, re.M)
    assert browser.find("h1").text == browser.driver.title == heading


def test_where_time_went_is_that_of_markdown(browser, sweeps):
    browser.open(sweeps.page)
    shown = browser.table("Seconds")
    assert shown == rows(sweeps.text.partition("\n## Seconds\n")[2])
    assert [row["training"] for row in shown if row["method"] == "directclr"] == ["10.0"]
    assert "waiting: for data, a part of training" in browser.find("main").text


def test_all_runs_are_listed(browser, sweeps):
    browser.open(sweeps.page)
    found = {row["id"]: row for row in browser.table("Runs")}
    assert set(found) == {run.id for run in (*sweeps.finished, sweeps.tuned, sweeps.failed, sweeps.begun)}
    assert found[sweeps.finished[0].id] == {
        "status": "finished",
        "method": "simclr",
        "dataset": "digits",
        "subset": "random",
        "fraction": "0.05",
        "seed": "1",
        "linear %": "9.8",
        "k-NN %": "4.9",
        "5-shot %": "2.5",
        "RankMe r": "9.8",
        "seconds": "5.0",
        "images/s": "1234",
        "id": sweeps.finished[0].id,
        "error": "",
    }
    failed, begun = found[sweeps.failed.id], found[sweeps.begun.id]
    assert (failed["status"], failed["linear %"]) == ("failed", "–")
    assert failed["error"].startswith("ValueError: no luck at all (")
    assert [begun[key] for key in ("status", "method", "dataset", "subset", "fraction", "seed", "error")] == [
        *("unfinished", "simclr", "digits", "random", "0.05", "4", ""),
    ]
    assert f"{len(found)} runs: 9 finished, 1 failed, 1 unfinished" in browser.find("main").text


def test_a_click_on_a_head_sorts_numbers_as_numbers(browser, sweeps):
    browser.open(sweeps.page)
    head = browser.head("Runs", "linear %")
    assert head.get_attribute("aria-sort") is None
    up = browser.sort("Runs", "linear %")
    values = ["9.8", "9.8", "50.0", "50.0", "60.0", "70.3", "70.3", "100.0", "100.0"]
    assert up == [*values, "–", "–"]
    assert head.get_attribute("aria-sort") == "ascending"
    assert browser.sort("Runs", "linear %") == [*reversed(values), "–", "–"]
    assert head.get_attribute("aria-sort") == "descending"
    assert browser.sort("Runs", "fraction") == sorted((row["fraction"] for row in browser.table("Runs")), key=float)
    assert head.get_attribute("aria-sort") is None
    assert [th.text for th in browser.all("th[aria-sort]")] == [browser.head("Runs", "fraction").text]


def test_missing_means_come_last_and_words_sort_too(browser, sweeps):
    browser.open(sweeps.page)
    five_shot = browser.sort("Comparison", "5-shot %")
    assert five_shot[-2:] == ["–", "–"]  # the untrained encoders' and those of a fraction
    assert five_shot[:-2] == sorted(five_shot[:-2], key=lambda text: float(text.partition(" ")[0]))
    assert browser.sort("Comparison", "5-shot %") == [*reversed(five_shot[:-2]), "–", "–"]
    methods = browser.sort("Comparison", "method")
    assert methods == sorted(methods)
    assert browser.sort("Comparison", "method") == sorted(methods, reverse=True)


def test_a_filter_looks_into_every_column(browser, sweeps):
    browser.open(sweeps.page)
    assert browser.filter(-1, "") == "11 of 11 rows"
    assert browser.filter(-1, "DirectCLR") == "1 of 11 rows"
    assert [row["id"] for row in browser.table("Runs")] == [sweeps.tuned.id]
    assert browser.filter(-1, "no luck") == "1 of 11 rows"
    assert [row["id"] for row in browser.table("Runs")] == [sweeps.failed.id]
    assert browser.filter(-1, "finished simclr 70.3") == "2 of 11 rows"
    assert browser.filter(-1, "nothing of the kind") == "0 of 11 rows"
    assert browser.table("Runs") == []
    assert len(browser.table("Comparison")) == 6  # has its own
    assert browser.filter(0, "untrained") == "1 of 6 rows"
    assert browser.filter(-1, "") == "11 of 11 rows"


def test_a_filter_compares_numbers(browser, sweeps):
    browser.open(sweeps.page)

    def kept(words: str) -> list[str]:
        browser.filter(-1, words)
        return sorted({row["linear %"] for row in browser.table("Runs")})

    assert kept("linear>60") == ["100.0", "70.3"]
    assert kept("linear>=60 linear<100") == ["60.0", "70.3"]
    assert kept("linear%=50") == ["50.0"]
    assert kept("k-NN>34 fraction<1") == ["70.3"]
    assert kept("knn>34 simclr fraction<=0.5") == ["70.3"]
    assert kept("rankme<10") == ["9.8"]  # what is missing is not less
    assert kept("seed=3") == ["–"]
    assert kept("5-shot>=0 fraction=0.2") == []
    assert kept("seed!=1 linear>60") == ["100.0", "70.3"]
    assert kept("method=dir*") == ["60.0"]
    assert kept("METHOD!=directclr linear>=60") == ["100.0", "70.3"]
    assert kept("method.temperature=0.7") == ["60.0"]  # a setting, no column
    assert kept('"no luck at"') == ["–"]
    browser.filter(0, "linear>60")
    assert {row["method"] for row in browser.table("Comparison")} == {"simclr"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("method>3", "method>3: method has words, no numbers. Try = or !=."),
        ("simclr linear>much", "linear>much: much is no number. Try = or !=."),
        ("s=3", "s=3: s may be status, subset, seed, seconds. Write more of it."),
        ("metod=simclr", "metod=simclr: no column begins with metod. There are status, method, "),
        ("seed=", "seed= compares with nothing"),
    ],
)
def test_a_wrong_filter_is_told_in_a_line_and_keeps_nothing(browser, sweeps, words, said):
    browser.open(sweeps.page)
    assert browser.filter(-1, words).startswith(said)
    assert browser.table("Runs") == []
    assert browser.filter(-1, "simclr").endswith(" of 11 rows")


@pytest.mark.nightly
def test_by_keyboard(browser, sweeps):
    """Tab and Enter reach what a mouse does: sort, then open a run, and come back to where one was."""
    from selenium.webdriver.common.keys import Keys

    browser.open(sweeps.page)
    browser.all("input[type=search]")[0].click()

    def active() -> Any:
        return browser.driver.switch_to.active_element

    for column in (None, "method", "fraction"):  # the region that scrolls, then its heads
        active().send_keys(Keys.TAB)
        assert column is None or active().text == column
    active().send_keys(Keys.ENTER)
    assert browser.head("Comparison", "fraction").get_attribute("aria-sort") == "ascending"
    while active().tag_name != "a":
        active().send_keys(Keys.TAB)
    link, opened = active(), active().text
    link.send_keys(Keys.ENTER)
    browser.wait("h1", opened)
    assert active().tag_name == "h1"
    browser.back()
    assert active() == link


# The page of a run


def test_a_run_s_page_and_back(browser, sweeps):
    run = sweeps.finished[0]
    browser.open(sweeps.page)
    browser.sort("Runs", "seconds")
    browser.filter(-1, "0.05")
    before = browser.table("Runs")
    browser.go(run)
    assert browser.driver.current_url.endswith(f"#run={run.id}")
    assert browser.driver.title == run.id
    assert not browser.all('table[aria-label="Comparison"]')
    browser.back()
    assert browser.table("Runs") == before
    assert browser.all("input[type=search]")[-1].get_attribute("value") == "0.05"
    assert browser.driver.title == browser.find("h1").text != run.id
    browser.all("tr.link:not([hidden]) td")[0].click()  # a row leads where its link does
    browser.wait("h1", before[0]["id"])


def test_what_a_run_s_page_shows(browser, sweeps):
    run = sweeps.finished[0]
    browser.open(sweeps.page, f"#run={run.id}")
    config = {row["key"]: row["value"] for row in browser.table("Config")}
    assert config == dict(flat(run.config()))
    assert config["subset.fraction"] == "0.05"
    assert config["augment.views.0.copies"] == "2"
    assert config["checkpoint.every_steps"] == "null"
    assert config["logger"] == "{}"
    metrics = {row["metric"]: (row["trained"], row["untrained"]) for row in browser.table("Metrics")}
    assert metrics["linear/top1"] == ("0.098", "0.06")
    assert metrics["representation/rankme"] == ("9.8", "–")
    assert metrics.keys() == run.results()["metrics"].keys()
    assert browser.table("Cost") == [
        {"quantity": "train_seconds", "value": "5.0"},
        {"quantity": "images_per_second", "value": "1234.5"},
    ]
    assert {"property": "versions.torch", "value": "2.10.0"} in browser.table("Environment")
    assert {"property": "size", "value": "50"} in browser.table("Mask")


def flat(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """An independent way to say what config.yaml holds."""
    if isinstance(node, dict) and node:
        for name, value in node.items():
            yield from flat(value, f"{key}.{name}".lstrip("."))
    elif isinstance(node, list) and "{" in str(node):
        for i, value in enumerate(node):
            yield from flat(value, f"{key}.{i}")
    else:
        yield key, node if isinstance(node, str) else json.dumps(node)


def test_curves_are_drawn(browser, sweeps):
    browser.open(sweeps.page, f"#run={sweeps.finished[0].id}")
    names = [caption.text for caption in browser.all("figcaption")]
    assert names == ["lr", "loss", "online/val_top1"]
    labels = [svg.get_attribute("aria-label") for svg in browser.all("svg[role=img]")]
    assert labels[1] == "loss: 5 at step 10, 0.01667 at step 3000, lowest 0.01667, highest 5"
    assert labels[2] == "online/val_top1: 0.3 at step 30, 0.3 at step 3000, lowest 0.3, highest 0.3"
    lines = [
        [tuple(map(float, point.split(","))) for point in line.get_attribute("points").split()]
        for line in browser.all("svg polyline")
    ]
    assert [100 <= len(line) <= 200 for line in lines] == [True] * 3
    loss = lines[1]
    assert all(x < next_x and y <= next_y for (x, y), (next_x, next_y) in pairwise(loss))  # y: down
    inside = browser.run(
        """
        return [...document.querySelectorAll("svg")].every((svg) => {
          const whole = svg.getBoundingClientRect();
          return [...svg.children].every((child) => {
            const box = child.getBoundingClientRect();
            return box.left >= whole.left - 1 && box.right <= whole.right + 1
              && box.top >= whole.top - 1 && box.bottom <= whole.bottom + 1;
          });
        });
        """
    )
    assert inside
    browser.open(sweeps.page, f"#run={sweeps.tuned.id}")
    assert browser.all("svg") == []


def test_the_difference_to_another_run(browser, sweeps):
    from selenium.webdriver.support.ui import Select

    browser.open(sweeps.page, f"#run={sweeps.finished[0].id}")
    others = Select(browser.find("select"))
    assert len(others.options) == 11  # the ten others, and none
    others.select_by_visible_text(sweeps.tuned.id)
    found = {row["key"]: (row["this run"], row["the other"]) for row in browser.table("Differences in config")}
    ours, theirs = (dict(flat(run.config())) for run in (sweeps.finished[0], sweeps.tuned))
    pairs = {key: (ours.get(key, "–"), theirs.get(key, "–")) for key in ours | theirs}
    assert found == {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
    assert found["subset.fraction"] == ("0.05", "1.0")
    assert found["method.d0"] == ("–", "null")
    assert found["method.projector._target_"] == ("ssl_lightning.models.projectors.mlp", "–")
    assert "seed" not in found
    others.select_by_visible_text(sweeps.finished[1].id)
    keys = [row["key"] for row in browser.table("Differences in config")]
    assert keys == ["seed", "subset.seed"]
    others.select_by_index(0)
    assert browser.all('table[aria-label="Differences in config"]') == []


def test_a_failed_run_s_page_has_its_whole_error(browser, sweeps):
    browser.open(sweeps.page, f"#run={sweeps.failed.id}")
    assert browser.find("p.status").text == "failed"
    assert browser.run("return document.querySelector('pre').textContent") == sweeps.failed.error_file.read_text()
    assert "Traceback" in browser.find("pre").text
    assert browser.all('table[aria-label="Metrics"]') == []
    assert browser.table("Config")


def test_an_address_of_no_run_is_the_overview(browser, sweeps):
    browser.open(sweeps.page, "#run=absent")
    assert browser.table("Runs")


def test_the_plots_are_in_the_page(browser, sweeps):
    browser.open(sweeps.page)
    images = browser.all(".plots img")
    assert [image.get_attribute("src")[:22] for image in images] == ["data:image/png;base64,"] * 3
    assert all(browser.run("return arguments[0].decode().then(() => true)", image) for image in images)
    assert all(browser.run("return arguments[0].naturalWidth", image) > 100 for image in images)
    assert all(image.get_attribute("alt") for image in images)
    shutil.copy(sweeps.page, moved := sweeps.page.parents[3] / "moved.html")
    browser.open(moved)  # alone
    assert browser.run("return document.querySelector('.plots img').decode().then(() => true)")


# Foreign words


@pytest.mark.parametrize("address", ["overview", "finished", "failed"])
def test_names_and_errors_stay_text(browser, nasty, address):
    page, finished, failed = nasty
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 2
    assert "<img" not in text
    opened = {"overview": None, "finished": finished, "failed": failed}[address]
    browser.open(page)
    if opened is not None:
        browser.run('document.querySelector(`a[href="#run=${encodeURIComponent(arguments[0])}"]`).click()', opened.id)
        browser.wait("h1", opened.id)
    assert browser.driver.title == browser.find("h1").text
    assert browser.run("return document.scripts.length") == 2
    assert [image.get_attribute("src")[:5] for image in browser.all("img")] == ["data:"] * (3 if opened is None else 0)
    shown = browser.run("return document.querySelector('main').textContent")
    assert NASTY_NAME in shown
    if opened is None:
        first, second = [row["error"] for row in browser.table("Runs")]
        assert (first, NASTY in second) == ("", True)
        assert browser.filter(-1, "<script>") == "1 of 2 rows"
    else:
        assert {"key": "sweep", "value": NASTY} in browser.table("Config")
        assert (NASTY in browser.run("return document.querySelector('pre')?.textContent ?? ''")) == (opened is failed)


def test_the_policy_stops_what_the_page_does_not_know(browser, sweeps):
    browser.open(sweeps.page)
    browser.run(
        """
        const script = document.createElement("script");
        script.textContent = "document.title = 'taken'";
        document.body.append(script);
        const image = document.createElement("img");
        image.src = "https://example.org/x.png";
        document.body.append(image);
        return fetch("https://example.org/").then(() => "sent", () => "stopped");
        """
    )
    assert browser.driver.title != "taken"
    logged = browser.logged()
    assert {kind for kind in ("script-src", "img-src", "default-src") if any(kind in line for line in logged)} == {
        *("script-src", "img-src", "default-src")
    }
    assert {event.get("blockedReason") for event in browser.happened("loadingFailed")} == {"csp"}


# Readers


@pytest.mark.parametrize("width", [320, 375])
def test_a_narrow_window_does_not_scroll_sideways(browser, sweeps, nasty, width):
    browser.emulate(width)
    for page, run in ((sweeps.page, sweeps.finished[0]), (nasty[0], nasty[2])):
        browser.open(page)
        assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")
        regions = browser.run(
            "return [...document.querySelectorAll('.scroll')].map((e) => [e.scrollWidth, e.clientWidth])"
        )
        assert all(content > box for content, box in regions)  # they do
        browser.run("location.hash = '#run=' + encodeURIComponent(arguments[0])", run.id)
        browser.wait("h1", run.id)
        assert browser.run("return document.scrollingElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("width", [320, 375, 1280])
def test_plots_fit_the_window(browser, sweeps, width):
    """Panels below each other where they would be too small side by side."""
    browser.emulate(width)
    browser.open(sweeps.page)
    images = browser.run(
        """
        const images = [...document.querySelectorAll(".plots img")];
        return Promise.all(images.map((image) => image.decode())).then(() => images.map((image) =>
          [image.naturalWidth, image.naturalHeight, image.getBoundingClientRect().right]));
        """
    )
    assert len(images) == 3
    assert all(right <= width for _, _, right in images)
    assert all((natural < 600) == (width < 600) for natural, _, _ in images[::2])
    fractions = images[0]
    assert (fractions[1] > fractions[0]) == (width < 600)


def test_plots_are_dark_where_the_page_is(browser, sweeps):
    filters = []
    for scheme in ("light", "dark"):
        browser.emulate(scheme=scheme)
        browser.open(sweeps.page)
        filters.append(browser.run("return getComputedStyle(document.querySelector('.plots img')).filter"))
    assert filters[0] == "none"
    assert filters[1].startswith("invert(0.92)")


CONTRASTS = """
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const over = (colours) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const found = {};
  for (const element of document.querySelectorAll("main *:not(svg *)")) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const behind = [];
    for (let e = element; e; e = e.parentElement) behind.unshift(getComputedStyle(e).backgroundColor);
    const style = getComputedStyle(element);
    const [a, b] = [luminance(over(behind)), luminance(over([...behind, style.color]))];
    const name = `${element.tagName} ${element.className}`;
    found[name] = Math.min(found[name] ?? 21, (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05));
  }
  return [found, luminance(over([getComputedStyle(document.body).backgroundColor]))];
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser, sweeps, scheme):
    """WCAG 2's ratio of text to what is behind it, at least 4.5."""
    browser.emulate(scheme=scheme)
    for address in ("", f"#run={sweeps.finished[0].id}", f"#run={sweeps.failed.id}"):
        browser.open(sweeps.page, address)
        ratios, background = browser.run(CONTRASTS)
        assert len(ratios) >= 8
        assert {name: ratio for name, ratio in ratios.items() if ratio < 4.5} == {}
        assert (background < 0.05) == (scheme == "dark")


def test_what_a_screen_reader_needs(browser, sweeps):
    for address in ("", f"#run={sweeps.finished[0].id}"):
        browser.open(sweeps.page, address)
        assert browser.all("table")
        assert browser.all("table:not([aria-label]), th:not([scope]), .scroll:not([aria-label])") == []
        assert browser.run("return [...document.querySelectorAll('input, select')].every((e) => e.labels.length === 1)")
        assert browser.run("return [...document.querySelectorAll('tbody tr')].every((r) => r.querySelector('th'))")
        assert len(browser.all("h1")) == 1
        assert browser.run("return document.documentElement.lang") == "en"
    browser.open(sweeps.page)
    assert len(browser.all("thead th button")) == len(browser.all("thead th"))


# Whole reports


def test_no_finished_runs(browser, tmp_path, capsys):
    sweep = Folder(tmp_path / "runs" / "grid")
    begun = sweep.begin()
    report([sweep.folder])
    page = sweep.folder / "report" / "report.html"
    assert f"Report: {page}\n" in capsys.readouterr().out
    browser.open(page)
    assert browser.find("h1").text == "No finished runs"
    assert [row["id"] for row in browser.table("Runs")] == [begun.id]
    assert browser.all('table[aria-label="Comparison"]') == []
    HydraConfig.instance().cfg = None


@pytest.mark.nightly
def test_several_datasets_stand_in_one_table(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    sweep.finish(0.5, untrained=0.1)
    sweep.finish(0.6, "dataset=cifar10", untrained=0.2)
    other = Folder(tmp_path / "runs" / "other")
    other.finish(0.5, untrained=0.1)  # the first again
    report([sweep.folder, other.folder])
    page = sweep.folder / "report" / "report.html"
    browser.open(page)
    compared = page.with_name("report.md").read_text(encoding="utf-8").partition("\n## Seconds\n")[0]
    tables = re.findall(r"(?:^\|.*\n)+", compared, re.M)
    assert len(tables) == 2
    assert browser.table("Comparison") == [row for table in tables for row in rows(table)]
    assert {(row["method"], row["dataset"]) for row in browser.table("Comparison")} == {
        (method, dataset) for method in ("untrained", "simclr") for dataset in ("digits", "cifar10")
    }
    assert len(browser.table("Runs")) == 2
    assert len(browser.all(".plots img")) == 6
    HydraConfig.instance().cfg = None


@pytest.mark.nightly
def test_further_evaluations_and_spectra_on_a_run_s_page(browser, tmp_path):
    sweep = Folder(tmp_path / "runs" / "grid")
    run = sweep.finish(0.5)
    further(run, 0.25, "a", Protocol("fashion_mnist", "", {}))
    write_text(run.metrics_file, "step,epoch,loss,spectrum/r/rankme,spectrum/z/rankme\n2,0,1,5,3\n4,1,1,6,2\n")
    report([sweep.folder])
    page = sweep.folder / "report" / "report.html"
    browser.open(page)
    (row,) = browser.table("Transfer")
    assert (row["linear % own data"], row["linear % on fashion_mnist"]) == ("50.0", "25.0")
    assert [image.get_attribute("alt").count("rank over training") for image in browser.all(".plots img")].count(1) == 1
    browser.go(run)
    assert browser.table("Evaluation: on fashion_mnist") == [{"metric": "linear/top1", "value": "0.25"}]
    assert [caption.text for caption in browser.all("figcaption") if caption.is_displayed()] == ["loss"]
    browser.find("summary").click()
    assert [caption.text for caption in browser.all("details figcaption")] == ["spectrum/r/rankme", "spectrum/z/rankme"]
    HydraConfig.instance().cfg = None


@pytest.mark.nightly
def test_a_page_made_again_is_the_same(sweeps):
    before = sweeps.page.read_bytes()
    report([sweeps.page.parents[1]])
    assert sweeps.page.read_bytes() == before
