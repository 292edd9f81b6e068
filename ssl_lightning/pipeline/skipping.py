"""Jobs of a grid that nothing is left to do for: they need no process, which takes seconds to start."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from ssl_lightning.config.check import own
from ssl_lightning.config.components import make
from ssl_lightning.config.grid import Grid
from ssl_lightning.config.identity import contents_of
from ssl_lightning.config.schema import Cut
from ssl_lightning.errors import UserError
from ssl_lightning.files import folder_of_sweep
from ssl_lightning.pipeline.sweeps import Job, jobs_of
from ssl_lightning.runs.initial import initial_content
from ssl_lightning.runs.run import Run


def done_jobs(grid: Grid) -> list[Job]:
    """Those whose run is finished, with all that it leaves, under the config that the job has now, and on the data
    that lie there now. Of any other, its process finds out what there is to do."""
    finished = [job for job in jobs_of(grid) if job.state == "finished"]
    reads = Contents()
    configs = grid.configs([job.overrides for job in finished])
    return [
        job
        for job, config in zip(finished, configs, strict=True)
        if config is not None and job.run is not None and _as_it_is(config, job.run, reads)
    ]


class Contents:
    """What runs read, as digests; each dataset and file is looked at once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def of(self, config: Mapping[str, Any]) -> dict[str, str]:
        """As an `Identity` keeps them, of a resolved config.

        Raises:
            UserError: something is not there.
        """
        read = {
            "data": self._once(config["dataset"], lambda: make(config["dataset"]).content_digest("train")),
            "subset": self._once(config["subset"], lambda: make(own(config["subset"], Cut)).content_digest()),
            **initial_content(config),
        }
        return contents_of(config, read)

    def _once(self, described: Mapping[str, Any], digest: Callable[[], str]) -> str:
        key = json.dumps(described, sort_keys=True, default=str)
        if key not in self._known:
            self._known[key] = digest()
        return self._known[key]


def _as_it_is(config: Mapping[str, Any], run: Run, reads: Contents) -> bool:
    if config.get("force"):
        return False
    try:
        run.results()  # which can be read
        identity, described = run.described()
        place = folder_of_sweep(config["paths"]["runs"], config["sweep"]) / identity.run_name
        if described != config or place.resolve() != run.folder.resolve() or not run.drawn:
            return False
        return reads.of(config) == dict(identity.contents)
    except (UserError, OSError):
        return False
