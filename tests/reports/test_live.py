"""A report that is kept up to date while runs train, and a page that keeps what a reader has chosen in its address."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.report import report
from ssl_lightning.pipeline.watching import Watched, watch
from ssl_lightning.reports.comparison import comparison
from ssl_lightning.reports.content import content_of
from ssl_lightning.reports.exchange import in_latex
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.progress import Progress, write_progress
from ssl_lightning.runs.run import find_runs
from tests.reports.conftest import Browser, Sweeps
from tests.reports.test_exchange import read
from tests.reports.test_report import Folder, forget, results_of, sweep

__all__ = ["forget", "sweep"]

PROGRESS = Progress(30, 100, 2, 5, 1234.0, 0.5, 15.0, 0.0)


@pytest.fixture
def watched(sweep: Folder, tmp_path: Path) -> Watched:
    return Watched([sweep.folder], tmp_path / "report", None, 1.0, tmp_path / "narrow")


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Without the times."""
    return [line.partition(" ")[2] for line in capsys.readouterr().out.splitlines()]


def data(page: Path) -> dict:
    return json.loads(page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0])


def test_a_look_writes_what_has_changed_and_says_so(sweep, watched, tmp_path, capsys):
    page = tmp_path / "report" / "report.html"
    sweep.folder.mkdir(parents=True)
    watched.look()
    assert said(capsys) == ["no runs yet"]
    sweep.finish(0.5)
    begun = sweep.begin(seed=1)
    watched.look()
    assert said(capsys) == ["1 finished, 1 unfinished"]
    first = os.stat(page)
    watched.look()
    assert said(capsys) == []
    assert os.stat(page) == first
    with page.open(encoding="utf-8") as opened:
        write_progress(begun.progress_file, PROGRESS)
        watched.look()
        assert opened.read().endswith("</html>\n")  # the former page: the new one has taken its name
    assert said(capsys) == ["1 finished, 1 unfinished"]
    assert data(page)["live"]["every"] == 1.0
    assert "epoch 2 of 5, step 30 of 100" in (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    begun.finish(results_of(begun.config(), 0.6))
    failed = sweep.fail(ValueError("no luck"), seed=2)
    watched.look()
    (line,) = said(capsys)
    assert line.startswith(f"2 finished (+1), 1 failed (+1), 0 unfinished (-1); {failed.id}: ValueError: no luck (")
    watched.end()
    assert said(capsys) == ["ended"]
    assert data(page)["live"] is None
    report([sweep.folder], tmp_path / "other")
    assert data(tmp_path / "other" / "report.html")["comparison"] == data(page)["comparison"]
    assert not list(tmp_path.rglob("*.part"))


def test_figures_are_drawn_again_for_new_results_alone(sweep, watched, tmp_path):
    sweep.finish(0.5)
    begun = sweep.begin(seed=1)
    watched.look()
    (figure,) = (tmp_path / "report").glob("accuracy_against_fraction.png")
    first = os.stat(figure)
    write_progress(begun.progress_file, PROGRESS)
    watched.look()
    assert os.stat(figure) == first
    begun.finish(results_of(begun.config(), 0.6))
    watched.look()
    assert os.stat(figure) != first


def test_what_cannot_be_written_later_is_told_once_and_tried_again(sweep, tmp_path, capsys):
    watched = Watched([sweep.folder], tmp_path / "report", "byol", 1.0, tmp_path / "narrow")
    sweep.finish(0.5)
    with pytest.raises(UserError, match="--reference 'byol' names no line"):
        watched.look()
    sweep.finish(0.6, "method=byol")
    watched.look()
    blocking = tmp_path / "report" / "report.md"
    blocking.unlink()
    (blocking / "x").mkdir(parents=True)
    sweep.finish(0.6, seed=1)
    capsys.readouterr()
    watched.look()
    watched.look()
    (line,) = said(capsys)
    assert line.startswith("not written: The report cannot be written to")
    (blocking / "x").rmdir()
    blocking.rmdir()
    watched.look()
    assert said(capsys) == ["3 finished"]


def test_a_second_between_looks_at_least(tmp_path):
    with pytest.raises(UserError, match=r"--every is 0\.5\. Give seconds, at least 1"):
        watch([tmp_path], every=0.5)


@pytest.mark.nightly
def test_ctrl_c_ends_the_command_with_a_page_that_stays(sweep, tmp_path):
    sweep.finish(0.5)
    page = sweep.folder / "report" / "report.html"
    command = [sys.executable, "-m", "ssl_lightning.commands.report", "runs/grid", "--watch", "--every", "1"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    impatient = threading.Timer(300, process.kill)
    impatient.start()
    try:
        lines = [process.stdout.readline() for _ in range(2)]
        assert data(page)["live"]["every"] == 1
        sweep.finish(0.6, seed=1)
        while lines[-1] and "2 finished" not in lines[-1]:  # a look may come while the run is being made
            lines.append(process.stdout.readline())
        assert len(data(page)["runs"]) == 2
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    finally:
        impatient.cancel()
        process.kill()
    assert (process.returncode, err) == (0, "")
    first, *others = [*lines, *out.splitlines(keepends=True)]
    assert first == "Report: runs/grid/report/report.html, looked after every 1 s until Ctrl-C\n"
    told = [line.partition(" ")[2] for line in others]
    assert (told[0], told[-2], told[-1]) == ("1 finished\n", "2 finished (+1)\n", "ended\n")
    assert data(page)["live"] is None
    assert len(data(page)["runs"]) == 2
    assert not list(tmp_path.rglob("*.part"))


def test_a_running_run_says_how_far_it_is(browser, sweep):
    sweep.finish(0.5)
    run = sweep.begin(seed=1)
    write_progress(run.progress_file, PROGRESS)
    with run.held():
        report([sweep.folder])
    browser.open(sweep.folder / "report" / "report.html")
    found = {row["id"]: (row["status"], row["progress"]) for row in browser.table("Runs")}
    far = "epoch 2 of 5, step 30 of 100, 1,234 images/s, 35 s of training left"
    assert found.pop(run.id) == ("running", far)
    assert list(found.values()) == [("finished", "")]
    browser.go(run)
    assert browser.find("p.status").text == f"running: {far}"


# State


def view(browser: Browser) -> dict:
    return browser.run(
        """
        return {
          runs: [...document.querySelectorAll('table[aria-label="Runs"] tbody tr:not([hidden]) a')].map((a) => a.text),
          sort: document.querySelector('table[aria-label="Runs"] [aria-sort]')?.textContent,
          selects: [...document.querySelectorAll(".explorer select")].map((select) => select.value),
          fields: [...document.querySelectorAll("input")].map((input) => input.value),
          top: Math.round([...document.querySelectorAll("section")].at(-1).getBoundingClientRect().top),
        };
        """
    )


def choose(browser: Browser) -> dict:
    """As a reader does."""
    browser.sort("Runs", "seed")
    browser.sort("Runs", "seed")
    browser.filter(-1, "simclr linear>60")
    browser.run(
        """
        for (const [i, value] of [[0, "k-NN %"], [1, "linear %"], [4, "seed"]]) {
          const select = document.querySelectorAll(".explorer select")[i];
          select.value = value;
          select.dispatchEvent(new Event("change", { bubbles: true }));
        }
        [...document.querySelectorAll("section")].at(-1).scrollIntoView();
        """
    )
    browser.until("return new URLSearchParams(location.hash.slice(1)).get('at') === placeOf(home)")
    return view(browser)


@pytest.mark.parametrize("width", [1280, pytest.param(375, marks=pytest.mark.nightly)])
def test_the_address_says_what_a_reader_has_chosen(browser: Browser, sweeps: Sweeps, width):
    browser.emulate(width)
    browser.open(sweeps.page)
    assert browser.run("return location.hash") == ""
    plain = view(browser)
    chosen = choose(browser)
    assert all(chosen[key] != plain[key] for key in chosen)
    address = browser.run("return location.hash")
    browser.open(sweeps.page, address)
    assert view(browser) == chosen
    browser.go(sweeps.finished[-1])
    assert browser.run("return location.hash") == f"#run={sweeps.finished[-1].id}"
    browser.driver.refresh()
    browser.find("main a").click()
    browser.wait("h1", browser.run("return report.heading"))
    assert view(browser) == chosen
    browser.open(sweeps.page)
    assert view(browser) == plain
    browser.open(sweeps.page, "#metrics.show=absent&runs.sort=-absent&at=nowhere%2B5&x")
    assert view(browser)["selects"] == plain["selects"]


def test_the_run_that_is_compared_with_is_a_part_of_the_address(browser, sweeps):
    address = f"#run={sweeps.finished[0].id}&with={sweeps.tuned.id}"
    browser.open(sweeps.page, address)
    assert "method.temperature" in {row["key"] for row in browser.table("Differences in config")}
    browser.driver.refresh()
    assert browser.run("return location.hash") == address
    assert browser.table("Differences in config")


def test_a_page_that_is_written_anew_is_loaded_anew_as_it_was_left(browser, sweep, watched, tmp_path):
    for seed in (1, 2):
        sweep.finish(0.5, seed=seed)
    watched.look()
    browser.open(tmp_path / "report" / "report.html")
    assert "looks for news every 1 s" in browser.find("main").text
    browser.run(
        """
        const field = [...document.querySelectorAll("input")].at(-1);
        field.focus();
        field.value = "seed>1";
        field.dispatchEvent(new Event("input", { bubbles: true }));
        """
    )
    assert len(browser.table("Runs")) == 1
    sweep.finish(0.6, seed=3)
    watched.look()
    browser.until("return report.runs.length === 3")
    assert [row["seed"] for row in browser.table("Runs")] == ["2", "3"]
    assert browser.run("return document.activeElement === [...document.querySelectorAll('input')].at(-1)")
    watched.end()
    browser.until("return report.live === null")
    assert len(browser.table("Runs")) == 2


# Export


def test_shown_rows_are_saved_as_the_report_writes_them(browser, sweeps, tmp_path):
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path)}
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", allowed)
    browser.open(sweeps.page)

    def saved(name: str, label: str, ending: str) -> str:
        file = tmp_path / f"{name.lower()}.{ending}"
        file.unlink(missing_ok=True)
        browser.find(f'button[aria-label="{name} as {label}"]').click()
        end = time.monotonic() + 20
        while not file.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        return file.read_bytes().decode()

    def numbers(rows: list[dict[str, str]]) -> list[dict[str, object]]:
        def number(text: str) -> object:
            try:
                return float(text)
            except ValueError:
                return text

        return [{key: number(text) for key, text in row.items()} for row in rows]

    for name, file in (("Comparison", "cells.csv"), ("Runs", "runs.csv")):
        written = sweeps.page.with_name(file).read_bytes().decode()
        assert numbers(read(saved(name, "CSV", "csv"))) == numbers(read(written))
    content = content_of(records_of(find_runs([sweeps.page.parents[1]])))
    text = saved("Comparison", "LaTeX", "tex")
    assert text == "% \\usepackage{booktabs}\n" + in_latex(comparison(content.cells), f"Comparison: {content.heading}")
    browser.filter(-1, "linear>60")
    browser.sort("Runs", "linear %")
    shown = [float(row["linear %"]) for row in browser.table("Runs")]
    assert [round(float(row["linear %"]), 1) for row in read(saved("Runs", "CSV", "csv"))] == shown
    assert len(shown) == 4
