"""Where the time of a training went, as one of Lightning's profilers sees it, in the run's folder."""

import contextlib
import time
from collections.abc import Iterator

import lightning as L
from lightning.pytorch.profilers import PassThroughProfiler

from ssl_lightning.errors import UserError, warn
from ssl_lightning.runs.run import Run


@contextlib.contextmanager
def profiled(trainer: L.Trainer, run: Run, named: bool) -> Iterator[None]:
    """Whatever the trainer's profiler writes about what is done meanwhile lies in the run's folder, in files of this
    command and this process, also where that is interrupted or fails. A process that is killed leaves none.

    Args:
        named: where that is interrupted or fails, the first process says where they are.

    Raises:
        UserError: the folder for it is a link, as one of somebody else's run may be that leads elsewhere.
    """
    profiler = trainer.profiler  # type: ignore[attr-defined]
    if not _profiles(trainer):
        yield
        return
    if run.profiles.is_symlink():
        raise UserError(f"{run.profiles} is a link. Put a folder in its place: nothing is written through it.")
    kind = type(profiler).__name__.removesuffix("Profiler").lower()
    node = [f"node{trainer.node_rank}"] if trainer.num_nodes > 1 else []
    profiler.dirpath = run.profiles
    profiler.filename = "-".join([profiler.filename or kind, time.strftime("%Y%m%d-%H%M%S"), *node])
    try:
        yield
    except BaseException:
        try:
            profiler.describe()  # Lightning does only at the end
        except Exception as error:
            warn("writing the profile", error)
        else:
            if named and trainer.is_global_zero:
                name_profile(trainer, run)
        raise


def name_profile(trainer: L.Trainer, run: Run) -> None:
    """Says where the profiles of a run are, or that there is none, where the trainer has a profiler."""
    if not _profiles(trainer):
        return
    if run.profiles.exists():
        print(f"Profile: {run.profiles}", flush=True)
    else:
        print("No profile: nothing was trained. force=true trains anew.", flush=True)


def _profiles(trainer: L.Trainer) -> bool:
    return not isinstance(trainer.profiler, PassThroughProfiler)  # type: ignore[attr-defined]
