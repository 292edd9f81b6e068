"""A SLURM of two nodes on this machine, and commands that hand jobs over to it."""

import getpass
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Ended

TOP = Path(__file__).parents[2]
PROGRAMS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
MISSING = [name for name in ("munged", "slurmctld", "slurmd") if shutil.which(name, path=PROGRAMS) is None] + [
    name for name in ("submitit", "hydra_plugins.hydra_submitit_launcher") if importlib.util.find_spec(name) is None
]
"""What the tests need: Debian's packages slurm-wlm and munge, and the extra `slurm` of this one."""

# Nodes are named so that Lightning finds the first without asking a name server. A job that is started again waits for
# cred_expire + 1 seconds, of which 5 is the least that SLURM takes. Nodes pose as larger than they are. The first
# number of a job counts for the port at which its processes meet.
CONFIGURATION = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=bf_interval=1,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
FirstJobId={first}
KillWait=5
MinJobAge=3600
NodeName=127.0.0.1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4 RealMemory=8000
NodeName=127.0.0.2 NodeHostname=localhost NodeAddr=127.0.0.2 Port={ports[2]} CPUs=4 RealMemory=8000
PartitionName=debug Nodes=127.0.0.[1-2] Default=YES PriorityTier=1 GraceTime=5 State=UP
PartitionName=high Nodes=127.0.0.[1-2] PriorityTier=10 PreemptMode=OFF State=UP
"""


@dataclass(frozen=True)
class Cluster:
    """
    Args:
        folder: of its configuration, logs and state.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Of what talks to it, and so of its jobs."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PL_", "SLURM_"))}
        path = os.pathsep.join([str(TOP), *filter(None, [os.environ.get("PYTHONPATH")])])
        own = {"SLURM_CONF": str(self.folder / "slurm.conf"), "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
        return inherited | own | {"OMP_NUM_THREADS": "1", "PATH": PROGRAMS}

    def __call__(self, *command: str) -> str:
        """What a program of SLURM's answers."""
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout

    def shown(self, job: str) -> dict[str, str]:
        """What SLURM knows of a job: JobState, Restarts and so on."""
        words = self("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def jobs(self) -> list[str]:
        """Those in the queue, without their numbers in an array."""
        return sorted(set(self("squeue", "--noheader", "--format=%F").split()))

    @contextmanager
    def started(self, folder: Path, *command: str) -> Iterator[subprocess.Popen[str]]:
        """A console script. What is left of its jobs is cancelled at the end."""
        process = subprocess.Popen(
            [str(Path(sys.executable).parent / command[0]), *command[1:]],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            self("scancel", f"--user={getpass.getuser()}")
            until(lambda: not self.jobs())

    def run(self, folder: Path, *command: str) -> Ended:
        """As `started`, to its end."""
        with self.started(folder, *command) as process:
            return ended(process)


def ended(process: subprocess.Popen[str]) -> Ended:
    output, _ = process.communicate(timeout=240)
    return Ended(process.returncode, output)


def until(condition: Callable[[], object], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@contextmanager
def _daemon(folder: Path, environment: dict[str, str], *command: str) -> Iterator[None]:
    program = shutil.which(command[0], path=PROGRAMS)
    assert program is not None
    with (folder / f"{command[0]}-{command[-1].rpartition('/')[2]}.txt").open("w") as said:
        process = subprocess.Popen([program, *command[1:]], env=environment, stdout=said, stderr=said)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Its daemons are children of this process, and end in the reverse order."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants its socket to be reachable for all
        (folder / "state").mkdir()
        ports = _free_ports(3)
        text = CONFIGURATION.format(folder=folder, user=getpass.getuser(), ports=ports, first=1 + ports[0] % 9000)
        (folder / "slurm.conf").write_text(text)
        one = Cluster(folder)
        munge = {
            word: str(folder / f"munge.{word.rpartition('-')[0]}")
            for word in ("socket", "key-file", "pid-file", "log-file", "seed-file")
        }
        munge["socket"] = str(folder / "munge.socket")
        with ExitStack() as stack:

            def start(*command: str) -> None:
                stack.enter_context(_daemon(folder, one.environment, *command))

            one("mungekey", "--create", f"--keyfile={munge['key-file']}")
            start("munged", "--foreground", *(f"--{word}={file}" for word, file in munge.items()))
            until(Path(munge["socket"]).exists)
            start("slurmctld", "-D", "-i")
            for node in ("127.0.0.1", "127.0.0.2"):
                (folder / f"spool-{node}").mkdir()
                start("slurmd", "-D", "-N", node)
            until(lambda: _idle(one) == "2")
            yield one


def _idle(cluster: Cluster) -> str:
    """How many nodes are."""
    answer = subprocess.run(
        ["sinfo", "--noheader", "--partition=debug", "--states=idle", "--format=%D"],
        env=cluster.environment,
        capture_output=True,
        text=True,
    )
    return answer.stdout.strip()
