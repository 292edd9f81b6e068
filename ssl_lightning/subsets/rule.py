"""The contract of subset rules."""

import hashlib
import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.subsets.ranking import (
    RANKING_FORMAT,
    Budget,
    Mask,
    Ranking,
    _check_fraction,
)


@dataclass(frozen=True, kw_only=True)
class SubsetRule(ABC):
    """A way of choosing the positions of train that pretraining sees.

    A rule gives a `name` and `rank`. A rule with `expensive = True` ranks once per dataset and set of
    parameters: the ranking is kept below `cache`/rankings and serves every fraction and budget.

    Args:
        fraction: share of the train split, in (0, 1].
        seed: of everything random in the ranking.
        budget: see `Ranking.mask`.
        cache: folder of cached rankings; None keeps none.
    """

    fraction: float = 1.0
    seed: int = 0
    budget: Budget = "exact"
    cache: str | None = None

    name: ClassVar[str]
    expensive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_fraction(self.fraction)
        if self.seed < 0:
            raise UserError(f"subset.seed is {self.seed}: give 0 or more.")

    @abstractmethod
    def rank(self, dataset: ImageDataset, processes: ProcessGroup = ALONE) -> Ranking:
        """Rank the positions of train, without looking at any cache. All processes return the ranking."""

    def prepare(self) -> None:  # noqa: B027  most rules have nothing to prepare
        """What `rank` would else do first: train proxies. To be called before other processes start."""

    def rehearsal(self) -> "SubsetRule":
        """A rule that does the same quickly and keeps nothing."""
        return replace(self, cache=None)

    def content_digest(self) -> str:
        """Hash of what the rule reads besides the dataset, such as a file or a proxy's weights."""
        return ""

    def parameters(self) -> dict[str, Any]:
        """What the ranking depends on: all of the rule's arguments but those of the cut and the cache."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("fraction", "budget", "cache")}

    def provenance(self, dataset: ImageDataset) -> dict[str, Any]:
        return {
            "fingerprint": dataset.fingerprint().as_dict(),
            "rule": self.name,
            "parameters": self.parameters(),
            "seed": self.seed,
            "content": self.content_digest(),
            "versions": {package: version(package) for package in ("ssl-lightning", "numpy", "torch")},
        }

    def remark(self, ranking: Ranking) -> str | None:
        """What a user should know of cutting this ranking at this rule's fraction."""
        return None

    def ranking_file(self, dataset: ImageDataset) -> Path | None:
        """Where the ranking of an expensive rule is kept; its name changes with all that the ranking depends on."""
        if not self.expensive or self.cache is None:
            return None
        provenance = self.provenance(dataset)
        identity = {key: value for key, value in provenance.items() if key != "versions"}
        text = json.dumps({"format": RANKING_FORMAT, **identity}, sort_keys=True)
        key = f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        return Path(self.cache).absolute() / "rankings" / f"{key}.npz"

    def ranking(self, dataset: ImageDataset, processes: ProcessGroup = ALONE) -> Ranking:
        """`rank`, from the cache where the rule is expensive and has one. Called by all processes."""
        path = self.ranking_file(dataset)
        if path is None:
            return self.rank(dataset, processes)
        if (
            processes.size > 1 or not path.exists()
        ):  # processes ask together: another process may be building it right now
            with processes.building(path) as missing:
                if missing:
                    ranking = self.rank(dataset, processes)
                    if processes.rank == 0:
                        ranking.save(path)
        return Ranking.load(path, dataset.fingerprint())

    def cut(self, ranking: Ranking) -> Mask:
        """The mask of this rule's fraction and budget."""
        return ranking.mask(self.fraction, self.budget)

    def mask(self, dataset: ImageDataset) -> Mask:
        return self.cut(self.ranking(dataset))
