"""A part in a process of its own, so that whatever happens to it costs the others nothing."""

import contextlib
import json
import multiprocessing
import os
import platform
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.setting import Part, Setting
from ssl_lightning.files import write_json

Record = dict[str, Any]
"""Of a part: name, table, status (`ok`, `failed`, `out of time` or `left out`), and where it has begun its seconds,
figures, what they are `of`, and its error."""
PATIENCE = 5
"""How much longer a CPU may take for a toy: most of it is starting processes."""
OUTPUT, FIGURES = "output.txt", "figures.json"
FORKED = multiprocessing.get_context("forkserver")
"""A part begins as a copy of a process that has imported all, and has touched no GPU."""
FORKED.set_forkserver_preload(["benchmarks.gpu.parts", "ssl_lightning.pipeline.pretrain", "sklearn.datasets"])
TOYS = "Toy figures of a CPU, worth nothing"


def described(setting: Setting) -> dict[str, Any]:
    """What figures are of."""
    versions = {"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    if setting.toy:
        return {"device": f"{platform.machine()} CPU", "torch": torch.__version__, "note": TOYS}
    return {"device": torch.cuda.get_device_name(), **versions}


def run_all(
    parts: Sequence[Part],
    toy: bool,
    folder: Path | None,
    seconds: float,
    tell: Callable[[list[Record]], None],
    start: BaseContext = FORKED,
) -> list[Record]:
    """One part after another, for so many seconds; what would begin or go on later is left out, or ended.

    Args:
        tell: is told of all records so far after each part.
        start: how processes start.
    """
    started = time.monotonic()
    records: list[Record] = []
    for part in parts:
        left = seconds - (time.monotonic() - started)
        record: Record = {"name": part.name, "table": part.table, "status": "left out"}
        limit = min(part.limit * (PATIENCE if toy else 1), left)
        records.append(record | (run(part, toy, folder, limit, start) if left > 0 else {}))
        tell(records)
    return records


def run(part: Part, toy: bool, folder: Path | None, limit: float, start: BaseContext = FORKED) -> Record:
    """Status, seconds and figures of a part, which is ended after so many seconds, with all that it has started.

    Args:
        start: how its process starts.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as work:
        place = Path(work)
        process = start.Process(target=_work, args=(part, toy, folder, place))  # type: ignore[attr-defined]
        started = time.monotonic()
        process.start()
        try:
            process.join(limit)
            code = process.exitcode
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # it may not have a group of its own yet
            process.join()
        status = "out of time" if code is None else "failed" if code else "ok"
        record: Record = {"status": status, "seconds": round(time.monotonic() - started, 1)}
        with contextlib.suppress(OSError):
            record |= json.loads((place / FIGURES).read_text())
        if code is None:
            record["error"] = f"ended after {limit:.0f} s"
        elif code and "error" not in record:  # a crash
            lines = (
                (place / OUTPUT).read_text(errors="replace").strip().splitlines() if (place / OUTPUT).exists() else []
            )
            record["error"] = f"exit code {code}" + (f": {lines[-1]}" if lines else "")
    return record


def _work(part: Part, toy: bool, folder: Path | None, place: Path) -> None:
    """What the process of a part does: writes what it prints, its figures and its error into its place."""
    os.setsid()
    output = os.open(place / OUTPUT, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    setting = Setting(toy, place / "work", folder)
    setting.work.mkdir()
    written: Record = {"figures": {}}
    try:
        written["of"] = described(setting)
        for figures in part.measure(setting):
            written["figures"] |= figures
            write_json(place / FIGURES, written)
    except BaseException as error:
        lines = "".join(traceback.format_exception_only(error)).strip().splitlines()
        write_json(place / FIGURES, written | {"error": lines[0]})
        raise
