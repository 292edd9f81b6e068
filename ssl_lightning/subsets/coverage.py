"""Which members of a group cover it: greedy facility location, and farthest first."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.candidates import Candidates, Make
from ssl_lightning.subsets.greedy import GreedyOrder, similarity_sums

# Rows of similarities whose gains are computed at a time: they should stay in a CPU's cache.
ROWS = 8
# A bound that was summed in another order is raised by as much: it must not be below a gain.
SLACK = 1e-5


def cosines_of(unit: Float[Tensor, "n d"]) -> Make:
    """Makes rows of cosines of unit vectors."""

    def make(index: Int64[np.ndarray, " b"], out: Float[Tensor, "b n"]) -> Float[np.ndarray, "b n"]:
        return torch.mm(unit[torch.from_numpy(index).to(unit.device)], unit.T, out=out).cpu().numpy()

    return make


def facility_location(features: Float[Tensor, "n d"], memory: float = 2**31) -> GreedyOrder:
    """Exact greedy maximisation of F(S) = Σ_i max_{j∈S} s_ij with s = max(cosine, 0), ties to the first.

    F is submodular and monotone: gains never increase and are never negative. So an old gain bounds a new one, and
    only those members are looked at again whose bound is the largest (lazy evaluation, Minoux 1978).

    Args:
        features: of one group, on any device.
        memory: bytes for similarities; less gives the same order.
    """
    unit, n = normalize(features), len(features)
    own = unit.square().sum(1).cpu().double().numpy()
    bounds = (similarity_sums(unit, memory=memory) + own) * (1 + SLACK)
    covered = np.zeros(n, unit.new_empty(0).cpu().numpy().dtype)
    rows = Candidates(cosines_of(unit), bounds, unit, memory)
    known = np.full(n, -1)  # how many members were taken when a bound was computed
    members, scores = np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        while known[pick := bounds.argmax()] < k:
            made = rows.load(pick)
            stale = made[bounds[made] > -np.inf] if len(made) else np.array([pick])
            bounds[stale] = _gains(rows.rows, rows.place[stale], covered)
            known[stale] = k
        members[k], scores[k] = pick, bounds[pick]
        np.maximum(covered, rows[pick], out=covered)
        bounds[pick] = -np.inf
    return GreedyOrder(members, np.minimum.accumulate(scores))  # rows that are made twice differ by rounding


def _gains(
    rows: Float[np.ndarray, "b n"], which: Int64[np.ndarray, " c"], covered: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " c"]:
    """Σ_i max(s_ij − covered_i, 0) of some rows."""
    gains = np.empty(len(which))
    for start in range(0, len(which), ROWS):
        more = rows[which[start : start + ROWS]]
        more -= covered
        gains[start : start + ROWS] = np.maximum(more, 0, out=more).sum(1)
    return gains


def k_center(features: Float[Tensor, "n d"], memory: float = 2**31) -> GreedyOrder:
    """Farthest first: each pick is the member with the largest distance 1 − cosine to the nearest of those before it,
    ties to the first. The first pick is the member whose cosine with the mean of the unit vectors is largest, and its
    score is 2, the largest distance there is. (Gonzalez 1985; as a coreset, arXiv 1708.00489.)

    Args: as for `facility_location`.
    """
    unit, n = normalize(features), len(features)
    distances = np.full(n, 2, unit.new_empty(0).cpu().numpy().dtype)
    rows = Candidates(cosines_of(unit), distances, unit, memory)
    members, scores = np.empty(n, np.int64), np.empty(n)
    for k in range(n):
        pick = distances.argmax() if k else (unit @ unit.mean(0)).cpu().numpy().argmax()
        members[k], scores[k] = pick, distances[pick]
        np.minimum(distances, np.maximum(1 - rows[pick], 0), out=distances)
        distances[pick] = -np.inf
    return GreedyOrder(members, scores)
