"""A sweep on a pool, of which processes are killed at random for some minutes, and which is started again whenever it
has ended. It must leave what a sweep leaves that nobody disturbed, bit for bit, and nothing else.

    python -m tests.storm --minutes 1 --seed 0
"""

import argparse
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ssl_lightning.runs.run import find_runs
from tests.data.synthetic import write_image_folder
from tests.launchers.test_pool import alive, processes_in
from tests.pipeline.test_resume import assert_alike, trained

EXPERIMENTS = {
    "one_process": "defaults: [override /dataset: digits]\nbatch_size: 16\n",
    "two_processes": "defaults: [override /dataset: digits, override /trainer: ddp_cpu]\nbatch_size: 32\n",
    "ranked": "defaults: [override /dataset: digits, override /subset: sas]\nbatch_size: 16\n"
    "subset: {seed: '${seed}', fraction: 0.5, looks: 1}\n",
    "streamed": "defaults: [override /dataset: image_folder]\nbatch_size: 16\n"
    "dataset: {root: ../images, storage: streamed, workers: 1, image_size: 16}\n",
}
"""Jobs of four kinds."""
SWEEP = (
    "-m",
    "--config-dir=../conf",
    f"experiment={','.join(EXPERIMENTS)}",  # every kind in turn: the storm meets the first jobs most
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=7",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=10",
    "backbone.width=4",
    "method.projector.hidden=16",
    "evaluation=none",
    "hydra/launcher=pool",
    "hydra.launcher.slots=2",
)
PAUSE = 3.0
"""Mean number of seconds between two signals: a job takes about ten on two cores."""
KINDS = {"pool": 1, "job": 3, "second process of a job": 3, "worker": 3}
"""How often a process of each kind is to be hit, in proportion. Before a job trains, it has none of the last two."""
SIGNALS = {signal.SIGKILL: 6, signal.SIGTERM: 1, signal.SIGINT: 1}
"""How often each is sent, in proportion."""
PATIENCE = 900.0
"""Seconds after which a sweep hangs that nobody disturbs any more."""


def start(folder: Path, seeds: int) -> subprocess.Popen[bytes]:
    """The sweep, working in this folder; what it prints is appended to `output.txt` there."""
    own = {"PYTHONPATH": str(Path(__file__).parents[1]), "CUDA_VISIBLE_DEVICES": ""}
    own |= {f"SSL_{kind.upper()}": str(folder / kind) for kind in ("runs", "cache", "data")}
    with (folder / "output.txt").open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "ssl_lightning.commands.train", f"seed={','.join(map(str, range(seeds)))}", *SWEEP],
            cwd=folder,
            env=os.environ | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(folder: Path, sweep: subprocess.Popen[bytes], seeds: int, attempts: int) -> None:
    """Waits for its end, and starts it again where something has failed."""
    try:
        for _ in range(attempts - 1):
            if sweep.wait(PATIENCE) == 0:
                return
            sweep = start(folder, seeds)
        assert sweep.wait(PATIENCE) == 0, f"the sweep still fails: see {folder / 'output.txt'}"
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the sweep hangs: see {folder / 'output.txt'}, {processes_in(folder)}") from None


def kind_of(process: int, commands: dict[int, str]) -> str:
    """What a process is in the sweep, by the command lines of all."""
    command = commands[process]
    try:
        parent = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        parent = 0
    if commands.get(parent) == command:
        return "worker"  # a fork
    if "hydra.job.name=train_ddp_process" in command:
        return "second process of a job"
    return "job" if "hydra.mode=RUN" in command else "pool"


