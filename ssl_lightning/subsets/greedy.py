"""Which members of a latent class come first: the objective of SAS (arXiv 2302.09195), exactly and fast.

Similarities are s_ij = ⟨z_i, z_j⟩ where that exceeds a threshold ≥ 0, else 0; sums leave out j = i. Products run on
the device of the features, picks on the host: a pick is one vector update, too short for an accelerator.
"""

from itertools import combinations_with_replacement
from math import isqrt
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor
from torch.nn.functional import threshold as thresholded

# Rows of similarities that are made at a time where not all of them fit: some of them are never used.
CANDIDATES = 256
# Bytes of similarities that pass through a sum at a time: on a CPU they should stay in its cache.
CPU_BLOCK, GPU_BLOCK = 2**24, 2**28


class GreedyOrder(NamedTuple):
    """Members of a class, best first, with the score of each place (not of each member): never increasing."""

    members: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]


def fits(n: int, itemsize: int, memory: float) -> bool:
    """Whether all similarities of a class of n are held at once within so many bytes."""
    return n * n * itemsize <= memory


def row_sum(features: Float[Tensor, "n d"], threshold: float = 0.0, memory: float = 2**31) -> GreedyOrder:
    """By Σ_{j≠i} s_ij, ties to the first: what the released code of SAS computes."""
    sums = similarity_sums(features, threshold, memory)
    members = np.argsort(-sums, kind="stable")
    return GreedyOrder(members, sums[members])


def graph_cut(
    features: Float[Tensor, "n d"], threshold: float = 0.0, budget: int | None = None, memory: float = 2**31
) -> GreedyOrder:
    """Exact greedy maximisation of F(S) = Σ_{i∉S} Σ_{j∈S} s_ij, ties to the first.

    The gain of e is Σ_{j≠e} s_ej − 2 Σ_{j∈S} s_ej: a pick subtracts twice a row of similarities from all gains. F is
    submodular but not monotone: gains never increase, and become negative at about half of a class.

    Args:
        features: of one latent class, on any device.
        threshold: in [0, 1).
        budget: picks to make, at most n; the members that are left follow in the order of their last gains.
        memory: bytes for similarities. A class whose matrix does not fit is ranked in the same order without it.
    """
    n = len(features)
    budget = n if budget is None else min(budget, n)
    rows: np.ndarray | _Candidates
    if fits(n, features.itemsize, memory):
        similarities = _similarities(features, torch.arange(n, device=features.device), threshold)
        gains = similarities.sum(1).cpu().double().numpy()
        rows = _drops(similarities, np.arange(n))
    else:
        gains = similarity_sums(features, threshold, memory)
        rows = _Candidates(features, threshold, gains, memory)
    members, scores = np.empty(n, np.int64), np.empty(n)
    for k in range(budget):
        pick = gains.argmax()
        members[k], scores[k] = pick, gains[pick]
        gains -= rows[pick]
    if budget < n:
        members[budget:] = np.argsort(-gains, kind="stable")[: n - budget]  # those taken have a gain of -inf
        scores[budget:] = gains[members[budget:]]
    return GreedyOrder(members, scores)


def similarity_sums(
    features: Float[Tensor, "n d"], threshold: float = 0.0, memory: float = 2**31
) -> Float64[np.ndarray, " n"]:
    """Σ_{j≠i} s_ij of each i, in square blocks on and above the diagonal."""
    n = len(features)
    block_bytes = min(memory, CPU_BLOCK if features.device.type == "cpu" else GPU_BLOCK)
    side = max(1, min(n, isqrt(max(n, int(block_bytes / features.itemsize)))))  # as much as a row where that is more
    buffer = features.new_empty(side * side)
    sums = np.zeros(n)
    for i, j in combinations_with_replacement(range(0, n, side), 2):
        rows, columns = features[i : i + side], features[j : j + side]
        block = buffer[: len(rows) * len(columns)].view(len(rows), len(columns))
        thresholded(torch.mm(rows, columns.T, out=block), threshold, 0.0, inplace=True)
        if i == j:
            block.fill_diagonal_(0.0)
        else:
            sums[j : j + side] += block.sum(0).cpu().numpy()
        sums[i : i + side] += block.sum(1).cpu().numpy()
    return sums


def _similarities(
    features: Float[Tensor, "n d"], index: Int[Tensor, " b"], threshold: float, out: Float[Tensor, "b n"] | None = None
) -> Float[Tensor, "b n"]:
    rows = thresholded(torch.mm(features[index], features.T, out=out), threshold, 0.0, inplace=True)
    return rows.scatter_(1, index[:, None], 0.0)


def _drops(similarities: Float[Tensor, "b n"], index: Int64[np.ndarray, " b"]) -> Float[np.ndarray, "b n"]:
    """What taking each of the members costs all gains, on the host; its own becomes -inf. Overwrites its input."""
    rows = similarities.mul_(2).cpu().numpy()
    rows[np.arange(len(index)), index] = np.inf
    return rows


class _Candidates:
    """`rows[i]`, made together with the rows of those members that have the largest gains now."""

    def __init__(
        self, features: Float[Tensor, "n d"], threshold: float, gains: Float64[np.ndarray, " n"], memory: float
    ) -> None:
        self.features = features
        self.threshold = threshold
        self.gains = gains
        self.size = max(1, min(CANDIDATES, int(memory / (len(features) * features.itemsize))))
        self.place = np.full(len(features), -1)
        self.buffer = features.new_empty(self.size, len(features))  # new rows replace old ones: never both at once

    def __getitem__(self, member: np.integer) -> Float[np.ndarray, " n"]:
        if self.place[member] < 0:
            index = np.argpartition(-self.gains, self.size - 1)[: self.size]
            index[0] = member if member not in index else index[0]
            self.place[:] = -1
            self.place[index] = np.arange(self.size)
            on_device = torch.from_numpy(index).to(self.features.device)
            self.rows = _drops(_similarities(self.features, on_device, self.threshold, self.buffer), index)
        return self.rows[self.place[member]]
