"""A report in a real browser, and what tests ask of it."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.files import write_text
from ssl_lightning.pipeline.report import report
from ssl_lightning.runs.run import Run
from tests.reports.test_report import Folder

TOP1 = {0.05: 0.098, 0.2: 0.5, 0.5: 0.703, 1.0: 1.0}  # as words, 100.0 and 9.8 would stand elsewhere


@dataclass
class Sweeps:
    """What the page is about."""

    page: Path
    text: str
    finished: list[Run]
    tuned: Run
    failed: Run
    begun: Run


@pytest.fixture(scope="session")
def sweeps(tmp_path_factory) -> Sweeps:
    grid = Folder(tmp_path_factory.mktemp("report") / "runs" / "grid")
    finished = [
        grid.finish(top1, fraction=fraction, seed=seed, seconds=100 * fraction, untrained=0.05 + seed / 100)
        for fraction, top1 in TOP1.items()
        for seed in (1, 2)
    ]
    for run in finished:
        results = run.results()
        results["cost"]["images_per_second"] = 1234.5
        results["environment"] = {"versions": {"torch": "2.10.0"}, "device": "a CPU"}
        if results["identity"]["fraction"] == 0.2:
            del results["metrics"]["linear_5shot/top1"]
        run.finish(results)
    curve = "".join(f"{10 * i},{i},{0.1 / i},{5 / i},{0.3 if i % 3 == 0 else ''}\n" for i in range(1, 301))
    write_text(finished[0].metrics_file, "step,epoch,lr,loss,online/val_top1\n" + curve)
    tuned = grid.finish(0.6, "method.temperature=0.7", "method=directclr", seed=1)
    failed = grid.fail(ValueError("no luck\nat all"), seed=3)
    begun = grid.begin(seed=4, fraction=0.05)
    report([grid.folder])
    page = grid.folder / "report" / "report.html"
    HydraConfig.instance().cfg = None
    return Sweeps(page, page.with_name("report.md").read_text(encoding="utf-8"), finished, tuned, failed, begun)


class Browser:
    """Chromium, and what the tests ask it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, address: str = "") -> None:
        self.driver.get("about:blank")  # else a new address would be a way within the page
        self.logged()
        self.driver.get(page.as_uri() + address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def table(self, name: str) -> list[dict[str, str]]:
        """The rows that are shown, by column."""
        return self.run(
            """
            const table = document.querySelector(`table[aria-label="${arguments[0]}"]`);
            const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent);
            const rows = [...table.tBodies[0].rows].filter((row) => row.checkVisibility());
            return rows.map((row) => Object.fromEntries([...row.cells].map((cell, i) => [heads[i], cell.textContent])));
            """,
            name,
        )

    def head(self, table: str, column: str) -> Any:
        (found,) = (th for th in self.all(f'table[aria-label="{table}"] thead th') if th.text.strip() == column)
        return found

    def sort(self, table: str, column: str) -> list[str]:
        """The column after a click on its head."""
        self.head(table, column).find_element("css selector", "button").click()
        return [row[column] for row in self.table(table)]

    def filter(self, section: int, words: str) -> str:
        """What the page says of how much is left."""
        from selenium.webdriver.common.keys import Keys

        field = self.all("input[type=search]")[section]
        field.send_keys(Keys.CONTROL + "a" + Keys.NULL, Keys.DELETE, words)
        return self.all("[role=status]")[section].text

    def back(self) -> None:
        self.driver.back()
        self.wait("h1", self.run("return report.heading"))

    def go(self, run: Run) -> None:
        self.run('document.querySelector(`table a[href="${arguments[0]}"]`).click()', f"#run={run.id}")
        self.wait("h1", run.id)

    def wait(self, selector: str, text: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20).until(
            lambda _: self.run(f"return document.querySelector('{selector}').textContent") == text
        )

    def until(self, script: str) -> None:
        """Asks again until it is true, also where the page is loaded meanwhile."""
        from selenium.common.exceptions import JavascriptException
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 20, ignored_exceptions=[JavascriptException]).until(lambda _: self.run(script))

    def logged(self) -> list[str]:
        """Errors and warnings since the last time."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def happened(self, method: str) -> list[dict[str, Any]]:
        """Events of the network since the last time that any was asked for."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [event["params"] for event in events if event["method"] == f"Network.{method}"]

    def emulate(self, width: int = 1280, scheme: str = "light") -> None:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory) -> Iterator[Browser]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        f"--user-data-dir={tmp_path_factory.mktemp('chromium')}",
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options, Service(driver))
    yield Browser(browser)
    browser.quit()


@pytest.fixture
def browser(chromium: Browser) -> Iterator[Browser]:
    """After each test: no message in the console, and no address but files, data, and what the page itself has made."""
    chromium.emulate()
    chromium.happened("")
    yield chromium
    assert chromium.logged() == []
    urls = [event["request"]["url"] for event in chromium.happened("requestWillBeSent")]
    assert {url.partition(":")[0] for url in urls} <= {"file", "data", "blob"}


# Tables
