"""The runs through whose encoders a ranking sees the images."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ssl_lightning.config.check import check
from ssl_lightning.config.components import make, own_modules
from ssl_lightning.config.identity import described, digest_of, run_digest
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.pseudo_labels import PseudoLabels
from ssl_lightning.errors import UserError
from ssl_lightning.files import locked, replacing
from ssl_lightning.runs.initial import initial_content
from ssl_lightning.runs.loading import LoadedRun, checkpoint_of, load_run, untrained
from ssl_lightning.runs.run import Run
from ssl_lightning.subsets.grouped import GroupedRule
from ssl_lightning.subsets.rule import SubsetRule

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
        key: of `subset`, where its settings stand.
        labelling: gives it the classes to learn; None: those of the dataset.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        number: int,
        train: Train,
        key: str = "proxy",
        labelling: "Labelling | None" = None,
    ) -> None:
        settings = {name: value for name, value in config["subset"][key].items() if value is not None}
        self.folder: str | None = settings.pop("run", None)
        self._key = f"subset.{key}"
        self._train, self._labelling = train, labelling
        # One looks at whole images, at all of them, and knows nothing of what others have learnt unless it is told to.
        others = ("resolution", "selection", "init")
        inherited = {name: value for name, value in config.items() if name not in others}
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
        if labelling is not None:
            self.config |= labelling.applied(self.config)
        if number and self.folder is not None:
            raise UserError(
                "subset.proxy.run names one run, but subset.runs asks for several. Set subset.runs=1, or "
                "subset.proxy.run=null to train them."
            )
        if self.folder is None:
            check(self.config, TrainConfig, self._key, late=True)

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
        return self._loaded

    @cached_property
    def _loaded(self) -> LoadedRun:
        loaded = self._trained()
        if self._labelling is not None:
            dataset = loaded.config["dataset"]
            if (dataset.get("pseudo_labels") or {}).get("name") != self._labelling.labels.name:
                raise UserError(
                    f"subset.proxy.run={self.folder} has not learnt the groups of subset.pseudo_labels by the "
                    "embeddings of subset.embedder. Set subset.proxy.run=null to train a classifier that does."
                )
            dataset["pseudo_labels"] = (
                self._labelling.settings
            )  # which may lie in another folder than when it was trained
        return loaded

    def _trained(self) -> LoadedRun:
        if self._labelling is not None:
            self._labelling.make()
        if self.folder is not None:
            return load_run(self.folder, own_modules(self.config))._replace(digest=self.digest)
        if self.config["trainer"]["fast_dev_run"]:
            self._made()
            return untrained(self.config)
        with locked(Path(self.config["paths"]["runs"]) / self.config["sweep"] / self.digest):
            return load_run(self._made().folder, trusted=None)._replace(digest=self.digest)

    def _made(self) -> Run:
        try:
            return self._train(self.config)
        except UserError as error:
            error.args = (f"{self._key}, the run that the ranking is made with: {error}",)
            raise


class Labelling:
    """The classes that proxies learn where these are groups of the images, made once, when they are needed.

    Args:
        config: of the run that asks, resolved.
        rule: what groups the images.
        embedder: by whose embeddings.
    """

    def __init__(self, config: Mapping[str, Any], rule: GroupedRule, embedder: ProxyRun) -> None:
        self._config, self._rule, self._embedder = config, rule, embedder
        self._rehearsal = TemporaryDirectory() if config["trainer"]["fast_dev_run"] else None

    @cached_property
    def labels(self) -> PseudoLabels:
        cache = self._rehearsal.name if self._rehearsal else self._config["paths"]["cache"]
        depends = [described(self._rule), self._rule.content_digest(), self._embedder.digest]
        return PseudoLabels(name=digest_of(depends)[:16], folder=str(Path(cache).absolute() / "pseudo_labels"))

    @property
    def settings(self) -> dict[str, Any]:
        """As a dataset's config has it."""
        target = f"{PseudoLabels.__module__}.{PseudoLabels.__qualname__}"
        return {"_target_": target, "name": self.labels.name, "folder": self.labels.folder}

    def applied(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What of the config of a proxy is another with these classes."""
        method = dict(config["method"])
        if "num_classes" in method:
            method["num_classes"] = self._rule.groups.number(config["dataset"]["num_classes"])
        return {"method": method, "dataset": {**config["dataset"], "pseudo_labels": self.settings}}

    def make(self) -> None:
        """Sees that the file is there."""
        file = self.labels.file
        with locked(file):
            if file.exists():
                return
            dataset: ImageDataset = make(self._config["dataset"])
            self._rule.check_dataset(dataset)
            features = self._rule.features(dataset, self._embedder.load())
            levels = self._rule.groups.group(dataset, features, self._rule.seed).levels
            numbered = [np.unique(level, return_inverse=True)[1] for level in levels.T]
            with replacing(file) as part, part.open("wb") as out:
                np.save(out, np.stack(numbered, 1).astype(np.int64))


def proxies_of(config: Mapping[str, Any], rule: SubsetRule, train: Train) -> Sequence[ProxyRun]:
    """As many proxies as a rule needs, behind one by which it groups images, where it does before they are trained."""
    number, subset = rule.needs(), config["subset"]
    if number and subset.get("proxy") is None:
        raise UserError("subset.proxy is null, but this subset is ranked by a proxy. Choose proxy@subset.proxy=simclr.")
    if (grouping := rule.learns()) is None:
        if subset.get("embedder") is not None:
            raise UserError(
                "subset.embedder is set, but nothing looks through it: proxies learn what the config says. Choose "
                "+pseudo_labels@subset.pseudo_labels=clusters as well, or leave it out."
            )
        return [ProxyRun(config, i, train) for i in range(number)]
    if subset.get("embedder") is None:
        raise UserError(
            "subset.embedder is null, but the classes that subset.proxy learns are groups by its embeddings. Choose "
            "+proxy@subset.embedder=simclr."
        )
    assert isinstance(grouping, GroupedRule)
    embedder = ProxyRun(config, 0, train, "embedder")
    labelling = Labelling(config, grouping, embedder)
    return [embedder, *(ProxyRun(config, i, train, labelling=labelling) for i in range(number))]


def _with_backbone(method: Any, backbone: Any) -> Any:
    """A method, and what it wraps, with another backbone."""
    if not isinstance(method, Mapping):
        return method
    return {
        key: backbone if key == "backbone" else _with_backbone(value, backbone) if key == "base" else value
        for key, value in method.items()
    }
