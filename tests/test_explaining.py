"""Errors of other libraries become one line with a file or place and a remedy. Most are the real ones."""

import errno
import os
import pickle
import resource
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import lightning as L
import numpy as np
import pytest
import torch
import wandb
import yaml
from hydra.utils import instantiate
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader

from ssl_lightning.explaining import explained, same_command
from ssl_lightning.files import replacing, write_text
from ssl_lightning.known_errors import DEBUG
from tests.parts import Faulty

WITHOUT_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


def raising(error: BaseException) -> Callable[[Path], None]:
    """Where the real error needs a machine that tests do not have."""

    def action(folder: Path) -> None:
        raise error

    return action


def with_text(error: str, text: str) -> Callable[[Path], None]:
    return raising(type(error, (RuntimeError,), {})(text))


def many_files(folder: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 5, before[1]))
    try:
        _ = [open(os.devnull) for _ in range(50)]  # noqa: SIM115
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def taken_port(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        torch.distributed.TCPStore("127.0.0.1", taken.getsockname()[1], 2, True, wait_for_workers=False)


def below_a_file(folder: Path) -> None:
    (folder / "file").touch()
    (folder / "file" / "runs").mkdir()


def circle(folder: Path) -> None:
    (folder / "circle").symlink_to("circle")
    (folder / "circle").read_bytes()


def written(name: str, content: bytes, read: Callable[[Path], object]) -> Callable[[Path], None]:
    def action(folder: Path) -> None:
        (folder / name).write_bytes(content)
        read(folder / name)

    return action


def weights(file: Path) -> object:
    return torch.load(file, weights_only=True)


def killed_worker(folder: Path) -> None:
    class Killing(list):
        def __getitem__(self, index):
            os.kill(os.getpid(), 9)

    list(DataLoader(Killing([1]), num_workers=1, multiprocessing_context="fork"))


def unseen(logged: dict[str, float]) -> Callable[[Path], None]:
    """A callback that waits for what nobody logs."""

    def action(folder: Path) -> None:
        EarlyStopping("foo")._validate_condition_metric(logged)

    return action


def deep(number: int = 0) -> int:
    return deep(number + 1) + 1


@pytest.mark.parametrize(
    ("action", "said"),
    [
        # The file system
        (lambda folder: Path("/dev/full").write_text("x" * 2**20), ["No space left on device. Free some space"]),
        (lambda folder: (folder / "none").read_text(), ["{folder}/none: No such file", "Check the path"]),
        (below_a_file, ["{folder}/file/runs: Not a directory. A part of the path is a file"]),
        (lambda folder: folder.read_text(), ["{folder}: Is a directory. It is a folder: give a file."]),
        (lambda folder: (folder / ("x" * 300)).touch(), ["File name too long. Choose a shorter name."]),
        (circle, ["{folder}/circle: Too many levels of symbolic links. Links lead in a circle there"]),
        (many_files, ["Too many open files. Raise the limit, `ulimit -n 4096`, or lower dataset.workers."]),
        (raising(OSError(errno.EDQUOT, os.strerror(errno.EDQUOT), "/x")), ["/x: Disk quota", "delete something"]),
        (
            raising(OSError(errno.EROFS, "Read-only", "/x")),
            ["/x: Read-only. Choose a folder that can be written: paths.runs (SSL_RUNS), paths.cache (SSL_CACHE)."],
        ),
        (raising(PermissionError(errno.EACCES, "Denied", b"/x")), ["/x: Denied. Ask for the permission, or"]),
        (raising(BlockingIOError(errno.EAGAIN, "Temporarily unavailable")), ["too many processes", "slots"]),
        (raising(OSError(errno.EIO, "Input/output error", "/x")), ["/x: Input/output error. The disk or the network"]),
        # Files of torch and others
        (lambda folder: torch.save({"a": torch.zeros(9)}, "/dev/full"), ["could not be written", "the disk is full"]),
        (
            with_text("RuntimeError", "[enforce fail at inline_container.cc:664] . unexpected pos 4 vs 2"),
            ["paths.runs"],
        ),
        (with_text("RuntimeError", "PytorchStreamWriter failed writing file data/3: file write failed"), ["full"]),
        (written("cut.pt", b"PK\3\4" + bytes(99), weights), ["is damaged or cut off. Delete it, or fetch it again"]),
        (written("empty.pt", b"", weights), ["is damaged or cut off"]),
        (written("code.pt", pickle.dumps(Path("x"), 2), weights), ["more than weights", "nothing in it was executed"]),
        (lambda folder: nn.Linear(2, 3).load_state_dict(nn.Linear(4, 3).state_dict()), ["than Linear: size mismatch"]),
        (written("a.yaml", b"a: [1\nb: 2\n", lambda f: yaml.safe_load(f.open())), ["{folder}/a.yaml:2 is no valid"]),
        (written("a.txt", b"\xff", lambda f: f.read_text(encoding="utf-8")), ["is not UTF-8", "Save it as UTF-8"]),
        (lambda folder: "é".encode("ascii"), ["'ascii' codec can't encode", "PYTHONUTF8=1"]),
        (lambda folder: wandb.Settings(project="a/b"), ["a setting of logger.wandb: Invalid project name 'a/b'"]),
        (lambda folder: wandb.Settings(mode="bogus"), ["wandb's setting mode is 'bogus': Input should", "WANDB_"]),
        (lambda folder: wandb.Settings(quiet="abc"), ["wandb's setting quiet is 'abc': Input should be a valid bool"]),
        # Callbacks
        (
            unseen({"loss": 1, "x": 2}),
            ["EarlyStopping watches 'foo'", "`loss`, `x`. Choose one of these as its monitor"],
        ),
        # Memory
        (lambda folder: torch.empty(2**50), ["a tensor of 4503599627370496 bytes did not fit. Lower batch_size"]),
        (lambda folder: np.empty(2**50), ["The memory is full. Lower batch_size or dataset.workers"]),
        (raising(MemoryError()), ["The memory is full. Lower batch_size"]),
        (
            raising(torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB")),
            ["GPU is full", "batch_size", "bf16-mixed"],
        ),
        (with_text("AcceleratorError", "CUDA error: out of memory\nCUDA kernel errors"), ["GPU is full"]),
        (
            with_text("InductorError", "InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config"),
            ["compile needs a C++ compiler", "compile=null"],
        ),
        (
            with_text(
                "InductorError", "CppCompileError: C++ compile error\n\nCommand:\ng++ x\n\nOutput:\nx.h:3: no y\n\nSet"
            ),
            ["The C++ compiler says: x.h:3: no y.", "compile=null"],
        ),
        (
            with_text("BackendCompilerFailed", "backend='inductor' raised:\nTypeError: no such\n\nSet"),
            ["torch.compile failed: TypeError: no such."],
        ),
        (with_text("RuntimeError", "MPS backend out of memory (MPS allocated: 4 GB)"), ["GPU is full"]),
        (with_text("RuntimeError", "unable to open shared memory object </torch_1_2_3> in read-write"), ["--shm-size"]),
        (with_text("RuntimeError", "unable to mmap 4194304 bytes from file </torch_1>: No"), ["dataset.workers=0"]),
        (with_text("RuntimeError", "unable to write to file </torch_7_8>: No space left on device (28)"), ["/dev/shm"]),
        (
            with_text(
                "RuntimeError",
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that "
                "dataloader's workers are out of shared memory. Please try to raise your shared memory limit.",
            ),
            ["/dev/shm", "dataset.workers=0"],
        ),
        (killed_worker, ["was killed, most often because the memory is full", "dataset.workers"]),
        # Devices and processes
        pytest.param(
            lambda folder: torch.zeros(1, device="cuda"), ["no such device", "trainer=cpu"], marks=WITHOUT_GPU
        ),
        pytest.param(lambda folder: L.Trainer(accelerator="gpu"), ["no such device", "trainer=cpu"], marks=WITHOUT_GPU),
        (lambda folder: L.Trainer(accelerator="foo"), ["trainer.accelerator is 'foo'", "Write auto, cpu, gpu or mps"]),
        (lambda folder: L.Trainer(accelerator="cpu", devices=0), ["trainer.devices is 0", "Give 1 or more"]),
        (lambda folder: L.Trainer(accelerator="cpu", devices=[0, 7]), ["trainer.devices must be a number"]),
        (with_text("RuntimeError", "No CUDA GPUs are available"), ["no such device", "nvidia-smi"]),
        (
            with_text("MisconfigurationException", "You requested gpu: [7]\n But your machine only has: [0]"),
            ["trainer.devices asks for a GPU that is not here"],
        ),
        (with_text("RuntimeError", "CUDA error: device-side assert triggered\nmore"), ["CUDA_LAUNCH_BLOCKING=1"]),
        (taken_port, ["The port by which processes meet is taken", "MASTER_PORT="]),
        (raising(OSError(errno.EADDRINUSE, "Address already in use")), ["MASTER_PORT="]),
        (
            with_text(
                "DistNetworkError",
                "The client socket has timed out after 1000ms while trying to connect to "
                "(10.0.0.1, 29500).\nException raised from throwTimeoutError",
            ),
            ["do not reach each other at (10.0.0.1, 29500)", "MASTER_ADDR"],
        ),
        (with_text("RuntimeError", "[/pytorch/gloo/tcp/pair.cc:534] Connection closed by peer [::1]:1"), ["has ended"]),
        (
            with_text("RuntimeError", "Gloo connectFullMesh failed with [pair.cc:152] timed out connecting: refused"),
            ["do not reach each other", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"],
        ),
        # Code
        (raising(ModuleNotFoundError("No module named 'timm.models'")), ["pip install 'ssl-lightning[timm]'"]),
        (
            lambda folder: __import__("a_package_that_is_nowhere"),
            ["a_package_that_is_nowhere is not installed", "PYTHONPATH="],
        ),
        (lambda folder: exec("from torch import nothing_such"), ["cannot import name 'nothing_such' from 'torch'"]),
        (lambda folder: pickle.dumps(lambda: 0), ["an't pickle", "at the top of a module"]),
        (lambda folder: pickle.dumps(i for i in ()), ["annot pickle", "at the top of a module"]),
        (lambda folder: deep(), ["nested without end"]),
    ],
)
def test_what_to_do_is_said(tmp_path, action, said):
    with pytest.raises(Exception) as caught:  # noqa: PT011  of all kinds
        action(tmp_path)
    line = explained(caught.value)
    assert all(part.format(folder=tmp_path) in line for part in said), line
    assert "\n" not in line
    assert "Traceback" not in line


def test_an_unexpected_error_names_its_place():
    def fail() -> None:
        raise ValueError("two\nlines")

    with pytest.raises(ValueError, match="two") as caught:
        fail()
    line = caught.traceback[-1].lineno + 1
    assert explained(caught.value) == f"ValueError: two lines ({__file__}:{line})\n{DEBUG}"


@pytest.mark.parametrize("config", [{"deep": False}, {"deep": True}])
def test_a_users_own_line_is_named_and_not_that_of_a_library(config):
    """Also where the component is made by Hydra, and inside of another."""
    described = {"_target_": "tests.parts.Faulty", **config}
    with pytest.raises(Exception, match="Faulty") as caught:
        instantiate({"_target_": "torch.nn.Sequential", "_args_": [described]})
    said = explained(caught.value)
    start = Faulty.__init__.__code__.co_firstlineno
    assert f"{sys.modules[Faulty.__module__].__file__}:{start + (3 if config['deep'] else 4)})" in said, said
    assert said.startswith("RuntimeError: " if config["deep"] else "KeyError: 'nothing'")


def test_an_error_in_a_worker_is_one_line_with_the_place_in_the_users_code():
    class Failing(list):
        def __getitem__(self, index):
            raise KeyError("nothing")

    with pytest.raises(KeyError) as caught:
        list(DataLoader(Failing([1]), num_workers=1, multiprocessing_context="fork"))
    assert explained(caught.value).startswith(f"KeyError: 'nothing' ({__file__}:")


@pytest.mark.reliability("a full disk")
def test_a_writer_names_its_file_and_what_is_left(tmp_path):
    file = tmp_path / "file" / "results.json"
    (tmp_path / "file").touch()
    with pytest.raises(Exception, match=rf"cannot write {file}: File exists\. It is in the way"):
        write_text(file, "")
    file = tmp_path / "results.json"
    write_text(file, "former")
    with (
        pytest.raises(Exception, match=rf"cannot write {file}: No space .* What was in results.json before is still"),
        replacing(file),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(FileNotFoundError), replacing(file):
        (tmp_path / "another").read_text()
    assert file.read_text() == "former"


@pytest.mark.parametrize(
    ("arguments", "again"),
    [
        (["seed=1"], "the same command"),
        (["force=false"], "the same command"),
        (["force=true", "seed=1"], "the same command without force=true"),
        (["+force=True"], "the same command without force=true"),
    ],
)
def test_a_command_that_trains_anew_does_not_go_on(monkeypatch, arguments, again):
    monkeypatch.setattr(sys, "argv", ["ssl-train", *arguments])
    assert same_command() == again
