"""A report on 500 runs is still a page that can be sent, opened and searched."""

import itertools

import pytest

from benchmarks.report import configs, make
from ssl_lightning.pipeline.report import report
from tests.reports.conftest import Browser


@pytest.mark.nightly
def test_a_page_of_five_hundred_runs(tmp_path, browser: Browser):
    for config in itertools.islice(configs(tmp_path), 500):
        make(config)
    report([tmp_path / "grid"])
    page = tmp_path / "grid" / "report" / "report.html"
    assert page.stat().st_size < 10e6
    browser.open(page)
    assert browser.filter(-1, "") == "500 of 500 rows"
    assert browser.filter(-1, "gessl fraction<0.1") == "25 of 500 rows"
    assert {row["fraction"] for row in browser.table("Runs")} == {"0.05"}
