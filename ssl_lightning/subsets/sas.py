"""SAS (arXiv 2302.09195): the images most similar, under augmentation, to the rest of their latent class."""

import time
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Int64

from ssl_lightning.config.markers import Speed
from ssl_lightning.devices import device_of
from ssl_lightning.subsets.candidates import fits
from ssl_lightning.subsets.greedy import GreedyOrder, graph_cut, row_sum, similarity_sums
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.ranking import Ranking, generator, turning_points

# Of one pick, for each member of its class: to find the largest gain, and to update it. Measured on a CPU.
SECONDS_A_GAIN = 2e-9


@dataclass(frozen=True, kw_only=True)
class SAS(GroupedRule):
    """Ranks each latent class by similarities s_ij = ⟨z̄_i, z̄_j⟩ of mean embeddings, clipped after the mean.

    Args:
        rule: `graph_cut`, greedy maximisation of the paper's objective; or `row_sum`, by Σ_{j≠i} s_ij, which is
            what the released code computes.
        threshold: similarities up to this count as 0, in [0, 1).
        tie_break: which of equals comes first: the `smallest` or `largest` position, or in `random` order.
        max_fraction: share of the images up to which `graph_cut` ranks; a larger fraction cannot be cut then.
        memory_gib: for similarities; a larger class is ranked without holding all of them, in the same order.
    """

    rule: Literal["graph_cut", "row_sum"] = "graph_cut"
    threshold: Annotated[float, Ge(0), Lt(1)] = 0.0
    tie_break: Literal["smallest", "largest", "random"] = "smallest"
    max_fraction: Annotated[float, Gt(0), Le(1)] = 1.0
    memory_gib: Annotated[float, Gt(0), Speed] = 2.0

    name: ClassVar[str] = "sas"

    @property
    def reach(self) -> float | None:
        return self.max_fraction if self.rule == "graph_cut" else None

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        return "\n".join(filter(None, [super().notice(ranking, fraction), self._of_turn(ranking, fraction)])) or None

    def _of_turn(self, ranking: Ranking, fraction: float | None) -> str | None:
        fraction = ranking.max_fraction if fraction is None else fraction
        if self.rule != "graph_cut" or fraction < (last := float(np.median(turning_points(ranking)))) + 0.05:
            return None
        return (
            f"subset.fraction={fraction:g} reaches beyond {last:.2f}, where graph_cut's gains turn negative: from "
            "there on it adds what is least similar to its subset. subset=sas_row_sum has no such turn."
        )

    def order_of(self, group: Group) -> GreedyOrder:
        vectors, memory = self.vectors(group.features), self.memory_gib * 2**30
        if self.rule == "row_sum":
            return row_sum(vectors, self.threshold, memory)
        return graph_cut(vectors, self.threshold, group.picks, memory)

    def by_precedence(self, members: Int64[np.ndarray, " m"], n: int) -> Int64[np.ndarray, " m"]:
        if self.tie_break == "random":
            return members[np.argsort(generator(self.seed, "precedence").permutation(n)[members])]
        return members[::-1] if self.tie_break == "largest" else members

    def announce(self, sizes: Int64[np.ndarray, " k"], picks: Int64[np.ndarray, " k"], features: np.ndarray) -> None:
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
