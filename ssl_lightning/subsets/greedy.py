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

from ssl_lightning.subsets.candidates import Candidates, fits

# Bytes of similarities that pass through a sum at a time: on a CPU they should stay in its cache.
CPU_BLOCK, GPU_BLOCK = 2**24, 2**28


class GreedyOrder(NamedTuple):
    """Members of a class, best first, with the score of each place (not of each member): never increasing, unless the
    rule says so."""

    members: Int64[np.ndarray, " n"]
    scores: Float64[np.ndarray, " n"]

    @classmethod
    def of(cls, scores: Float64[np.ndarray, " n"]) -> "GreedyOrder":
        """By a score of each member, the largest first, ties to the first."""
        members = np.argsort(-scores, kind="stable")
        return cls(members, scores[members])


def row_sum(features: Float[Tensor, "n d"], threshold: float = 0.0, memory: float = 2**31) -> GreedyOrder:
    """By Σ_{j≠i} s_ij, ties to the first: what the released code of SAS computes."""
    return GreedyOrder.of(similarity_sums(features, threshold, memory))


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
    rows: np.ndarray | Candidates
    if fits(n, features.itemsize, memory):
        similarities = _similarities(features, torch.arange(n, device=features.device), threshold)
        gains = similarities.sum(1).cpu().double().numpy()
        rows = _drops(similarities, np.arange(n))
    else:
        gains = similarity_sums(features, threshold, memory)

        def make(index: Int64[np.ndarray, " b"], out: Float[Tensor, "b n"]) -> Float[np.ndarray, "b n"]:
            return _drops(_similarities(features, torch.from_numpy(index).to(features.device), threshold, out), index)

        rows = Candidates(make, gains, features, memory)
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
