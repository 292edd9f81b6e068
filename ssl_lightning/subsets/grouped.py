"""Rules that rank group by group, by the mean embeddings of the images: features → groups → redundancy → an order in
each group, which is all that such a rule says → quota."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
from annotated_types import Gt
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from ssl_lightning.config.markers import Speed, Unset
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import track
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.composed import QuotaRule
from ssl_lightning.subsets.embedding import EmbeddingRule
from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.latent import Labels, LatentClasses
from ssl_lightning.subsets.quota import Offer, Proportional, keys_of
from ssl_lightning.subsets.ranking import Budget, Ranking, members_of, size_of
from ssl_lightning.subsets.redundancy import Redundancy


class Group(NamedTuple):
    """What is ordered.

    Args:
        features: mean embeddings of its members.
        members: their positions in train, in the order in which equals are to be taken.
        picks: how many of them a cut can reach; what lies behind may be ordered anyhow.
        centroid: where the group is a cluster of the unit vectors of the features.
        known: of each, what `GroupedRule.known` gives.
    """

    features: Float32[np.ndarray, "m d"]
    members: Int64[np.ndarray, " m"]
    picks: int
    centroid: Float32[np.ndarray, " d"] | None
    known: Float64[np.ndarray, " m"] | None = None


class _Work(NamedTuple):
    """What processes fill in together; of each position, but `order`, which holds one group after another."""

    levels: Int64[np.ndarray, "n l"]
    order: Int64[np.ndarray, " n"]
    score: Float64[np.ndarray, " n"]
    redundant: Bool[np.ndarray, " n"]


@dataclass(frozen=True, kw_only=True)
class GroupedRule(EmbeddingRule, QuotaRule):
    """A rule that orders each group by itself: `order_of`. Processes share the groups.

    Args:
        latent: how images are grouped; None: by their labels.
        redundancy: what comes last, whatever its score; None: nothing.
    """

    latent: Annotated[LatentClasses | None, Unset] = None
    redundancy: Annotated[Redundancy | None, Unset] = None

    @abstractmethod
    def order_of(self, group: Group) -> GreedyOrder:
        """Indices of the group's members, best first, and their scores."""

    def known(
        self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup
    ) -> Float64[np.ndarray, " n"] | None:
        """What the order needs of each image besides its features, made by all processes together; None: nothing."""
        return None

    def vectors(self, features: Float32[np.ndarray, "m d"]) -> Float32[Tensor, "m d"]:
        """Features on the device."""
        return torch.from_numpy(features).to(device_of(self.accelerator))

    @property
    def groups(self) -> LatentClasses:
        """How images are grouped."""
        return self.latent or Labels()

    @property
    def pooled(self) -> bool:
        """Whether scores of different groups are compared: the ranking then has one group."""
        return False

    @property
    def reach(self) -> float | None:
        """The share of the images up to which the ranking can be cut, in (0, 1]; None where there is no such limit."""
        return None

    def by_precedence(self, members: Int64[np.ndarray, " m"], n: int) -> Int64[np.ndarray, " m"]:
        """Members, which come sorted, in the order in which equals are to be taken."""
        return members

    def announce(self, sizes: Int64[np.ndarray, " k"], picks: Int64[np.ndarray, " k"], features: np.ndarray) -> None:
        """Says what the ranking will cost where that is much."""

    def offers(self) -> frozenset[Offer]:
        found: list[Offer] = ["scores", "features"]
        if self.groups.depth > 1 and not self.pooled:
            found.append("tree")
        return frozenset(found)

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if budget == "floor" and self.redundancy is not None:
            raise UserError(
                "subset.budget=floor takes the best of each group, but by "
                f"subset.redundancy={self.redundancy.name} some come after all groups. Choose subset.budget=exact."
            )

    def check_dataset(self, dataset: ImageDataset) -> None:
        self.groups.check_dataset(dataset)

    def content_digest(self) -> str:
        return self.groups.content_digest()

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        if self.redundancy is None or not (redundant := ranking.provenance.get("redundant")):
            return None
        taken = size_of(ranking.max_fraction if fraction is None else fraction, len(ranking))
        others = len(ranking) - redundant
        return (
            f"subset.redundancy={self.redundancy.name}: {redundant:,} of {len(ranking):,} images are redundant, and "
            f"come last; this subset has {max(0, taken - others):,} of them."
        )

    def redundant(
        self, features: Float32[np.ndarray, "n d"], group: Int64[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"] | None:
        """Which images are redundant in their groups; None where nothing is asked to be."""
        if self.redundancy is None:
            return None
        found = np.zeros(len(group), np.bool_)
        for members in members_of(group):
            found[members] = self.redundancy.redundant(self.vectors(features[members]))
        return found

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        (proxy,) = proxies
        known = self.known(dataset, proxy, processes)
        features = self.features(dataset, proxy, processes)
        kinds = {"levels": "int64", "order": "int64", "score": "float64", "redundant": "bool"}
        files = {name: self.scratch(dataset, proxy, processes, name) for name in kinds}
        shapes = {name: (len(features), *([self.groups.depth] if name == "levels" else [])) for name in kinds}
        work = _Work(*(processes.array(files[name], shapes[name], kind) for name, kind in kinds.items()))
        centroids = processes.by_first(lambda: self._assign(dataset, features, work))
        self._order(features, known, work, centroids, processes)
        provenance = self.provenance(dataset, [proxy.digest])
        if self.reach is not None:
            provenance["max_fraction"] = self.reach
        if self.redundancy is not None:
            provenance["redundant"] = int(np.count_nonzero(work.redundant))
        ranking = self._pooled(_Work(*(np.array(values) for values in work)), features, provenance)
        processes.barrier()
        for file in files.values() if processes.rank == 0 else ():
            if file is not None:
                file.unlink()
        return ranking

    def _assign(
        self, dataset: ImageDataset, features: Float32[np.ndarray, "n d"], work: "_Work"
    ) -> Float32[np.ndarray, "k d"] | None:
        work.redundant[:] = False
        work.levels[:], centroids = self.groups.group(dataset, features, self.seed)
        return centroids

    def _order(
        self,
        features: Float32[np.ndarray, "n d"],
        known: Float64[np.ndarray, " n"] | None,
        work: "_Work",
        centroids: Float32[np.ndarray, "k d"] | None,
        processes: ProcessGroup,
    ) -> None:
        """Fills in order and score, and what is redundant, group by group."""
        classes, sizes = np.unique(work.levels[:, 0], return_counts=True)
        ends, groups = np.cumsum(sizes), members_of(work.levels[:, 0])
        mine = np.argsort(-sizes, kind="stable")[processes.rank :: processes.size]  # similar work for each process
        if self.redundancy is not None:
            for k in mine:
                work.redundant[groups[k]] = self.redundancy.redundant(self.vectors(features[groups[k]]))
            processes.barrier()
        picks = self._picks(work, sizes, features)
        if processes.rank == 0:
            self.announce(sizes, picks, features)
        for k in track(mine, f"{self.name} in {len(sizes)} latent classes") if processes.rank == 0 else mine:
            members = self.by_precedence(groups[k], len(features))
            centroid = None if centroids is None else centroids[classes[k]]
            of_members = None if known is None else known[members]
            found = self.order_of(Group(features[members], members, int(picks[k]), centroid, of_members))
            places = slice(ends[k] - sizes[k], ends[k])
            work.order[places] = members[found.members]
            work.score[work.order[places]] = found.scores
        processes.barrier()

    def _pooled(self, work: "_Work", features: Float32[np.ndarray, "n d"], provenance: dict[str, Any]) -> Ranking:
        order, levels = work.order, work.levels
        if self.pooled:
            order, levels = np.argsort(-work.score, kind="stable"), np.zeros((len(order), 1), np.int64)
        return self.arranged(order, levels, work.score, provenance, work.redundant, features)

    def _picks(
        self, work: "_Work", sizes: Int64[np.ndarray, " k"], features: Float32[np.ndarray, "n d"]
    ) -> Int64[np.ndarray, " k"]:
        """How many of each group's order a cut at `reach` needs at most. Beside many small groups, a large one gives
        more than its share to an exact budget (see `Ranking`); a floor takes the share."""
        quota = self.quota or Proportional()
        if self.reach is None or quota.needs == "scores":
            return sizes
        redundant, n = np.array(work.redundant), len(features)
        _, group = np.unique(work.levels[:, 0], return_inverse=True)
        order = np.argsort(group, kind="stable")  # any: keys depend on group and rank alone
        keys = keys_of(quota, order, np.array(work.levels), np.full(n, np.nan), redundant, features, self.seed)
        last = min(n, math.ceil(self.reach * n) + 1) - 1
        reached = keys <= np.partition(keys, last)[last]
        if (reached & redundant).any():
            return sizes
        taken, passed = (np.bincount(group[some], minlength=len(sizes)) for some in (reached, redundant))
        if self.quota is None:
            taken = np.maximum(taken, np.ceil(self.reach * sizes).astype(np.int64))
        return np.minimum(sizes, taken + passed)

    def scratch(self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup, name: str) -> Path | None:
        """A file for what processes write together, removed by whoever builds the ranking next if it is left over."""
        path = self.ranking_file(dataset, [proxy.digest]) if processes.size > 1 else None
        return path and path.with_name(f".{path.name}.{name}.part")


@dataclass(frozen=True, kw_only=True)
class GreedyRule(GroupedRule):
    """A rule that orders each group by features alone, and looks at similarities again and again.

    Args:
        memory_gib: for similarities of a group; a larger group is ranked without holding all of them.
    """

    memory_gib: Annotated[float, Gt(0), Speed] = 1.0

    @abstractmethod
    def greedy(self, features: Float32[Tensor, "m d"], memory: float) -> GreedyOrder:
        """The order of a group, with so many bytes for similarities."""

    def order_of(self, group: Group) -> GreedyOrder:
        return self.greedy(self.vectors(group.features), self.memory_gib * 2**30)
