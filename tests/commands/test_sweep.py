"""ssl-sweep reports what its jobs leave, wherever that is."""

import pytest

from tests.composing import TINY

ODD = "é ( ) ~ # = , [x] {y} it's"
"""What a shell, Hydra, a URL or a Makefile may take for something else."""


@pytest.fixture
def odd(command, tmp_path, monkeypatch):
    """A folder of such a name is the working directory, with a grid over two sweeps."""
    (tmp_path / ODD).mkdir()
    monkeypatch.chdir(tmp_path / ODD)
    monkeypatch.setenv("HOME", str(tmp_path / ODD))
    monkeypatch.setenv("SSL_RUNS", "~/my runs")
    monkeypatch.setenv("SSL_CACHE", "")
    (tmp_path / ODD / "two grids.yaml").write_text(
        "defaults: [/train, _self_]\n"
        "sweep: part-${subset.fraction}\n"
        "hydra: {mode: MULTIRUN, sweeper: {params: {subset.fraction: '0.1,0.2'}}}\n"
    )
    return tmp_path / ODD


def test_a_grid_over_several_sweeps_in_a_folder_of_any_name(command, odd):
    outcome = command("ssl-sweep", "two grids.yaml", *TINY)
    assert outcome.code == 0, outcome.err
    assert "2 of 2 jobs done" in outcome.out
    report = (odd / "my runs/two grids/report/report.md").read_text(encoding="utf-8")
    cells = [[word.strip() for word in line.split("|")] for line in report.splitlines() if line.startswith("|")]
    assert [line[cells[0].index("fraction")] for line in cells[2:]] == ["0.1", "0.2"]
    assert {"part-0.1", "part-0.2", "two grids"} <= {folder.name for folder in (odd / "my runs").iterdir()}
    assert not (odd / "~").exists()

    (odd / "my runs/two grids/report/report.md").unlink()
    again = command("ssl-sweep", str(odd / "two grids.yaml"), *TINY)  # nothing is left to do but the report
    assert again.out.count("is finished") == 2
    assert (odd / "my runs/two grids/report/report.md").read_text(encoding="utf-8") == report


@pytest.mark.parametrize("content", ["", "word", "[1, 2]", "sweep: mine"])
def test_a_file_that_is_no_grid(command, tmp_path, content):
    (tmp_path / "mine.yaml").write_text(content)
    outcome = command("ssl-sweep", "mine.yaml")
    assert outcome.code == 1
    assert outcome.err == (
        f"Error: {tmp_path}/mine.yaml is no grid: it does not build on ssl-train's config. Begin it with the line "
        "defaults: [/train, _self_] (see sweeps/quickstart.yaml).\n"
    )


def test_nothing_to_report_is_said(command, odd):
    outcome = command("ssl-sweep", "two grids.yaml", *TINY, "trainer.fast_dev_run=true")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "There is nothing to report: no job has kept a run."
