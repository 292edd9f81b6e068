"""The run through whose eyes a ranking sees the images."""

import hashlib
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge, Gt

from ssl_lightning.config.check import check_late
from ssl_lightning.config.components import make, own_modules
from ssl_lightning.config.identity import identity
from ssl_lightning.config.schema import Component
from ssl_lightning.errors import UserError
from ssl_lightning.files import locked
from ssl_lightning.runs.loading import LoadedRun, checkpoint_of, load_run, untrained


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """A finished run, or the settings of one that is trained on all images of `dataset` when it is needed.

    A proxy is a run like any other: one process trains it, in <paths.runs>/proxies, and it resumes when interrupted.

    Args:
        run: folder of a finished run; None trains one. The other settings then describe it, as in `conf/train.yaml`.
    """

    run: str | None = None
    dataset: Annotated[Any, Component("ssl_lightning.data.dataset.ImageDataset")]
    backbone: Annotated[Any, Component("torch.nn.Module", late=True)]
    augment: Annotated[Any, Component("ssl_lightning.data.views.Augment")]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe", late=True)]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod", late=True)]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite", late=True)]
    max_epochs: Annotated[int, Gt(0)]
    batch_size: Annotated[int, Gt(0)]
    seed: Annotated[int, Ge(0)]
    checkpoint: dict[str, Any]
    paths: dict[str, str]
    callbacks: dict[str, Annotated[Any, Component("lightning.pytorch.Callback", late=True)]] = field(
        default_factory=dict
    )
    channels_last: bool = True
    precision: str | int = "32-true"
    accelerator: str = "auto"
    enable_progress_bar: bool = True
    fast_dev_run: bool = False

    def seeded(self, number: int) -> "Proxy":
        """The proxy of the same settings with another seed."""
        if number and self.run is not None:
            raise UserError(
                "subset.proxy.run names one run, but subset.runs asks for several. Set subset.runs=1, or "
                "subset.proxy.run=null to train them."
            )
        return replace(self, seed=self.seed + number)

    def config(self) -> dict[str, Any]:
        """What `ssl-train` would be given."""
        settings = asdict(self)
        trainer = {key: settings.pop(key) for key in ("precision", "accelerator", "enable_progress_bar")}
        trainer |= {key: settings.pop(key) for key in ("max_epochs", "fast_dev_run")}
        del settings["run"]
        return settings | {
            "sweep": "proxies",
            "budget": "epochs",
            "debug": False,
            "compile": False,
            "float32_matmul": "highest",
            "subset": {"_target_": "ssl_lightning.subsets.random.Full", "fraction": 1.0, "seed": 0},
            "trainer": {
                "_target_": "lightning.pytorch.Trainer",
                "devices": 1,
                "num_nodes": 1,
                "strategy": "auto",
                "max_steps": -1,
                "log_every_n_steps": 10,
                **trainer,
            },
            "logger": {},
        }

    @cached_property
    def key(self) -> str:
        """Changes with all that the encoder depends on. Of a run that was named, this is its checkpoint."""
        if self.run is not None:
            with checkpoint_of(self.run).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()[:16]
        config = self.config()
        contents = {"data": make(config["dataset"]).content_digest()}
        return identity(config, contents, ignore=("trainer.accelerator", "trainer.fast_dev_run"))

    def load(self) -> LoadedRun:
        """The run with its frozen method; trains it first where it must. Waits for a process that is training it."""
        if self.run is not None:
            return load_run(self.run, own_modules(asdict(self)))  # what this command itself names may be loaded
        from ssl_lightning.pipeline.pretrain import complete

        check_late(asdict(self), type(self), "subset.proxy")
        config = self.config()
        if self.fast_dev_run:
            complete(config, alone=True)
            return untrained(config)
        with locked(Path(config["paths"]["runs"]) / config["sweep"] / self.key):
            return load_run(complete(config, alone=True).folder, trusted=None)
