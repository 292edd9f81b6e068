"""metrics.csv holds each row once, whole, under columns that may grow."""

import csv

import pytest

from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.runs.metrics import read_metrics


@pytest.fixture
def file(tmp_path):
    return MetricsFile(tmp_path / "metrics.csv")


def test_rows_are_appended(file):
    for step in (5, 10, 12):
        file.log_metrics({"loss": step / 8, "lr": 0.1}, step)
    assert file.path.read_bytes() == b"step,loss,lr\r\n5,0.625,0.1\r\n10,1.25,0.1\r\n12,1.5,0.1\r\n"


def test_numbers_are_read_back_exactly(file):
    values = [0.1, 1 / 3, 1e-300, 123456789.123456789]
    for step, value in enumerate(values):
        file.log_metrics({"loss": value}, step)
    assert [float(row["loss"]) for row in read_metrics(file.path)] == values


def test_new_column_rewrites_the_file(file):
    file.log_metrics({"loss": 1.0}, 1)
    file.log_metrics({"loss": 2.0, "top1": 0.5}, 2)
    file.log_metrics({"top1": 0.25}, 3)
    assert read_metrics(file.path) == [
        {"step": "1", "loss": "1.0", "top1": ""},
        {"step": "2", "loss": "2.0", "top1": "0.5"},
        {"step": "3", "loss": "", "top1": "0.25"},
    ]
    assert [file.name for file in file.path.parent.iterdir()] == ["metrics.csv"]


@pytest.mark.parametrize(("step", "left"), [(0, []), (1, [1]), (4, [1, 3]), (5, [1, 3, 5]), (99, [1, 3, 5])])
def test_rewind_forgets_what_lies_after_a_step(file, step, left):
    for logged in (1, 3, 5):
        file.log_metrics({"loss": float(logged)}, logged)
    resumed = MetricsFile(file.path)
    resumed.rewind(step)
    assert [int(row["step"]) for row in read_metrics(file.path)] == left
    resumed.log_metrics({"loss": 7.0}, 7)
    assert [int(row["step"]) for row in read_metrics(file.path)] == [*left, 7]


def test_rewind_of_no_file_makes_an_empty_one(file):
    file.rewind(0)
    assert read_metrics(file.path) == []
    file.log_metrics({"loss": 1.0}, 1)
    assert read_metrics(file.path) == [{"step": "1", "loss": "1.0"}]


def test_a_file_killed_at_any_byte_is_continued_as_if_it_were_whole(file, tmp_path):
    for step in (1, 2, 3):
        file.log_metrics({"loss": step / 3, "name, with a comma": f'"{step}"'}, step)
    whole = file.path.read_bytes()
    torn = MetricsFile(tmp_path / "torn.csv")
    end_of_second = whole.rfind(b"\r\n", 0, -2) + 2
    for length in range(end_of_second, len(whole) - 1):  # the row is whole without its b"\n"
        torn.path.write_bytes(whole[:length])
        assert [row["step"] for row in read_metrics(torn.path)] == ["1", "2"]
        torn.rewind(2)
        torn.log_metrics({"loss": 3 / 3, "name, with a comma": '"3"'}, 3)
        assert torn.path.read_bytes() == whole


def test_spreadsheets_and_csv_readers_agree(file):
    file.log_metrics({"loss": 1.0, "odd": "a,b"}, 1)
    with file.path.open(newline="") as lines:
        assert list(csv.reader(lines)) == [["step", "loss", "odd"], ["1", "1.0", "a,b"]]
