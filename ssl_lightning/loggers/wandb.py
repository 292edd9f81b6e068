"""wandb."""

import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Gt, Len
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import rank_zero_experiment
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import wandb_arguments, wandb_run
from ssl_lightning.loggers.artifacts import Artifacts, log_artifacts
from ssl_lightning.loggers.wandb_run import BY_FRACTION, LONGEST_TAG, STEP, found_out, row_by_fraction, wandb_summary
from ssl_lightning.runs.metrics import read_metrics

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
        start_seconds: how long the server may keep a run from starting.
        upload_seconds: how long it may keep a run from ending; `WANDB_FINISH_TIMEOUT` comes before.
        name: of the wandb run; None for that of the run's folder.
        notes: on it, a text of any length.
        tags: beside those of dataset and subset.
        artifacts: whether the encoder, and the ranking of the images, become artifacts of the run, with their lineage.

    Raises:
        UserError: mode is online, but there is no login; or `WANDB_FINISH_TIMEOUT` is no number of seconds.
    """

    metrics_file: Path | None = None
    """Of the run, once it is known."""

    later: ClassVar[str] = ""
    """What uploads its runs where it has gone offline, if not `wandb sync`."""

    _gone_offline: ClassVar[bool] = False  # one job of a sweep has waited for the server: the others need not

    def __init__(
        self,
        project: str,
        save_dir: str,
        entity: str | None = None,
        mode: Literal["auto", "online", "offline", "disabled"] = "auto",
        start_seconds: Annotated[float, Gt(0)] = 8.0,
        upload_seconds: Annotated[float, Gt(0)] = 30.0,
        name: str | None = None,
        notes: str | None = None,
        tags: Sequence[Annotated[str, Len(1, LONGEST_TAG)]] = (),
        artifacts: bool = False,
    ) -> None:
        settings = {
            "silent": True,  # a page of text a run otherwise
            "init_timeout": start_seconds,
            "finish_timeout": _finish_timeout(upload_seconds),
            "finish_timeout_raises": True,
        }
        own: dict[str, Any] = {"entity": entity, "notes": notes, "tags": list(tags), "settings": settings}
        super().__init__(name, save_dir, project=project, **own)
        self.artifacts = artifacts
        self._settle(mode)

    @property
    def _mode(self) -> str:
        return wandb_arguments(self)["mode"]

    @_mode.setter
    def _mode(self, mode: str) -> None:
        wandb_arguments(self)["mode"] = mode

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The wandb run, begun when first asked for; offline if its server does not let it begin."""
        if (begun := wandb_run(self)) is not None:
            return begun
        try:
            run = self._begin()
        except Exception as error:
            if self._mode in _WITHOUT_SERVER:
                raise
            forget_service()  # a run that has failed to begin keeps its id taken otherwise
            self._go_offline(str(error))
            return self._begin()
        if self._mode not in _WITHOUT_SERVER:
            print(f"wandb: {run.url}", flush=True)
        return run

    def _begin(self) -> Any:
        """Curves are drawn over optimizer steps, which is Lightning's choice; over epochs where a panel asks for it."""
        run = super().experiment
        for axis in ("epoch", "fraction"):  # and no curves worth a panel
            run.define_metric(axis, step_metric=STEP, hidden=True)
        run.define_metric(f"{BY_FRACTION}*", step_metric="fraction", summary="none", hidden=True)
        return run

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Offline, a resumed run begins another folder, and a process that was killed may have left no row in its own:
        those up to the optimizer step are logged again."""
        if not step or self.metrics_file is None or self.experiment is None or self._mode != "offline":
            return
        log_rows(self, [row for row in read_metrics(self.metrics_file) if int(row["step"]) <= step])

    @rank_zero_only
    def _settle(self, mode: str) -> None:
        """What `auto` means here, and whether the server is there: asked at most once in the life of a process."""
        import wandb

        if mode not in _WITHOUT_SERVER:
            settings = wandb.setup(wandb.Settings(silent=True)).settings
            if mode == "auto" and (os.environ.get("WANDB_MODE") or settings.mode != "online"):
                mode = {"dryrun": "offline", "run": "online"}.get(settings.mode, settings.mode)
        self._mode = "online" if mode == "auto" else mode
        if mode in _WITHOUT_SERVER:
            return
        if Wandb._gone_offline:
            self._mode = "offline"
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
        self._mode = "offline"
        Wandb._gone_offline = True
        later = self.later or f"wandb sync {Path(self.save_dir or '', 'wandb', 'offline-run-*')}"
        reason = reason.partition("\n")[0].rstrip(".")
        print(f"wandb goes on offline: {reason}. Later: {later}", flush=True)


def _finish_timeout(upload_seconds: float) -> float:
    if not (given := os.environ.get("WANDB_FINISH_TIMEOUT")):
        return upload_seconds
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(given)) < math.inf:
            return seconds
    raise UserError(
        f"WANDB_FINISH_TIMEOUT is {given!r}, which is no number of seconds above 0. Give one, or unset it: "
        "logger.wandb.upload_seconds says the same."
    )


def log_rows(logger: WandbLogger, rows: Iterable[Mapping[str, str]]) -> None:
    """Rows of a metrics.csv, as they were logged.

    Raises:
        ValueError: what is no number.
    """
    for row in rows:
        logger.log_metrics(numbers_of(row), int(row["step"]))


def numbers_of(row: Mapping[str, str]) -> dict[str, float]:
    """
    Raises:
        ValueError: of what is none.
    """
    values = {name: value for name, value in row.items() if value and name != "step"}
    return {name: int(value) if value.isdecimal() else float(value) for name, value in values.items()}


def log_to_wandb(
    logger: WandbLogger, results: Mapping[str, Any], figures: Mapping[str, Path], artifacts: Artifacts | None
) -> bool:
    """Results and figures of a run, and an end to its wandb run. Returns whether a server has all of it."""
    show_results(logger, results, figures)
    if artifacts is not None and isinstance(logger, Wandb) and logger.artifacts:
        log_artifacts(logger.experiment, artifacts, results)
    return _finish(logger.experiment) and wandb_arguments(logger).get("mode") == "online"


def show_results(
    logger: WandbLogger,
    results: Mapping[str, Any],
    figures: Mapping[str, Path],
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> None:
    """
    Args:
        evaluations: of the run under other protocols than that of its results.
    """
    import wandb

    run = logger.experiment
    run.config.update(found_out(results), allow_val_change=True)
    run.summary.update(wandb_summary(results, evaluations))
    if row := row_by_fraction(results):
        run.log(row)
    if figures:
        run.log({f"figures/{name}": wandb.Image(str(file)) for name, file in figures.items()})


@contextlib.contextmanager
def ended_by_errors() -> Iterator[None]:
    """Ends the wandb run of a job that fails, or the next job of a sweep would go on with it."""
    try:
        yield
    except BaseException:
        end_wandb(exit_code=1)
        raise


def end_wandb(exit_code: int = 0) -> None:
    """Ends the wandb run of this process, whatever has become of wandb's own process."""
    wandb = sys.modules.get("wandb")
    if wandb is None or wandb.run is None:
        return
    try:
        _finish(wandb.run, exit_code)
    except Exception:
        forget_service()


def forget_service() -> None:
    """The next run starts another, and the end of this process does not ask the one that is gone, which is an error."""
    if "wandb" not in sys.modules:
        return
    import wandb

    wandb.run = None  # one that could not be ended would be the next job's
    with contextlib.suppress(Exception, SystemExit):  # the latter where its exit code is an error's
        wandb.teardown()


def _finish(run: Any, exit_code: int = 0) -> bool:
    """Ends a wandb run. What its server does not take in time stays in the run's folder, and False is returned."""
    folder = Path(run.dir).parent
    try:
        run.finish(exit_code=exit_code)
    except TimeoutError:
        print(f"wandb: the server did not take all of the run in time. Later: wandb sync {folder}", flush=True)
        return False
    return True
