"""The contract of subset rules, and what is cut from their rankings."""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np

from ssl_lightning.config.identity import described, digest_of
from ssl_lightning.config.markers import Place, Seed
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.mask import Mask
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import place_of
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.ranges import SeedNumber
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.ranking import RANKING_FORMAT, Budget, Ranking, check_fraction, size_of
from ssl_lightning.versions import version_of


@dataclass(frozen=True, kw_only=True)
class SubsetRule(ABC):
    """A way of ranking the positions of train.

    A rule gives a `name` and `rank`. A rule with `expensive = True` ranks once per dataset and set of parameters: the
    ranking is kept below `cache`/rankings and serves every fraction and budget.

    Args:
        seed: of everything random in the ranking.
        cache: folder of cached rankings; None keeps none.
    """

    seed: Annotated[SeedNumber, Seed] = 0
    cache: Annotated[str | None, Place] = None

    name: ClassVar[str]
    expensive: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not hasattr(self, "name"):
            raise UserError(f'{place_of(type(self))} has no name. Give it one there: name: ClassVar[str] = "mine".')
        if not 0 <= self.seed < 2**32:
            raise UserError(f"subset.seed is {self.seed}: give a number from 0 to {2**32 - 1}.")

    def needs(self) -> int:
        """How many finished runs the ranking is made with: proxies, whose seeds count upwards."""
        return 0

    def learns(self) -> "SubsetRule | None":
        """A `GroupedRule` whose groups are the classes that proxies learn; None: they learn what the config says. The
        proxy by whose embeddings it groups comes first."""
        return None

    @abstractmethod
    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        """Ranks the positions of train, without looking at any cache. All processes return the ranking.

        Args:
            proxies: as many as the rule `needs`.
        """

    def check_dataset(self, dataset: ImageDataset) -> None:  # noqa: B027  most rules can rank any
        """Raises UserError where this dataset cannot be ranked: said before proxies are trained."""

    def for_fast_dev_run(self) -> "SubsetRule":
        """A rule that does the same quickly and keeps nothing."""
        return replace(self, cache=None)

    def content_digest(self) -> str:
        """Of what the rule reads besides dataset and proxies, such as a file."""
        return ""

    def check_fraction(self, fraction: float | None) -> None:
        """Raises UserError where no ranking of this rule can be cut at the fraction."""
        if fraction is not None:
            check_fraction(fraction)

    def check_budget(self, budget: Budget) -> None:  # noqa: B027  most rules can be cut by any
        """Raises UserError where no ranking of this rule can be cut under the budget."""

    def cut(self, ranking: Ranking, fraction: float | None, budget: Budget) -> Mask:
        """The mask of a ranking of this rule; of a fraction that is None, as far as the ranking goes."""
        return ranking.mask(ranking.max_fraction if fraction is None else fraction, budget)

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        """What a user should know of cutting this ranking at this fraction."""
        return None

    def parameters(self) -> dict[str, Any]:
        """What the ranking depends on: all of the rule's arguments that are not marked."""
        return {name: value for name, value in described(self).items() if name != "name"}

    def provenance(self, dataset: ImageDataset, proxies: Sequence[str]) -> dict[str, Any]:
        """How a ranking was made, with the digests of its proxies."""
        content = "-".join(filter(None, (*proxies, self.content_digest())))
        return {
            "fingerprint": dataset.fingerprint().as_dict(),
            **({} if dataset.nuisance is None else {"nuisance": described(dataset.nuisance)}),
            "rule": self.name,
            "parameters": self.parameters(),
            "seed": self.seed,
            "content": content,
            "versions": {package: version_of(package) for package in ("ssl-lightning", "numpy", "torch")},
        }

    def ranking_file(self, dataset: ImageDataset, proxies: Sequence[str] = ()) -> Path | None:
        """Where the ranking of an expensive rule is kept, if it is."""
        return self.file_in(self.cache, dataset, proxies) if self.expensive and self.cache is not None else None

    def file_in(self, cache: str, dataset: ImageDataset, proxies: Sequence[str] = ()) -> Path:
        """A file for a ranking below a cache; its name changes with all that the ranking depends on."""
        provenance = self.provenance(dataset, proxies)
        relevant = {key: value for key, value in provenance.items() if key != "versions"}
        name = f"{self.name}-{digest_of({'format': RANKING_FORMAT, **relevant})[:16]}"
        return Path(cache).absolute() / "rankings" / f"{name}.npz"

    def ranking(
        self,
        dataset: ImageDataset,
        proxies: Sequence[str] = (),
        load: Callable[[], Sequence[LoadedRun]] = tuple,
        processes: ProcessGroup = ALONE,
    ) -> Ranking:
        """`rank`, from the cache where the rule is expensive and has one. Called by all processes.

        Args:
            proxies: digests of the runs that it needs.
            load: gives these runs; called where the ranking is missing.
        """
        path = self.ranking_file(dataset, proxies)
        if path is None:
            self.check_dataset(dataset)
            return self._timed(dataset, load(), processes)
        if processes.size > 1 or not path.exists():  # all ask together: another process may be building it right now
            with processes.building(path) as missing:
                if missing:
                    self.check_dataset(dataset)
                    ranking = self._timed(dataset, load(), processes)
                    processes.by_first(lambda: ranking.save(path))
        return Ranking.load(path, dataset.fingerprint())

    def _timed(self, dataset: ImageDataset, proxies: Sequence[LoadedRun], processes: ProcessGroup) -> Ranking:
        """`rank`, with what it took in the provenance, unless that says it already, as of a ranking from a file."""
        started = time.monotonic()
        ranking = self.rank(dataset, proxies, processes)
        if not isinstance(ranking, Ranking):
            raise UserError(
                f"{place_of(type(self).rank)} returned a {type(ranking).__name__}. Return a Ranking (ssl_lightning."
                "subsets.ranking): order, latent_class, score, self.provenance(dataset, ())."
            )
        ranking.provenance.setdefault("seconds", time.monotonic() - started)
        known = [seconds for proxy in proxies if (seconds := proxy.train_seconds) is not None]
        if proxies and len(known) == len(proxies):
            ranking.provenance.setdefault("proxy_seconds", sum(known))
        return ranking


