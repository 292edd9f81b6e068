"""Each part of `python -m benchmarks.peers` gives finite figures, at a small size; how large they are is not asked."""

import importlib.util
import json
import math
from collections.abc import Iterator

import pytest

from benchmarks.peers import __main__ as peers
from benchmarks.peers.figures import RATIO, Options, Row, contest, installed

TWICE, ONCE = (Options(turns=turns, small=True) for turns in (2, 1))
LONG = ("b", "c", "d", "e", "g")
"""Trainings, many steps of which FLOPs are counted, or processes of their own."""
PEERS = {"a": ("lightly", "kornia"), "b": ("lightly",), "c": ("lightly",), "g": ("lightly",)}


def small(part: str) -> Options:
    return ONCE if part in LONG else TWICE


def marked(parts):
    return [pytest.param(part, marks=pytest.mark.nightly if part in LONG else ()) for part in parts]


def check(rows: list[Row], turns: int) -> None:
    assert rows
    for row in rows:
        assert row.figures, row
        for values in row.figures.values():
            assert len(values) in (1, turns), row
            assert all(math.isfinite(value) for value in values), row


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No peer is installed."""
    for peer in ("lightly", "kornia"):
        monkeypatch.setitem(__import__("sys").modules, peer, None)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("part", marked(peers.PARTS))
def test_a_part_gives_finite_figures_without_any_peer(part, alone, capsys):
    options = small(part)
    rows = list(peers.PARTS[part].rows(options))
    check(rows, options.turns)
    assert not any("lightly" in row.who or "kornia" in row.who for row in rows)
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if "pip install 'ssl-lightning[bench]'" in line]) == len(PEERS.get(part, ()))


@pytest.mark.nightly
@pytest.mark.parametrize("part", marked(PEERS))
def test_a_part_gives_finite_figures_of_its_peers(part):
    for peer in PEERS[part]:
        if importlib.util.find_spec(peer) is None:
            pytest.skip(f"{peer} is not installed: pip install 'ssl-lightning[bench]'")
    options = small(part)
    rows = list(peers.PARTS[part].rows(options))
    check(rows, options.turns)
    for peer in PEERS[part]:
        assert any(peer in row.who and RATIO in row.figures for row in rows), peer


def test_a_part_that_fails_stops_no_other(monkeypatch, tmp_path, capsys):
    def fails(options: Options) -> Iterator[Row]:
        yield Row("before", "ours", {"seconds": [1.0]})
        raise RuntimeError("out of order\nand more")

    def works(options: Options) -> Iterator[Row]:
        yield from contest("sums", {"ours": lambda: {"seconds": 2.0}, "theirs": lambda: {"seconds": 3.0}}, 3)

    monkeypatch.setattr(peers, "PARTS", {"a": peers.Part("One", fails), "b": peers.Part("Two", works)})
    file = tmp_path / "figures.json"
    assert peers.main(["--json", str(file)]) == 1
    captured = capsys.readouterr()
    assert captured.err == "(a) has failed: RuntimeError: out of order\n"
    assert "before" in captured.out
    assert "1.5 (1.5–1.5)" in captured.out
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["failed"] == ["a"]
    assert found["parts"]["b"][1] == {
        "what": "sums",
        "who": "theirs",
        "figures": {"seconds": [3.0] * 3, RATIO: [1.5] * 3},
    }


@pytest.mark.parametrize(("column", "ours", "theirs"), [("seconds", 1.0, 4.0), ("views/s", 8.0, 2.0)])
def test_ratios_say_how_many_times_as_fast_ours_is(column, ours, theirs):
    turns = iter((ours, theirs, ours, theirs / 2))  # by turns
    ways = {who: lambda: {column: next(turns)} for who in ("ours", "theirs")}
    mine, others = contest("anything", ways, 2)
    assert RATIO not in mine.figures
    assert others.figures[RATIO] == ([4.0, 2.0] if column == "seconds" else [4.0, 8.0])


def test_a_peer_that_is_not_installed_is_named_with_what_to_do(alone, capsys):
    assert not installed("lightly")
    assert "lightly is left out" in (line := capsys.readouterr().err)
    assert line.endswith("pip install 'ssl-lightning[bench]'\n")
