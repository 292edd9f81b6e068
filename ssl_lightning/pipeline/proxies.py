"""The runs through whose encoders a ranking sees the images."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ssl_lightning.config.check import check
from ssl_lightning.config.components import make, own_modules
from ssl_lightning.config.identity import run_digest
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import UserError
from ssl_lightning.files import locked
from ssl_lightning.runs.initial import initial_content
from ssl_lightning.runs.loading import LoadedRun, checkpoint_of, load_run, untrained
from ssl_lightning.runs.run import Run

Train = Callable[[dict[str, Any]], Run]
"""Brings the run of a config to its end, in this process."""


class ProxyRun:
    """A finished run, named by its folder; or one that is trained on all images when it is needed.

    It is a run like any other, in <paths.runs>/proxies, of the config of the run that asks for it but for what
    `subset.proxy` says. One process trains it, and it resumes when interrupted.

    Args:
        config: of the run that asks, resolved.
        number: of the proxies of a ranking, which differ in their seeds.
        train: how.
    """

    def __init__(self, config: Mapping[str, Any], number: int, train: Train) -> None:
        settings = {key: value for key, value in config["subset"]["proxy"].items() if value is not None}
        self.folder: str | None = settings.pop("run", None)
        self._train = train
        # One looks at whole images, at all of them, and knows nothing of what others have learnt unless it is told to.
        inherited = {key: value for key, value in config.items() if key not in ("resolution", "selection", "init")}
        self.config = {**inherited, **settings}
        self.config["trainer"] = {
            **config["trainer"],
            **settings.get("trainer", {}),
            **{"devices": 1, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False, "max_time": None},
        }
        self.config |= {
            "sweep": "proxies",
            "budget": "epochs",
            "debug": False,
            "force": False,
            "extend": False,
            "seed": self.config["seed"] + number,
            "subset": {"_target_": "ssl_lightning.subsets.random.Full", "fraction": 1.0, "seed": 0},
            "logger": {},
        }
        if "backbone" in settings:  # its method was composed with that of the run that asks
            self.config["method"] = _with_backbone(self.config["method"], settings["backbone"])
        if number and self.folder is not None:
            raise UserError(
                "subset.proxy.run names one run, but subset.runs asks for several. Set subset.runs=1, or "
                "subset.proxy.run=null to train them."
            )
        if self.folder is None:
            check(self.config, TrainConfig, "subset.proxy", late=True)

    @cached_property
    def digest(self) -> str:
        """Changes with all that the encoder depends on. Of a run that was named, this is its checkpoint."""
        if self.folder is not None:
            with checkpoint_of(self.folder).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        read = {"data": make(self.config["dataset"]).content_digest("train"), **initial_content(self.config)}
        return run_digest(self.config, TrainConfig, read)

    def load(self) -> LoadedRun:
        """The run with its frozen method; trains it first where it must. Waits for a process that is training it."""
        if self.folder is not None:
            return load_run(self.folder, own_modules(self.config))._replace(digest=self.digest)
        if self.config["trainer"]["fast_dev_run"]:
            self._train(self.config)
            return untrained(self.config)
        with locked(Path(self.config["paths"]["runs"]) / self.config["sweep"] / self.digest):
            return load_run(self._train(self.config).folder, trusted=None)._replace(digest=self.digest)


def proxies_of(config: Mapping[str, Any], number: int, train: Train) -> Sequence[ProxyRun]:
    """As many proxies as a rule needs."""
    if number and config["subset"].get("proxy") is None:
        raise UserError("subset.proxy is null, but this subset is ranked by a proxy. Choose proxy@subset.proxy=simclr.")
    return [ProxyRun(config, i, train) for i in range(number)]


def _with_backbone(method: Any, backbone: Any) -> Any:
    """A method, and what it wraps, with another backbone."""
    if not isinstance(method, Mapping):
        return method
    return {
        key: backbone if key == "backbone" else _with_backbone(value, backbone) if key == "base" else value
        for key, value in method.items()
    }
