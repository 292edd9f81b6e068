"""What all tests share: one thread, one way to call commands, one pair of processes."""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; small tensors are faster so, and results repeatable
os.environ["NUMBA_NUM_THREADS"] = "1"  # else an oracle that uses numba sets those of torch too, for all later tests
os.environ.setdefault("WANDB_SILENT", "true")

import gc
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from beartype import BeartypeConf, beartype

for place in ("SSL_RUNS", "SSL_DATA", "SSL_CACHE"):  # tests write into folders of their own, wherever they are started
    os.environ.pop(place, None)

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
"""Run-time check of annotations, in which an int is a float, as everywhere in Python."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--share", default="1/1", help="k/n: of nightly tests, the k-th of n parts, by their names")


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Of the cases of a test that is marked `one_in(n)`, the first of each n in their order is not nightly. Of nightly
    ones, `--share` chooses."""
    seen: Counter[str] = Counter()
    for item in items:
        if mark := item.get_closest_marker("one_in"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % mark.args[0]:
                item.add_marker(pytest.mark.nightly)
            seen[test] += 1
    part, parts = map(int, config.getoption("share").split("/"))
    if not 1 <= part <= parts:
        raise pytest.UsageError(f"--share is {part}/{parts}. Write k/n, k from 1 to n.")
    left = [item for item in items if item.get_closest_marker("nightly") and _part(item.nodeid, parts) != part]
    if left:
        config.hook.pytest_deselected(items=left)
        out = set(map(id, left))
        items[:] = [item for item in items if id(item) not in out]


def _part(name: str, parts: int) -> int:
    """From 1 to `parts`, always the same for a name."""
    return zlib.crc32(name.encode()) % parts + 1


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: many tests wait for processes of their own, or for a browser."""
    return 1 + len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1))


def pytest_collection_finish() -> None:
    """Leaves what has been imported and collected out of garbage collection: it stays, and is half a million objects
    to be looked at again and again."""
    gc.collect()
    gc.freeze()


class Outcome(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """No test leaves torch with more threads to later ones, which would wait for each other at every operation."""
    yield
    torch = sys.modules.get("torch")
    assert torch is None or torch.get_num_threads() == 1


@pytest.fixture(autouse=True)
def first_rank() -> Iterator[None]:
    """No test leaves Lightning with a rank to later ones: of a trainer that another launcher's variables misled."""
    yield
    if distributed := sys.modules.get("lightning.pytorch.utilities.rank_zero"):
        distributed.rank_zero_only.rank = 0


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs draw no figures, which would take longer than a small training."""
    monkeypatch.setattr("ssl_lightning.pipeline.finished.run_figures", lambda run, results: {})


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], no_figures: None
) -> Callable[..., Outcome]:
    """Calls `ssl-train`, `ssl-select`, `ssl-sweep` or `ssl-report` in this process, in an empty working directory."""
    import importlib

    monkeypatch.chdir(tmp_path)

    def call(name: str, *arguments: str) -> Outcome:
        from hydra.core.hydra_config import HydraConfig

        from ssl_lightning.lightning_internals import forget_application

        forget_application()
        HydraConfig.instance().cfg = None
        monkeypatch.setattr("sys.argv", [name, *arguments])
        capfd.readouterr()
        code: Any = 0
        try:
            importlib.import_module(f"ssl_lightning.commands.{name.removeprefix('ssl-')}").main()
        except SystemExit as exit:
            code = exit.code or 0
        captured = capfd.readouterr()
        return Outcome(code if isinstance(code, int) else 1, captured.out, captured.err)

    return call


class Pair:
    """Two processes with a gloo group, alive as long as the session."""

    def __init__(self) -> None:
        import tempfile

        from tests.processes import context

        self._folder = tempfile.TemporaryDirectory()
        self._pipes, self._processes = [], []
        for rank in range(2):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, f"{self._folder.name}/group", theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Results of `function(rank, *arguments)` of both ranks; it must be importable."""
        for pipe in self._pipes:
            pipe.send((function, arguments))
        answers = [pipe.recv() for pipe in self._pipes]
        for error, _ in answers:
            if error:
                raise AssertionError(error)
        return [result for _, result in answers]

    def close(self) -> None:
        for pipe in self._pipes:
            pipe.send(None)
        for process in self._processes:
            process.join(10)
        self._folder.cleanup()


def _serve(rank: int, file: str, pipe: Any) -> None:
    import traceback

    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    while (task := pipe.recv()) is not None:
        function, arguments = task
        try:
            pipe.send((None, function(rank, *arguments)))
        except Exception:
            pipe.send((traceback.format_exc(), None))
    dist.destroy_process_group()


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    processes = Pair()
    yield processes
    processes.close()
