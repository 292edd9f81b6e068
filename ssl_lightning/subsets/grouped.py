"""Rules that rank group by group, by the mean embeddings of the images: features → groups → redundancy → an order in
each group, which is all that such a rule says → quota."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64
from torch import Tensor

from ssl_lightning.config.markers import Unset
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
from ssl_lightning.subsets.ranking import Budget, Ranking
from ssl_lightning.subsets.redundancy import Redundancy


class Group(NamedTuple):
    """What is ordered.

    Args:
        features: mean embeddings of its members.
        members: their positions in train, in the order in which equals are to be taken.
        picks: how many of them a cut can reach; what lies behind may be ordered anyhow.
        centroid: where the group is a cluster of the unit vectors of the features.
        known: what the rule knows of each besides: see `GroupedRule.known`.
    """

    features: Float32[np.ndarray, "m d"]
    members: Int64[np.ndarray, " m"]
    picks: int
    centroid: Float32[np.ndarray, " d"] | None
    known: Float64[np.ndarray, " m"] | None = None


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
        """What a rule has to know of each image besides its features, made by all processes together; None: nothing."""
        return None

    def vectors(self, group: Group) -> Float32[Tensor, "m d"]:
        """The features of a group, on the device."""
        return torch.from_numpy(group.features).to(device_of(self.accelerator))

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
        return frozenset(["scores", "features", *(["tree"] if self.groups.depth > 1 and not self.pooled else [])])

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

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        (proxy,) = proxies
        known = self.known(dataset, proxy, processes)
        features = self.features(dataset, proxy, processes)
        n, device = len(features), device_of(self.accelerator)
        shared = {"levels": ((n, self.groups.depth), "int64"), "order": ((n,), "int64")}
        shared |= {"score": ((n,), "float64"), "redundant": ((n,), "bool")}
        files = {name: self.scratch(dataset, proxy, processes, name) for name in shared}
        levels, order, score, redundant = (processes.array(files[name], *kind) for name, kind in shared.items())

        def assign() -> Float32[np.ndarray, "k d"] | None:
            redundant[:] = False
            levels[:], centroids = self.groups.group(dataset, features, self.seed)
            return centroids

        centroids = processes.by_first(assign)
        classes, group, sizes = np.unique(levels[:, 0], return_inverse=True, return_counts=True)
        by_group, ends = np.argsort(group, kind="stable"), np.cumsum(sizes)
        mine = np.argsort(-sizes, kind="stable")[processes.rank :: processes.size]  # similar work for each process
        members_of = [by_group[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        if self.redundancy is not None:
            for k in mine:
                rows = torch.from_numpy(features[members_of[k]]).to(device)
                redundant[members_of[k]] = self.redundancy.redundant(rows)
            processes.barrier()
        picks = self._picks(levels, redundant, sizes, features)
        if processes.rank == 0:
            self._report(redundant)
            self.announce(sizes, picks, features)
        for k in track(mine, f"{self.name} in {len(sizes)} latent classes") if processes.rank == 0 else mine:
            members = self.by_precedence(members_of[k], n)
            centroid = None if centroids is None else centroids[classes[k]]
            of_members = None if known is None else known[members]
            found = self.order_of(Group(features[members], members, int(picks[k]), centroid, of_members))
            places = slice(ends[k] - sizes[k], ends[k])
            order[places] = members[found.members]
            score[order[places]] = found.scores
        processes.barrier()
        ranking = self._assembled(levels, order, score, redundant, features, self.provenance(dataset, [proxy.digest]))
        processes.barrier()
        for file in files.values() if processes.rank == 0 else ():
            if file is not None:
                file.unlink()
        return ranking

    def _assembled(self, levels, order, score, redundant, features, provenance) -> Ranking:  # type: ignore[no-untyped-def]
        levels, order, score = np.array(levels), np.array(order), np.array(score)
        if self.reach is not None:
            provenance["max_fraction"] = self.reach
        if self.redundancy is not None:
            provenance["redundant"] = int(np.count_nonzero(redundant))
        if self.pooled:
            order, levels = np.argsort(-score, kind="stable"), np.zeros((len(score), 1), np.int64)
        return self.arranged(order, levels, score, provenance, np.array(redundant), features)

    def _report(self, redundant: Bool[np.ndarray, " n"]) -> None:
        if self.redundancy is not None:
            print(
                f"subset.redundancy={self.redundancy.name}: {np.count_nonzero(redundant):,} of {len(redundant):,} "
                "images are redundant, and come last",
                flush=True,
            )

    def _picks(
        self,
        levels: Int64[np.ndarray, "n l"],
        redundant: Bool[np.ndarray, " n"],
        sizes: Int64[np.ndarray, " k"],
        features: Float32[np.ndarray, "n d"],
    ) -> Int64[np.ndarray, " k"]:
        """How many of each group's order a cut at `reach` needs at most. Beside many small groups, a large one gives
        more than its share to an exact budget (see `Ranking`); a floor takes the share."""
        quota = self.quota or Proportional()
        if self.reach is None or quota.needs == "scores":
            return sizes
        n = len(levels)
        order = np.argsort(levels[:, 0], kind="stable")  # any: keys depend on group and rank alone
        nothing = np.full(n, np.nan)
        keys = keys_of(quota, order, levels, nothing, self.seed, redundant, features)
        _, group = np.unique(levels[:, 0], return_inverse=True)
        if keys is None:
            keys = np.empty(n)
            keys[order] = (np.concatenate([np.arange(size) for size in sizes]) + 0.5) / np.repeat(sizes, sizes)
        last = min(n, math.ceil(self.reach * n) + 1) - 1
        reached = keys <= np.partition(keys, last)[last]
        taken = np.bincount(group[reached & ~redundant], minlength=len(sizes))
        if self.quota is None:
            taken = np.maximum(taken, np.ceil(self.reach * sizes).astype(np.int64))
        in_between = np.bincount(group[redundant], minlength=len(sizes))  # passed over on the way to the last taken
        reached_redundant = (reached & redundant).any()
        return sizes if reached_redundant else np.minimum(sizes, taken + in_between)

    def scratch(self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup, name: str) -> Path | None:
        """A file for what processes write together, removed by whoever builds the ranking next if it is left over."""
        path = self.ranking_file(dataset, [proxy.digest]) if processes.size > 1 else None
        return path and path.with_name(f".{path.name}.{name}.part")
