"""A run that is made quickly, from training to figures, in a folder that is gone afterwards."""

import contextlib
import shutil
from collections.abc import Iterator

from ssl_lightning.runs.run import Run

REHEARSALS = ".rehearsals"


@contextlib.contextmanager
def rehearsed(run: Run, makes: bool) -> Iterator[Run]:
    """A run in the place of this one, in a folder beside it that all processes know.

    Args:
        makes: whether this process makes and removes the folder: one of them does.
    """
    place = Run(run.folder.parent / REHEARSALS / run.id)
    if not makes:
        yield place
        return
    missing = [folder for folder in place.folder.parents if not folder.exists()]
    shutil.rmtree(place.folder, ignore_errors=True)  # of one that was killed
    try:
        yield place
    finally:
        shutil.rmtree(place.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # another one may be there
            for folder in missing:
                folder.rmdir()