def storm(folder: Path, seeds: int, seconds: float, dice: random.Random) -> Counter[str]:
    """Disturbs the sweep for so long, then lets it come to its end. Returns how often what was hit."""
    hits: Counter[str] = Counter()
    until = time.monotonic() + seconds
    sweep = start(folder, seeds)
    while (wait := min(dice.expovariate(1 / PAUSE), until - time.monotonic())) > 0:
        time.sleep(wait)
        (kind,), (number,) = (dice.choices(list(some), list(some.values())) for some in (KINDS, SIGNALS))
        commands = processes_in(folder)
        kinds = {process: kind_of(process, commands) for process in commands}
        kind = kind if kind in kinds.values() else "job"
        victims = [process for process in kinds if kinds[process] == kind]
        if victims and alive(victim := dice.choice(victims)):
            os.kill(victim, number)
            hits[f"{number.name} to a {kind}"] += 1
        if sweep.poll() is not None:
            hits["sweep started again"] += 1
            sweep = start(folder, seeds)
    print(f"The storm is over: {sum(run.done for run in find_runs([folder / 'runs']))} runs are finished.", flush=True)
    # Jobs of a pool that was killed may be at work still, which the next one's are told.
    finish(folder, sweep, seeds, attempts=4)
    return hits


def assert_same_runs(undisturbed: Path, disturbed: Path) -> int:
    """Returns how many runs were compared."""
    expected, found = ({run.id: run for run in find_runs([folder / "runs"])} for folder in (undisturbed, disturbed))
    assert expected.keys() == found.keys(), expected.keys() ^ found.keys()
    for name, run in expected.items():
        try:
            assert_alike(trained(found[name]), trained(run))
        except AssertionError as error:
            raise AssertionError(f"{found[name].folder} is not what {run.folder} is: {error}") from None
    return len(expected)


def assert_nothing_remains(folder: Path, shared_memory: set[Path]) -> None:
    """Of the disturbed sweep: no process, no temporary file, no segment of shared memory that was not there before."""
    until = time.monotonic() + 60
    while (left := processes_in(folder)) and time.monotonic() < until:
        time.sleep(0.5)
    assert not left, f"processes remain: {left}"
    parts = [*folder.rglob("*.part"), *folder.glob("runs/*/*/features")]
    assert not parts, f"temporary files remain: {parts}"
    segments = [file for file in segments_of_torch() - shared_memory if not alive(int(file.name.split("_")[1]))]
    assert not segments, f"shared memory remains: {segments}"


def segments_of_torch() -> set[Path]:
    return set(Path("/dev/shm").glob("torch_*_*"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=1.0, help="how long processes are killed")
    parser.add_argument("--seed", type=int, default=0, help="of the dice")
    arguments = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="storm-"))
    write_image_folder(work / "images", num_train=320)
    (work / "conf" / "experiment").mkdir(parents=True)
    for name, content in EXPERIMENTS.items():
        (work / "conf" / "experiment" / f"{name}.yaml").write_text(f"# @package _global_\n{content}")
    try:
        weather(work, 60 * arguments.minutes, random.Random(arguments.seed))
    except AssertionError as error:
        sys.exit(f"Something is lost: {error}")
    finally:
        for process in (process for folder in work.iterdir() for process in processes_in(folder)):
            os.kill(process, signal.SIGKILL)
    shutil.rmtree(work)


def weather(work: Path, seconds: float, dice: random.Random) -> None:
    """A sweep without and one with a storm, and what they have left."""
    seeds = 2 + math.ceil(seconds / 60)  # so that a storm does not outlast the jobs
    undisturbed, disturbed = work / "undisturbed", work / "disturbed"
    undisturbed.mkdir()
    disturbed.mkdir()
    began, shared_memory = time.monotonic(), segments_of_torch()
    finish(undisturbed, start(undisturbed, seeds), seeds, 1)
    print(f"An undisturbed sweep has taken {time.monotonic() - began:.0f} s.", flush=True)
    hits = storm(disturbed, seeds, seconds, dice)
    for what, number in sorted(hits.items()):
        print(f"{number:4} × {what}")
    compared = assert_same_runs(undisturbed, disturbed)
    assert_nothing_remains(disturbed, shared_memory)
    print(f"{compared} runs are those of the undisturbed sweep, bit for bit ({time.monotonic() - began:.0f} s).")


if __name__ == "__main__":
    main()
