"""SAS (arXiv 2302.09195): the images most similar, under augmentation, to the rest of their latent class."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Float64, Int64

from ssl_lightning.config.markers import Speed
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.devices import device_of
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import track
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.embedding import EmbeddingRule
from ssl_lightning.subsets.greedy import GreedyOrder, fits, graph_cut, row_sum, similarity_sums
from ssl_lightning.subsets.latent import LatentClasses
from ssl_lightning.subsets.ranking import Ranking, generator

# Of one pick, for each member of its class: to find the largest gain, and to update it. Measured on a CPU.
SECONDS_A_GAIN = 2e-9


@dataclass(frozen=True, kw_only=True)
class SAS(EmbeddingRule):
    """Ranks each latent class by similarities s_ij = ⟨z̄_i, z̄_j⟩ of mean embeddings, clipped after the mean.

    Args:
        rule: `graph_cut`, greedy maximisation of the paper's objective; or `row_sum`, by Σ_{j≠i} s_ij, which is
            what the released code computes.
        threshold: similarities up to this count as 0, in [0, 1).
        tie_break: which of equals comes first: the `smallest` or `largest` position, or in `random` order.
        latent: how latent classes are made.
        max_fraction: share of the images up to which `graph_cut` ranks; a larger fraction cannot be cut then.
        memory_gib: for similarities; a larger class is ranked without holding all of them, in the same order.
    """

    rule: Literal["graph_cut", "row_sum"] = "graph_cut"
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.0
    tie_break: Literal["smallest", "largest", "random"] = "smallest"
    latent: LatentClasses
    max_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    memory_gib: Annotated[float, Gt(0), Speed] = 2.0

    name: ClassVar[str] = "sas"

    def content_digest(self) -> str:
        return self.latent.content_digest()

    def check_dataset(self, dataset: ImageDataset) -> None:
        self.latent.check_dataset(dataset)

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        (proxy,) = proxies
        features = self.features(dataset, proxy, processes)
        n = len(features)
        latent, order, score = (
            processes.array(self._scratch(dataset, proxy, processes, name), (n,), dtype)
            for name, dtype in (("latent", "int64"), ("order", "int64"), ("score", "float64"))
        )

        def assign() -> None:
            latent[:] = self.latent.assign(dataset, features, self.seed)

        processes.by_first(assign)
        _, group, sizes = np.unique(latent, return_inverse=True, return_counts=True)
        picks = self._picks(sizes)
        if processes.rank == 0:
            self._announce(sizes, picks, features)
        by_group, ends = np.argsort(group, kind="stable"), np.cumsum(sizes)
        mine = np.argsort(-sizes, kind="stable")[processes.rank :: processes.size]  # similar work for each process
        for k in track(mine, f"sas: {self.rule} in {len(sizes)} latent classes") if processes.rank == 0 else mine:
            places = slice(ends[k] - sizes[k], ends[k])
            members = self._by_precedence(by_group[places], n)
            found = self._order(features[members], int(picks[k]))
            order[places] = members[found.members]
            score[order[places]] = found.scores
        processes.barrier()
        provenance = self.provenance(dataset, [proxy.digest])
        if self.rule == "graph_cut":
            provenance["max_fraction"] = self.max_fraction
        ranking = Ranking(np.array(order), np.array(latent), np.array(score), provenance)
        processes.barrier()
        for name in ("latent", "order", "score") if processes.rank == 0 else ():
            if (file := self._scratch(dataset, proxy, processes, name)) is not None:
                file.unlink()
        return ranking

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        fraction = ranking.max_fraction if fraction is None else fraction
        if self.rule != "graph_cut" or fraction < (last := float(np.median(turning_points(ranking)))) + 0.05:
            return None
        return (
            f"subset.fraction={fraction:g} reaches beyond {last:.2f}, where graph_cut's gains turn negative: from "
            "there on it adds what is least similar to its subset. subset=sas_row_sum has no such turn."
        )

    def _order(self, features: np.ndarray, picks: int) -> GreedyOrder:
        vectors = torch.from_numpy(features).to(device_of(self.accelerator))
        memory = self.memory_gib * 2**30
        if self.rule == "row_sum":
            return row_sum(vectors, self.threshold, memory)
        return graph_cut(vectors, self.threshold, picks, memory)

    def _picks(self, sizes: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """How many of each class a cut at `max_fraction` takes at most. Beside many small classes, a large one gives
        more than its share to an exact budget (see `Ranking`); a floor takes the share."""
        keys = [(np.arange(size) + 0.5) / size for size in sizes]
        n = sum(sizes)
        last = min(n, math.ceil(self.max_fraction * n) + 1) - 1
        threshold = np.partition(np.concatenate(keys), last)[last]
        exact = np.array([np.count_nonzero(key <= threshold) for key in keys])
        return np.maximum(exact, np.ceil(self.max_fraction * sizes).astype(np.int64))

    def _by_precedence(self, members: Int64[np.ndarray, " m"], n: int) -> Int64[np.ndarray, " m"]:
        """In the order in which equals are to be taken."""
        if self.tie_break == "random":
            return members[np.argsort(generator(self.seed, "precedence").permutation(n)[members])]
        return members[::-1] if self.tie_break == "largest" else members

    def _scratch(self, dataset: ImageDataset, proxy: LoadedRun, processes: ProcessGroup, name: str) -> Path | None:
        """A file for what processes write together, removed by whoever builds the ranking next if it is left over."""
        path = self.ranking_file(dataset, [proxy.digest]) if processes.size > 1 else None
        return path and path.with_name(f".{path.name}.{name}.part")

    def _announce(self, sizes: Int64[np.ndarray, " k"], picks: Int64[np.ndarray, " k"], features: np.ndarray) -> None:
        """What classes that are ranked without their matrix will cost."""
        unfit = [not fits(int(size), features.itemsize, self.memory_gib * 2**30) for size in sizes]
        if not any(unfit):
            return
        large, made = sizes[unfit], picks[unfit]
        sample = torch.from_numpy(np.array(features[:4096])).to(device_of(self.accelerator))
        started = time.perf_counter()
        similarity_sums(sample, self.threshold)
        seconds = (time.perf_counter() - started) / len(sample) ** 2
        total = (large**2).sum() * seconds
        if self.rule == "graph_cut":
            total += (made * large).sum() * (2 * seconds + SECONDS_A_GAIN)
        print(
            f"sas: {len(large)} of {len(sizes)} latent classes, the largest of {max(large):,} images, are ranked "
            f"without holding all similarities (subset.memory_gib={self.memory_gib:g}): {(large**2).sum():.1e} "
            f"similarities{f' and {made.sum():,} picks' if self.rule == 'graph_cut' else ''}, about {total:.0f} s. "
            "More latent classes, subset.max_fraction and subset.rule=row_sum make it cheaper.",
            flush=True,
        )


def turning_points(ranking: Ranking) -> Float64[np.ndarray, " k"]:
    """For each latent class, the share of its members that come before the first with a negative score; 1 if none."""
    places = ranking.order[np.argsort(ranking.latent_class[ranking.order], kind="stable")]
    _, first, sizes = np.unique(ranking.latent_class[places], return_index=True, return_counts=True)
    positive = (ranking.score[places] >= 0).astype(np.int64)  # scores never increase within a class
    return np.add.reduceat(positive, first) / sizes
