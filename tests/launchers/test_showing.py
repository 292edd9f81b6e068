"""What a pool shows in a terminal: a real one, whose screen is drawn here from what was written to it."""

import json
import os
import pty
import re
import signal
import sys
import time
from collections.abc import Callable

import pytest

from ssl_lightning.launchers.journal import Journal, Told, journal_here, kept_in
from ssl_lightning.runs.progress import Progress, progress_of_job, write_progress

SCRIPT = """
import json, signal, sys
from ssl_lightning.launchers import pool
from ssl_lightning.launchers.pool import Job, run
from ssl_lightning.launchers.showing import lines_or_live
from ssl_lightning.launchers.slots import Slot

pool.GRACE = 5
texts = json.loads(sys.argv[1])
jobs = [Job(i, [sys.executable, "-c", text], f"job={i}", (f"job={i}",)) for i, text in enumerate(texts)]
how_far = {("job=0",): "far of job=0"}
with pool.signals_collected() as received, lines_or_live(lambda overrides: how_far.get(overrides, "")) as shown:
    codes = run(jobs, [Slot()] * 2, received, False, shown)
print("codes", sorted(codes.values()))
"""


class Terminal:
    """The part of one that is written to here: lines that are rewritten in place, as of 100 columns."""

    def __init__(self) -> None:
        self.written = ""

    def screen(self) -> list[str]:
        lines, row, column = [""], 0, 0
        for sequence, command, letter in re.findall(r"(\x1b\[[?\d;]*([A-Za-z]))|([^\x1b])", self.written):
            number = int(digits) if (digits := sequence[2:-1]).isdecimal() else 1
            if command == "A":
                row -= number
            elif command == "K":
                lines[row] = ""
            elif letter == "\r":
                column = 0
            elif letter == "\n":
                row += 1
                lines += [""] * (row == len(lines))
            elif letter:
                lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in lines]

    @property
    def cursor_is_seen(self) -> bool:
        return self.written.rfind("\x1b[?25h") >= self.written.rfind("\x1b[?25l")


def in_terminal(
    jobs: list[str], act: Callable[[int, Terminal], None] = lambda keyboard, terminal: None
) -> tuple[int, Terminal]:
    """Runs the jobs in a pool there. Exit code, and what was shown.

    Args:
        act: is called again and again while they run, with a file to type into.
    """
    process, place = pty.fork()
    if process == 0:
        os.environ |= {"TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        os.execv(sys.executable, [sys.executable, "-c", SCRIPT, json.dumps(jobs)])
    terminal, until = Terminal(), time.monotonic() + 120
    try:
        while time.monotonic() < until:
            try:
                read = os.read(place, 4096)
            except OSError:  # it has ended
                break
            if not read:
                break
            terminal.written += read.decode(errors="replace")
            act(place, terminal)
        else:
            os.kill(process, signal.SIGKILL)
    finally:
        _, status = os.waitpid(process, 0)
        os.close(place)
    return os.waitstatus_to_exitcode(status), terminal


def test_a_line_of_each_that_runs(tmp_path):
    """And one that counts; at the end, what has become of each."""
    wait = f"import os, time, sys\nwhile not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.05)\n"
    seen: list[list[str]] = []

    def look(keyboard: int, terminal: Terminal) -> None:
        shown = terminal.screen()
        if any("far of job=0" in line for line in shown) and any("hello" in line for line in shown):
            seen.append(shown)
            (tmp_path / "go").touch()

    jobs = [wait, "print('hello [bold]', flush=True)\n" + wait + "sys.exit(3)", "print('last words')"]
    code, terminal = in_terminal(jobs, look)
    assert code == 0, terminal.written
    first = [line for line in seen[0] if line]
    assert re.fullmatch(r"#0 +job=0 +far of job=0 +\d+ s", first[0])
    assert re.fullmatch(r"#1 +job=1 +hello \[bold\] +\d+ s", first[1])
    assert first[2] == "2 running, 1 waiting"
    last = [re.sub(r"\d+ s", "N s", line) for line in terminal.screen() if line]
    assert last[-1] == "codes [0, 0, 3]"
    assert sorted(last[:-1]) == [
        "#0 job=0: done (N s)",
        "#1 job=1: failed: exit code 3",
        "#1 | hello [bold]",
        "#2 job=2: done (N s) | last words",
    ]
    assert terminal.cursor_is_seen


def test_an_interrupt_leaves_a_clean_terminal():
    """Ctrl-C, as it is typed."""
    typed: list[str] = []

    def interrupt(keyboard: int, terminal: Terminal) -> None:
        if not typed and "2 running" in terminal.written:
            os.write(keyboard, b"\x03")
            typed.append("Ctrl-C")

    code, terminal = in_terminal(["import time; time.sleep(1000)"] * 500, interrupt)
    assert code == 0, terminal.written
    assert "2 running, 498 waiting" in terminal.written
    lines = [line.removeprefix("^C") for line in terminal.screen() if line]
    assert lines == [
        "SIGINT: 2 jobs are asked to stop",
        *(f"#{i} job={i}: stopped" for i in range(2)),
        "codes [-15, -15]",
    ]
    assert terminal.cursor_is_seen


@pytest.mark.parametrize("trains", [False, True])
def test_how_far_a_job_is(tmp_path, trains):
    assert progress_of_job(["a=1"]) == ""
    run = tmp_path / "mine/run"
    run.mkdir(parents=True)
    with kept_in(Journal(tmp_path / ".sweeps/grid")):
        assert progress_of_job(["a=1"]) == ""
        journal_here().write(Told(("a=1",), None, run, "", 0.0, 0.0, ""))
        if trains:
            write_progress(run / "progress.json", Progress(30, 100, 2, 5, 1234.0, 0.5, 15.0, 0.0))
        said = "epoch 2 of 5, step 30 of 100, 1,234 images/s, 35 s of training left"
        assert progress_of_job(["a=1"]) == (said if trains else "")