@dataclass(frozen=True)
class Subset:
    """A ranker, expensive and cached, and a cut, cheap, nested and exact in size.

    Args:
        rank: the rule.
        fraction: share of the train split, in (0, 1]; None: as far as the ranking goes.
        budget: see `Ranking.mask`.
    """

    rank: SubsetRule
    fraction: float | None = 1.0
    budget: Budget = "exact"

    def __post_init__(self) -> None:
        self.rank.check_fraction(self.fraction)
        self.rank.check_budget(self.budget)

    def size(self, length: int) -> int | None:
        """How many of so many images; None where only the ranking tells."""
        return size_of(self.fraction, length) if self.budget == "exact" and self.fraction is not None else None

    def cut(self, ranking: Ranking) -> Mask:
        return self.rank.cut(ranking, self.fraction, self.budget)

    def notice(self, ranking: Ranking) -> str | None:
        """What a user should know of this cut."""
        lines = [self.rank.notice(ranking, self.fraction), self._of_floor(ranking)]
        return "\n".join(line for line in lines if line) or None

    def _of_floor(self, ranking: Ranking) -> str | None:
        """Latent classes that are too small for a floor to take any of them."""
        if self.budget != "floor":
            return None
        mask = self.cut(ranking)
        left = np.setdiff1d(ranking.latent_class, ranking.latent_class[mask.positions])
        if not len(left):
            return None
        sizes = [int((ranking.latent_class == one).sum()) for one in left]
        return (
            f"subset.budget=floor takes no image of {len(left)} latent class{'es' * (len(left) > 1)} of at most "
            f"{max(sizes)} images. subset.budget=exact takes the size that is asked for."
        )
