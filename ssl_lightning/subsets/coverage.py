"""Facility location: the members of a group that are most similar to all of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.candidates import Candidates, cosines_of
from ssl_lightning.subsets.greedy import CPU_BLOCK, GreedyOrder, similarity_sums
from ssl_lightning.subsets.grouped import GreedyRule

# Rows of similarities whose gains are computed at a time: they should stay in a CPU's cache.
ROWS = 8
# A bound that was summed in another order is raised by as much: it must not lie below the gain.
SLACK = 1e-5
# Rows that tell how many similarities still matter.
SAMPLE = 256


def facility_location(features: Float[Tensor, "n d"], memory: float = 2**31) -> GreedyOrder:
    """Exact greedy maximisation of F(S) = Σ_i max_{j∈S} s_ij with s = max(cosine, 0), ties to the first.

    F is submodular and monotone: gains never increase and are never negative. So an old gain bounds a new one, and only
    those members are looked at again whose bound is the largest (lazy evaluation, Minoux 1978). Once some are taken,
    few similarities exceed what covers a member already, and the others are forgotten. Two members that are most
    similar to one another gain as much by either: which of them is first may then depend on rounding.

    Args:
        features: of one group, on any device.
        memory: bytes for similarities; changes nothing but speed.
    """
    unit, n = normalize(features), len(features)
    own = unit.square().sum(1).cpu().double().numpy()
    bounds = (similarity_sums(unit, memory=memory) + own) * (1 + SLACK)
    covered = np.zeros(n, unit.new_empty(0).cpu().numpy().dtype)
    known = np.full(n, -1)  # how many members were taken when a bound was computed
    members, scores = np.empty(n, np.int64), np.empty(n)
    rows: _Rows = _Whole(unit, bounds, memory)
    for k in range(n):
        if isinstance(rows, _Whole) and k >= 8 and k & (k - 1) == 0:  # 8, 16, 32 …
            rows = _Close.within(unit, covered, memory / 2) or rows
            bounds *= 1 + SLACK
        while known[pick := bounds.argmax()] < k:
            known[rows.look(pick, bounds, covered)] = k
        members[k], scores[k] = pick, bounds[pick]
        rows.cover(pick, covered)
        bounds[pick] = -np.inf
    return GreedyOrder(members, np.minimum.accumulate(scores))  # a row that is made twice may differ by rounding


class _Rows(Protocol):
    """Similarities of members to all."""

    def look(
        self, member: np.integer, bounds: Float[np.ndarray, " n"], covered: Float[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " b"]:
        """Sets the bounds of a member, and of others with it, to the gains. Returns whose."""

    def cover(self, member: np.integer, covered: Float[np.ndarray, " n"]) -> None:
        """Takes a member that was just looked at."""


class _Whole:
    """Whole rows, made together for those that have the largest bounds."""

    def __init__(self, unit: Float[Tensor, "n d"], bounds: Float[np.ndarray, " n"], memory: float) -> None:
        self.rows = Candidates(cosines_of(unit), bounds, unit, memory)

    def look(
        self, member: np.integer, bounds: Float[np.ndarray, " n"], covered: Float[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " b"]:
        made = self.rows.load(member)
        looked = made[bounds[made] > -np.inf] if len(made) else np.array([member])
        for start in range(0, len(looked), ROWS):
            some = looked[start : start + ROWS]
            more = self.rows.rows[self.rows.place[some]]
            more -= covered
            bounds[some] = np.maximum(more, 0, out=more).sum(1)
        return looked

    def cover(self, member: np.integer, covered: Float[np.ndarray, " n"]) -> None:
        np.maximum(covered, self.rows[member], out=covered)


class _Close:
    """Of each row, the similarities that exceed what had covered the members already when this was made."""

    def __init__(
        self, first: Int64[np.ndarray, " m"], index: Int32[np.ndarray, " e"], values: Float[np.ndarray, " e"]
    ) -> None:
        self.first, self.index, self.values = first, index, values

    @classmethod
    def within(cls, unit: Float[Tensor, "n d"], covered: Float[np.ndarray, " n"], memory: float) -> "_Close | None":
        """Where they take no more than so many bytes."""
        n, room = len(unit), int(memory / (4 + unit.itemsize))
        some = unit[torch.randperm(n, generator=torch.Generator().manual_seed(0))[:SAMPLE].to(unit.device)]
        if sum(len(index) for _, index, _ in _exceeding(some, unit, covered)) * n > room * len(some):
            return None
        # Pages that stay empty take no memory, and small arrays that are kept would break up what is free.
        index, values, first = np.empty(room, np.int32), np.empty(room, covered.dtype), np.zeros(n + 1, np.int64)
        rows = end = 0
        for counts, where, exceeding in _exceeding(unit, unit, covered):
            start, end = end, end + len(where)
            if end > room:
                return None
            index[start:end], values[start:end] = where, exceeding
            first[rows + 1 : rows + 1 + len(counts)] = start + counts.cumsum()
            rows += len(counts)
        return cls(first, index, values)

    def look(
        self, member: np.integer, bounds: Float[np.ndarray, " n"], covered: Float[np.ndarray, " n"]
    ) -> Int64[np.ndarray, " b"]:
        edges = slice(self.first[member], self.first[member + 1])
        bounds[member] = np.maximum(self.values[edges] - covered[self.index[edges]], 0).sum()
        return np.array([member])

    def cover(self, member: np.integer, covered: Float[np.ndarray, " n"]) -> None:
        edges = slice(self.first[member], self.first[member + 1])
        index = self.index[edges]
        covered[index] = np.maximum(covered[index], self.values[edges])


def _exceeding(
    rows: Float[Tensor, "b d"], unit: Float[Tensor, "n d"], covered: Float[np.ndarray, " n"]
) -> Iterator[tuple[Int64[np.ndarray, " c"], Int32[np.ndarray, " e"], Float[np.ndarray, " e"]]]:
    """How many similarities of each row exceed what covers, where these are, and what they are; some rows at a time."""
    n = len(unit)
    side = max(1, min(len(rows), CPU_BLOCK // (n * unit.itemsize)))
    buffer, mask = unit.new_empty(side, n), torch.empty(side, n, dtype=torch.bool, device=unit.device)
    bound = torch.from_numpy(covered).to(unit.device)
    for some in rows.split(side):
        similarities = torch.mm(some, unit.T, out=buffer[: len(some)])
        exceeds = torch.gt(similarities, bound, out=mask[: len(some)])
        where = exceeds.nonzero()[:, 1].int().cpu().numpy()
        yield exceeds.sum(1).cpu().numpy(), where, similarities[exceeds].cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class FacilityLocation(GreedyRule):
    """Greedy coverage of each group by those that are taken."""

    name: ClassVar[str] = "facility_location"

    def greedy(self, features: Float[Tensor, "m d"], memory: float) -> GreedyOrder:
        return facility_location(features, memory)
