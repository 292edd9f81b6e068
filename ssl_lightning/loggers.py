"""Where a run's numbers go besides metrics.csv: wandb, TensorBoard, or any other logger of Lightning's."""

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.configuration import component_name
from ssl_lightning.errors import UserError
from ssl_lightning.runs import Run, subset_name

START_SECONDS, UPLOAD_SECONDS = 8.0, 30.0
"""How long a wandb server may keep a run from starting, and from ending."""

_WITHOUT_SERVER = ("offline", "disabled")


class Wandb(WandbLogger):
    """A wandb run that no server can hold up.

    Args:
        project: of wandb.
        save_dir: folder in which wandb makes its own, `wandb/`.
        entity: user or team; None for the default one of the login.
        mode: `online` needs a login; `offline` keeps runs on this machine, without network; `disabled` does nothing;
            `auto` is what `WANDB_MODE` or wandb's settings files say, else online where there is a login. Where the
            server does not answer, a line says so, and this and all later runs of the process are offline.

    Raises:
        UserError: mode is online, but there is no login.
    """

    _gone_offline: ClassVar[bool] = False  # one job of a sweep has waited for the server: the others need not

    def __init__(
        self,
        project: str,
        save_dir: str,
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
    ) -> None:
        settings = {
            "silent": True,  # a page of text a run otherwise
            "init_timeout": START_SECONDS,
            "finish_timeout": float(os.environ.get("WANDB_FINISH_TIMEOUT", UPLOAD_SECONDS)),
            "finish_timeout_raises": True,
        }
        super().__init__(project=project, save_dir=save_dir, entity=entity, settings=settings)
        self._settle(mode)

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, begun when first asked for; offline if its server does not let it begin."""
        if self._experiment is not None:
            return self._experiment
        try:
            run = super().experiment
        except Exception as error:
            if self._wandb_init["mode"] in _WITHOUT_SERVER:
                raise
            import wandb

            wandb.teardown()  # a run that has failed to begin keeps its id taken otherwise
            self._go_offline(str(error))
            return super().experiment
        if self._wandb_init["mode"] not in _WITHOUT_SERVER:
            print(f"wandb: {run.url}", flush=True)
        return run

    @rank_zero_only
    def _settle(self, mode: str) -> None:
        """What `auto` means here, and whether the server is there: asked at most once in the life of a process."""
        import wandb

        if mode not in _WITHOUT_SERVER:
            settings = wandb.setup(wandb.Settings(silent=True)).settings
            if mode == "auto" and (os.environ.get("WANDB_MODE") or settings.mode != "online"):
                mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
        self._wandb_init["mode"] = "online" if mode == "auto" else mode
        if mode in _WITHOUT_SERVER:
            return
        if Wandb._gone_offline:
            self._wandb_init["mode"] = "offline"
            return
        try:
            logged_in = wandb.login(prompt=False, verify=True)
        except wandb.errors.AuthenticationError as error:
            self._go_offline(str(error))
            return
        if not logged_in and mode == "auto":
            self._go_offline(f"there is no login for {settings.base_url}; `wandb login` makes one")
        elif not logged_in:
            raise UserError(
                f"wandb is to be online, but there is no login for {settings.base_url}. Log in with `wandb login` or "
                "WANDB_API_KEY, or choose logger.wandb.mode=offline."
            )

    def _go_offline(self, reason: str) -> None:
        self._wandb_init["mode"] = "offline"
        Wandb._gone_offline = True
        runs = Path(self.save_dir or "", "wandb", "offline-run-*")
        reason = reason.partition("\n")[0].rstrip(".")
        print(f"wandb goes on offline: {reason}. Later: wandb sync {runs}", flush=True)


class TensorBoard(TensorBoardLogger):
    """Event files in `tensorboard/` of the run's folder.

    Raises:
        UserError: TensorBoard is not installed.
    """

    folder: Path
    """Where event files go; set before the first."""

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise UserError(
                "logger=tensorboard needs a package that is not installed: pip install 'ssl-lightning[tensorboard]'"
            )
        super().__init__(save_dir="", name="", version="")

    @property
    def log_dir(self) -> str:
        return str(self.folder)

    def save(self) -> None:
        """Nothing: what Lightning would write into an hparams.yaml is in the run's config.yaml."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Has TensorBoard forget what was logged after the optimizer step, by a process that was killed."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(session_log=SessionLog(status=SessionLog.START))
        self.experiment.file_writer.add_event(start, step + 1)


