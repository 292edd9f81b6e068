"""Nearest neighbours of images within a group, exactly, without the matrix of all similarities."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.greedy import CPU_BLOCK, GPU_BLOCK


def nearest(
    features: Float[Tensor, "n d"], k: int, memory: float | None = None
) -> tuple[Float[Tensor, "n k"], Int64[Tensor, "n k"]]:
    """Cosines with the k nearest other members of a group, and which these are, by position; of equals the first are
    taken. A vector of zeros has the cosine 0 with all.

    Args:
        features: of the group, of any length.
        k: at least 1; of n members there are at most n − 1 others.
        memory: bytes for similarities at a time; changes nothing but speed.
    """
    unit, n = normalize(features), len(features)
    k = min(k, n - 1)
    if k < 1:
        return features.new_empty(n, 0), torch.empty(n, 0, dtype=torch.int64, device=features.device)
    memory = memory or (CPU_BLOCK if features.device.type == "cpu" else GPU_BLOCK)
    side = max(1, min(n, int(memory / (n * features.itemsize))))
    buffer = features.new_empty(side, n)
    found = []
    for start in range(0, n, side):
        rows = unit[start : start + side]
        block = torch.mm(rows, unit.T, out=buffer[: len(rows)])
        block.diagonal(start).fill_(-torch.inf)
        found.append(_largest(block, k))
    cosines, index = zip(*found, strict=True)
    return torch.cat(cosines), torch.cat(index)


def _largest(block: Float[Tensor, "b n"], k: int) -> tuple[Float[Tensor, "b k"], Int64[Tensor, "b k"]]:
    """The k < n largest of each row by position, of equals the first."""
    values, index = block.topk(k + 1)
    last, further = values[:, k - 1], values[:, k]
    index = index[:, :k].sort(dim=1).values
    if len(tied := torch.nonzero(last == further).flatten()):  # any of these may have been taken
        rows, bound = block[tied], last[tied, None]
        above, equal = rows > bound, rows == bound
        missing = k - above.sum(1, keepdim=True)
        index[tied] = torch.nonzero(above | (equal & (equal.cumsum(1) <= missing)))[:, 1].view(-1, k)
    return block.gather(1, index), index
