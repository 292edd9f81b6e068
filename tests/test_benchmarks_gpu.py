"""benchmarks.gpu and benchmarks.ladder at a toy size: parts fail alone, and what they say is what they measured."""

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from benchmarks import ladder
from benchmarks.gpu.correctness import Gradient, compared, differences
from benchmarks.gpu.modes import MODES, PRECISIONS, VALUABLE, Mode
from benchmarks.gpu.parts import BY_NAME, PARTS
from benchmarks.gpu.running import FIGURES, TOYS, run, run_all
from benchmarks.gpu.setting import ROOT, Figures, Part, Setting
from benchmarks.gpu.tables import goals, show
from benchmarks.training import settings, ssl_train
from ssl_lightning.config.resolve import resolve
from tests.composing import composed
from tests.processes import context


def good(setting: Setting) -> Iterator[Figures]:
    assert setting.work.is_dir()
    yield {"first": 1.5, "second": 0.25}


def wrong(setting: Setting) -> Iterator[Figures]:
    yield {"first": 2.5}
    raise RuntimeError("the mode is\nnot there")


def crashing(setting: Setting) -> Iterator[Figures]:
    yield {"first": 3.5}
    print("the device is gone", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def hanging(setting: Setting) -> Iterator[Figures]:
    yield {"pid": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid}
    time.sleep(600)


def ended(pid: int) -> bool:
    """A process that nobody has waited for is a zombie."""
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


class OutOfTimeWithFigures(context.Process):  # type: ignore[name-defined]
    """Its time is over once it has figures, however busy the machine is."""

    def __init__(self, target: Any, args: Any) -> None:
        super().__init__(target=target, args=args)
        self.figures = args[-1] / FIGURES

    def join(self, timeout: float | None = None) -> None:
        while timeout is not None and self.is_alive() and not self.figures.exists():
            time.sleep(0.01)
        super().join(timeout and 0)


def test_a_part_that_hangs_is_ended_with_all_that_it_has_started():
    record = run(Part("hanging", "made up", hanging), True, None, 9.0, SimpleNamespace(Process=OutOfTimeWithFigures))
    assert record["status"] == "out of time"
    assert record["error"] == "ended after 9 s"
    assert ended(record["figures"]["pid"])


def test_parts_fail_alone():
    parts = [Part(part.__name__, "made up", part) for part in (wrong, crashing, good)]
    told: list[int] = []
    records = run_all(parts, True, None, 600, lambda records: told.append(len(records)), context)
    assert told == [1, 2, 3]
    failed, crashed, fine = records
    assert [record["status"] for record in records] == ["failed", "failed", "ok"]
    assert failed["figures"] == {"first": 2.5}
    assert failed["error"] == "RuntimeError: the mode is"
    assert crashed["figures"] == {"first": 3.5}
    assert crashed["error"] == "exit code -9: the device is gone"
    assert fine["figures"] == {"first": 1.5, "second": 0.25}
    assert fine["of"]["torch"] == torch.__version__
    assert fine["of"]["note"] == TOYS
    assert "error" not in fine


def test_what_would_begin_too_late_is_left_out():
    (record,) = run_all([Part("good", "made up", good)], True, None, 0, lambda records: None, context)
    assert record == {"name": "good", "table": "made up", "status": "left out"}


def trained(name: str, seconds: float, of_bare: float, status: str = "ok") -> dict:
    figures = {"seconds_per_epoch": seconds, "of_bare": of_bare, "views_share": 0.05}
    return {"name": name, "table": "training", "status": status, "seconds": 20.0, "figures": figures}


RECORDS = [
    trained("fp32", 4.0, 0.99),
    trained("bf16", 1.2, 0.85),
    trained("fp16", 0.5, 0.99, "failed"),
    trained("directclr-bf16", 1.0, 0.99),
    {"name": "late", "table": "training", "status": "left out"},
]


def test_goals_are_those_of_the_fastest_simclr():
    made = goals(RECORDS)
    assert {goal["part"] for goal in made} == {"bf16"}
    assert [(goal["goal"], goal["reached"]) for goal in made] == [
        ("seconds_per_epoch ≤ 1.3", True),
        ("of_bare ≥ 0.9", False),
        ("views_share < 0.1", True),
    ]
    assert goals(RECORDS[2:]) == []


def test_tables_say_what_was_measured_and_what_was_not():
    output = io.StringIO()
    failed = {
        "name": "tests",
        "table": "correctness",
        "status": "failed",
        "error": "no [GPU]",
        "figures": {"passed": 3},
    }
    records = [*RECORDS, failed]
    show({"note": TOYS, "parts": records, "goals": goals(RECORDS)}, Console(file=output, width=200))
    lines = [" ".join(line.split()) for line in output.getvalue().splitlines()]
    assert lines[0] == TOYS
    assert "bf16 1.2 0.85 0.05 20 ok" in lines
    assert "late left out" in lines
    assert "tests failed passed 3" in lines
    assert "tests: no [GPU]" in lines
    assert "of_bare ≥ 0.9: 0.85, missed (bf16)" in lines


def test_every_mode_is_a_part():
    assert len(BY_NAME) == len(PARTS)
    simclr = [mode for mode in MODES if mode.method == "simclr"]
    assert len(simclr) == len(set(simclr)) == len(PRECISIONS) * 2 * 4
    assert {mode.name for mode in MODES} <= BY_NAME.keys()
    assert [part.table for part in PARTS[:5]] == ["correctness"] * 5


def _modes() -> Iterator[Any]:
    """Valuable ones at a toy size; that size and mode do not know of each other is left to the nightly tests."""
    for mode, toy in itertools.product(MODES, (True, False)):
        marks = () if (toy and mode in VALUABLE) or mode == MODES[0] else pytest.mark.nightly
        yield pytest.param(mode, toy, id=f"{mode.name}-{'toy' if toy else 'whole'}", marks=marks)


@pytest.mark.one_in(4)
@pytest.mark.parametrize(("mode", "toy"), list(_modes()))
def test_modes_are_configs(mode, toy, tmp_path):
    config = Setting(toy, tmp_path).config(*mode.overrides)
    assert config["channels_last"] == mode.channels_last
    assert config["trainer"]["precision"] == PRECISIONS[mode.precision]
    assert config["batch_size"] == (64 if toy else 512)
    assert config["dataset"]["images"] == (320 if toy else 50_000)
    assert (config["trainer"]["accelerator"] == "cpu") == toy


@pytest.mark.nightly
def test_a_mode_beside_the_bare_loop(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_lightning.pipeline.finished.run_figures", lambda run, results: {})
    figures: dict[str, float] = {}
    for some in Mode("fp32").measure(Setting(True, tmp_path)):
        figures |= some  # type: ignore[arg-type]
    assert figures["images_per_second"] == pytest.approx(320 / figures["seconds_per_epoch"])
    assert figures["of_bare"] == pytest.approx(figures["images_per_second"] / figures["bare_images_per_second"])
    assert figures["outside_share"] == pytest.approx(1 - figures["of_bare"])
    assert figures["views_share"] > 0
    assert 0 < figures["peak_gib"] < 100


def test_first_epochs_are_left_out(tmp_path, monkeypatch):
    """Of epochs that take 9, 2, 5 and 2 seconds."""
    (tmp_path / "clock.json").write_text(json.dumps({"epochs": [0, 9, 11, 16, 18], "ended": 18}))
    cost = {"images_seen": 400, "peak_memory_bytes": 2**30}
    run = SimpleNamespace(results=lambda: {"cost": cost})
    monkeypatch.setattr("benchmarks.training.pretrain", lambda config: run)
    config = settings(tmp_path, "trainer.max_epochs=4")
    found = {"images_per_second": 50, "seconds_per_epoch": 2, "first_epoch_seconds": 9, "peak_gib": 1}
    assert ssl_train(config) == found
    assert ssl_train(config, left_out=2)["seconds_per_epoch"] == 3.5


def test_another_gradient_is_no_rounding():
    reference = Gradient(2.0, torch.tensor([3.0, 4.0]))
    close = differences(Gradient(2.0, torch.tensor([3.0, 4.001])), reference, "simclr")
    assert close == {"simclr_loss_difference": 0, "simclr_gradient_difference": pytest.approx(2e-4, rel=1e-3)}
    for found in (Gradient(2.002, reference.gradient), Gradient(2.0, torch.tensor([3.0, 4.2]))):
        with pytest.raises(RuntimeError, match="simclr: loss differs"):
            differences(found, reference, "simclr")
    with pytest.raises(RuntimeError, match="nan"):
        differences(Gradient(float("nan"), reference.gradient), reference, "simclr")


def test_runs_that_ended_alike_and_not(tmp_path):
    def made(name: str, weight: float, metric: float) -> SimpleNamespace:
        torch.save({"state_dict": {"weight": torch.tensor([1.0, weight])}}, tmp_path / name)
        return SimpleNamespace(checkpoint=tmp_path / name, results=lambda: {"metrics": {"knn/top1": metric}})

    one = made("one", 2.0, 0.5)
    assert compared("resumed", one, made("same", 2.0, 0.5)) == {"resumed": "equal"}
    assert compared("resumed", one, made("near", 2.25, 0.5)) == {"resumed": "weights differ by up to 2.5e-01"}
    assert compared("resumed", one, made("metric", 2.0, 0.4)) != {"resumed": "equal"}


def test_every_test_marked_cuda_is_where_the_part_looks():
    marked = {file.name for file in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.cuda" in file.read_text()}
    assert marked - {Path(__file__).name} == {"test_cuda.py"}


@pytest.mark.nightly
def test_the_whole_at_a_toy_size(tmp_path):
    output = tmp_path / "gpu.json"
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy", "--minutes", "30", "--output", str(output)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    content = json.loads(output.read_text())
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert content["toy"] is True
    assert content["note"] == TOYS
    assert ended.stdout.startswith(TOYS)
    assert [record["name"] for record in content["parts"]] == [part.name for part in PARTS if part.on_cpu]
    figures = {record["name"]: record["figures"] for record in content["parts"]}
    assert figures["resumed"] == {"resumed": "equal"}
    assert figures["twice"] == {"by_default": "equal", "deterministic": "equal"}
    assert figures["two_processes"]["simclr_gradient_difference"] < 1e-3
    assert figures["storage"]["streamed_images_per_second"] > 0


def climbed(seed: int, seconds: float, value: float) -> ladder.Climb:
    return ladder.Climb(seed, seconds, value, "H100", "2.14", f"s{seed}.txt")


def test_a_record_counts_every_seed():
    rung = ladder.RUNGS["3"]
    record = ladder.record_of(rung, [climbed(0, 200, 0.91), climbed(1, 290, 0.9)], ["a=b"], False)
    assert record["reached"] is True
    assert record["seconds"] == 290
    goal, logs = "3: linear/top1 ≥ 0.9 in ≤ 5 minutes", "s0.txt, s1.txt"
    assert ladder.row_of(record) == f"| {goal} | yes | 91.0, 90.0 % | 290 s | H100, torch 2.14 | 0, 1 | {logs} |"
    assert ladder.record_of(rung, [climbed(0, 301, 0.95)], [], False)["reached"] is False
    assert ladder.record_of(rung, [climbed(0, 200, 0.95), climbed(1, 200, 0.89)], [], False)["reached"] is False
    assert "worth nothing" in ladder.row_of(ladder.record_of(rung, [climbed(0, 1, 0.5)], [], True))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("rung", ladder.RUNGS)
def test_rungs_are_configs(rung, tmp_path):
    overrides = ladder.RUNGS[rung].overrides
    whole = resolve(composed(*overrides))
    assert whole["dataset"]["name"] == "cifar10"
    assert whole["trainer"]["max_epochs"] == {"1": 200}.get(rung, whole["trainer"]["max_epochs"])
    files = resolve(composed(*overrides, *ladder.in_folder(tmp_path)))
    assert files["dataset"]["root"] == str(tmp_path)
    assert files["augment"] == whole["augment"]
    toy = resolve(composed(*overrides, *ladder.TOY))
    assert toy["trainer"]["accelerator"] == "cpu"
    assert toy["dataset"]["name"] == "digits"


@pytest.mark.nightly
def test_a_rung_at_a_toy_size(tmp_path):
    records = tmp_path / "ladder.jsonl"
    command = [sys.executable, "-m", "benchmarks.ladder", "1", "--toy", "--records", str(records), "optimizer.lr=0.05"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "worth nothing" in ended.stdout
    record = json.loads(records.read_text())
    assert record["toy"] is True
    (seed,) = record["seeds"]
    assert 0 < seed["value"] <= 1
    assert seed["seconds"] > 0
    assert "optimizer.lr=0.05" in (tmp_path / seed["log"]).read_text()