def run_loggers(config: Mapping[str, Any], run: Run) -> list[Logger]:
    """The configured loggers, told which run this is. A resumed run keeps its id.

    Raises:
        UserError: a logger cannot work here, for want of a login or of a package.
    """
    loggers: list[Logger] = [instantiate(options) for options in config["logger"].values()]
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            chosen = {key: value for key, value in logger._wandb_init.items() if value is not None}
            logger._wandb_init = {
                "id": run.id,
                "name": run.id,
                "group": config["sweep"],
                "job_type": component_name(config["method"]),
                "tags": [config["dataset"]["name"], subset_name(config["subset"])],
                "config": dict(config),
                "resume": "allow",
            } | chosen
        if isinstance(logger, TensorBoard):
            logger.folder = run.folder / "tensorboard"
    return loggers


def log_results(
    loggers: Sequence[Logger], config: Mapping[str, Any], results: Mapping[str, Any], figures: Mapping[str, Path]
) -> None:
    """Results and figures to the loggers that show them, and an end to their runs: each job has its own.

    A logger that fails costs a line of warning: the results are in the run's folder by now.
    """
    for logger in loggers:
        try:
            if isinstance(logger, WandbLogger):
                _log_to_wandb(logger.experiment, results, figures)
            elif isinstance(logger, TensorBoardLogger):
                _log_to_tensorboard(logger, config, results, figures)
        except Exception as error:
            _warn(type(logger).__name__, error)


def _log_to_wandb(run: Any, results: Mapping[str, Any], figures: Mapping[str, Path]) -> None:
    import wandb

    try:
        run.summary.update(results["metrics"] | _costs(results))
        run.log({f"figures/{name}": wandb.Image(str(file)) for name, file in figures.items()})
    finally:
        _finish(run)


def _log_to_tensorboard(
    logger: TensorBoardLogger, config: Mapping[str, Any], results: Mapping[str, Any], figures: Mapping[str, Path]
) -> None:
    import numpy as np
    from PIL import Image

    step = results["cost"]["optimizer_steps"]
    metrics = {f"results/{name}": value for name, value in results["metrics"].items()}
    logger.log_hyperparams(dict(config), metrics, step)
    logger.log_metrics(_costs(results), step)
    for name, file in figures.items():
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        logger.experiment.add_image(f"figures/{name}", pixels, step, dataformats="HWC")
    logger.experiment.close()


def _costs(results: Mapping[str, Any]) -> dict[str, float]:
    return {f"cost/{name}": value for name, value in results["cost"].items()}


@contextlib.contextmanager
def ended_by_errors() -> Iterator[None]:
    """Ends the wandb run of a job that fails, or the next job of a sweep would go on with it."""
    try:
        yield
    except BaseException:
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            _finish(wandb.run, exit_code=1)
        raise


def _finish(run: Any, exit_code: int = 0) -> None:
    """Ends a wandb run. What its server does not take in time stays in the run's folder."""
    folder = Path(run.dir).parent
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print(f"wandb: the server did not take all of the run in time. Later: wandb sync {folder}", flush=True)
    except Exception as error:
        _warn("wandb", error)


def _warn(name: str, error: Exception) -> None:
    print(f"Warning: {name} has failed, but the run has not: {error!r}", file=sys.stderr, flush=True)
