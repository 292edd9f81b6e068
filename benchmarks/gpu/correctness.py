"""What a GPU computes is right: the tests, the CPU's numbers, the same again, and what was killed."""

import functools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, ClassVar, NamedTuple
from xml.etree import ElementTree

import lightning as L
import torch
from torch import Tensor

from benchmarks.gpu.setting import ROOT, Figures, Setting
from ssl_lightning.config.components import make
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.pipeline.pretrain import pretrain
from ssl_lightning.runs.run import Run, find_runs

LOSS, GRADIENT = 5e-4, 1e-2
"""Relative differences of float32 from float64 that rounding explains: GeSSL's steps within a step make more of it (of
its loss on a GPU 1e-4, of SimCLR's 1e-7); so does, of a gradient, the input of a ReLU that rounds to the other side of
zero (of GeSSL's 1e-3)."""


class Gradient(NamedTuple):
    loss: float
    gradient: Tensor  # of all parameters, float64


def exact() -> None:
    """float32 is not TF32."""
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")


def batch_of(config: dict[str, Any], device: torch.device, dtype: torch.dtype, n: int = 16) -> Batch:
    """Views of noise, made on the CPU."""
    side, channels = (config["dataset"][key] for key in ("image_size", "channels"))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=generator)
    views = make(config["augment"])(images, torch.zeros(channels), torch.ones(channels), generator)
    index = torch.arange(n, device=device)
    return Batch(tuple(some.to(device, dtype) for some in views), index % 10, index)


def gradient_of(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> Gradient:
    """Of the first step."""
    L.seed_everything(0, verbose=False)
    method: SSLMethod = make(config["method"]).to(dtype).to(device)
    loss = method.ssl_loss(batch_of(config, device, dtype), LOCAL, Draw()).loss
    loss.backward()
    return Gradient(float(loss), flat(method))


def flat(method: torch.nn.Module) -> Tensor:
    """The gradient of all parameters."""
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None]).double().cpu()


def differences(found: Gradient, reference: Gradient, name: str) -> Figures:
    """Relative ones.

    Raises:
        RuntimeError: they are no rounding.
    """
    loss = abs(found.loss - reference.loss) / abs(reference.loss)
    gradient = float((found.gradient - reference.gradient).norm() / reference.gradient.norm())
    if not (loss < LOSS and gradient < GRADIENT):
        raise RuntimeError(f"{name}: loss differs by {loss:.1e}, its gradient by {gradient:.1e}, relatively")
    return {f"{name}_loss_difference": loss, f"{name}_gradient_difference": gradient}


def same_draws(setting: Setting) -> Iterator[Figures]:
    """Loss and gradient in float32 on the device, and in float64 on the CPU, of the same views and weights."""
    exact()
    for name in ("simclr", "directclr", "gessl"):
        config = setting.config(f"method={name}")
        reference = gradient_of(config, torch.device("cpu"), torch.float64)
        yield differences(gradient_of(config, setting.device, torch.float32), reference, name)


def unlike(one: Run, other: Run) -> float:
    """The largest difference between weights of two runs."""
    states = [torch.load(run.checkpoint, weights_only=True, map_location="cpu")["state_dict"] for run in (one, other)]
    return max(float((states[0][name].double() - states[1][name].double()).abs().max()) for name in states[0])


def compared(name: str, one: Run, other: Run) -> Figures:
    """Whether two runs have ended alike, to the last bit of weights and metrics, or how far they are apart."""
    distance = unlike(one, other)
    same = distance == 0 and one.results()["metrics"] == other.results()["metrics"]
    return {name: "equal" if same else f"weights differ by up to {distance:.1e}"}


def twice(setting: Setting) -> Iterator[Figures]:
    """The same seed twice: as a run is by default, and with deterministic algorithms."""
    for name, deterministic in (("by_default", "null"), ("deterministic", "true")):
        options = [f"++trainer.deterministic={deterministic}", "++trainer.benchmark=null", "trainer.max_epochs=1"]
        one, other = (pretrain(setting.config(f"sweep={name}-{i}", *options)) for i in range(2))
        yield compared(name, one, other)


class Kill(L.Callback):
    """Kills the process in the step of this number, counted from 1.

    Args:
        step: which.
    """

    changes_training: ClassVar[bool] = False

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step + 1 == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def resumed(setting: Setting) -> Iterator[Figures]:
    """A run that is killed after its first checkpoint and started again, and one that is not."""
    options = ["++trainer.deterministic=true", "++trainer.benchmark=null", "trainer.max_epochs=2", "sweep=killed"]
    start = functools.partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    kill = ["+callbacks.kill._target_=benchmarks.gpu.correctness.Kill", "+callbacks.kill.step=4"]
    killed = start(setting.command(*options, "checkpoint.every_steps=2", *kill))
    runs = find_runs([setting.work / "killed"])
    if killed.returncode != -signal.SIGKILL or len(runs) != 1 or not runs[0].checkpoint.exists():
        raise RuntimeError(f"no run was killed after a checkpoint: {last_line(killed.stdout + killed.stderr)}")
    again = start(setting.command(*options))
    if again.returncode or "resumes" not in again.stdout:
        raise RuntimeError(f"the run did not resume: {last_line(again.stdout + again.stderr)}")
    whole = pretrain(setting.config(*options[:-1], "sweep=whole"))
    yield compared("resumed", runs[0], whole)


def tests(setting: Setting) -> Iterator[Figures]:
    """Every test marked cuda."""
    report = setting.work / "tests.xml"
    options = ["-q", "-m", "cuda", "--strict-markers", "-o", "addopts=", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, f"--junitxml={report}", "tests/test_cuda.py"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        raise RuntimeError(last_line(ended.stdout + ended.stderr))
    counts = ElementTree.parse(report).getroot().find("testsuite")
    assert counts is not None
    number = {name: int(counts.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    wrong = number["failures"] + number["errors"]
    yield {"passed": number["tests"] - wrong - number["skipped"], "failed": wrong, "skipped": number["skipped"]}
    if wrong:
        raise RuntimeError(
            "; ".join(line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR")))
        )


def last_line(output: str) -> str:
    return next((line for line in reversed(output.splitlines()) if line.strip()), "it said nothing")
