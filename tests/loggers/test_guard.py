"""A logger that fails ends no training: it costs a line, and is not called again."""

import os
import signal
import sys
from pathlib import Path

import lightning as L
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.loggers.guard import guard
from ssl_lightning.loggers.wandb_run import wandb_id
from ssl_lightning.runs.metrics import read_metrics
from ssl_lightning.runs.run import find_runs
from tests.callbacks.fitting import fit
from tests.loggers.test_wandb import ARGUMENTS, OFFLINE, description, environment
from tests.processes import ssl_train


class Broken(Logger):
    """Fails at every call of one method, and notes all that are made."""

    name = version = "broken"

    def __init__(self, broken: str) -> None:
        super().__init__()
        self.broken = broken
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self.broken:
            raise OSError(f"no {name} today")

    @property
    def experiment(self):
        return self._called("experiment")

    def log_metrics(self, metrics, step=None):
        self._called("log_metrics")

    def log_hyperparams(self, params, *args, **kwargs):
        self._called("log_hyperparams")

    def log_graph(self, model, input_array=None):
        self._called("log_graph")

    def save(self):
        self._called("save")

    def rewind(self, step):
        self._called("rewind")

    def finalize(self, status):
        self._called("finalize")


@pytest.mark.reliability(
    "a logger fails in mid-training, or wandb's own process is killed",
    lost="what that logger would have shown; `metrics.csv` is whole",
    read="`Warning: Wandb has failed, but the run has not`",
)
@pytest.mark.parametrize("method", ["experiment", "log_metrics", "log_hyperparams", "save", "rewind", "finalize"])
def test_a_logger_that_fails_is_left_out(tmp_path, capsys, method):
    broken, sound, whole = Broken(method), Broken("nothing"), CSVLogger(tmp_path, name="", version="")
    for logger in (broken, sound, whole):
        guard(logger)
    fit(Recorder(), logger=[broken, sound, whole], max_epochs=1)
    for logger in (broken, sound):
        logger.log_hyperparams({})  # by Lightning only where a module has some
    assert isinstance(broken, Broken)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "Warning" in line]
    assert line.startswith(f"Warning: Broken has failed, but the run has not: OSError: no {method} today (")
    assert broken.calls == sound.calls[: len(broken.calls)], "it is called no more"
    assert broken.calls.count(method) == 1
    assert broken.calls[-1] == method
    assert sound.calls.count("log_metrics") == 2  # steps 2 and 3
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3


def test_what_is_asked_to_end_the_training_does():
    class Stops(Broken):
        def log_metrics(self, metrics, step=None):
            raise KeyboardInterrupt

    logger = Stops("nothing")
    guard(logger)
    with pytest.raises(KeyboardInterrupt):
        logger.log_metrics({})


class KillWandb(L.Callback):
    """Kills wandb's own process after a step, once in a working directory."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step < 2 or Path("killed").exists():
            return
        for process in Path("/proc").glob("[0-9]*"):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and "wandb-core" in (process / "cmdline").read_text():
                os.kill(int(process.name), signal.SIGKILL)
                Path("killed").touch()


@pytest.mark.nightly
@pytest.mark.reliability("a logger fails in mid-training, or wandb's own process is killed")
@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_wandb_whose_own_process_is_killed(tmp_path):
    """The next job of a sweep has it again."""
    killing = "+callbacks.kill._target_=tests.loggers.test_guard.KillWandb"
    variables = environment(tmp_path, 1)
    ended = ssl_train(
        tmp_path, "-m", *OFFLINE, *ARGUMENTS, "seed=1,2", "trainer.log_every_n_steps=1", killing, environment=variables
    )
    assert ended.code == 0, ended.output
    assert (tmp_path / "killed").exists()
    assert ended.output.count("Warning: Wandb has failed, but the run has not") == 1
    assert "Traceback" not in ended.output
    first, second = find_runs([tmp_path / "runs"])
    for run in (first, second):
        assert run.done
        assert [row["step"] for row in read_metrics(run.metrics_file)] == ["1", "2", "3", "4"]
    (file,) = tmp_path.glob(f"runs/comparison/wandb/offline-run-*-{second.id}-*/*.wandb")
    assert description(file)["run_id"] == wandb_id(second.id, "comparison")
