"""Weighted k-nearest-neighbour classification: what the geometry of features alone tells of the classes."""

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.metrics.accuracy import accuracy


@torch.no_grad()
def knn(
    train: Float[Tensor, "n d"],
    train_labels: Int[Tensor, " n"],
    test: Float[Tensor, "m d"],
    test_labels: Int[Tensor, " m"],
    num_classes: int,
    k: int = 20,
    temperature: float = 0.07,
    block: int = 1024,
    rows: int = 16384,
) -> dict[str, float]:
    """Accuracy of the k nearest neighbours' weighted vote (Wu et al. 2018, arXiv 1805.01978, section 3.4).

    Neighbours, `block` and `rows` as of `nearest`; each votes for its class with weight `exp(s / temperature)`, where
    s is its cosine similarity.

    Returns `{"knn/top1": accuracy in [0, 1]}`.
    """
    similarity, neighbours = nearest(test, train, k, block, rows)
    # Relative to the nearest neighbour: the same winner, and no overflow however small the temperature.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(test), num_classes)
    votes.scatter_add_(1, train_labels.to(test.device).long()[neighbours], weights)
    return {"knn/top1": accuracy(votes, test_labels.to(test.device))}


@torch.no_grad()
def nearest(
    queries: Float[Tensor, "m d"], others: Float[Tensor, "n d"], k: int, block: int = 1024, rows: int = 16384
) -> tuple[Float[Tensor, "m k"], Int64[Tensor, "m k"]]:
    """The `min(k, n)` largest cosine similarities of each query, and the positions of those others, the nearest first.

    A feature of length 0 has similarity 0 to everything. `block` queries are compared with `rows` others at a time, on
    the device of the queries; so the others are read once, and may lie in a file that is larger than memory.
    """
    k = min(k, len(others))
    queries = normalize(queries, dim=1)
    similarity = queries.new_full((len(queries), k), -torch.inf)
    positions = torch.zeros(len(queries), k, dtype=torch.int64, device=queries.device)
    for start in range(0, len(others), rows):
        some = normalize(others[start : start + rows].to(queries.device), dim=1)
        for first in range(0, len(queries), block):
            part = slice(first, first + block)
            near, places = (queries[part] @ some.T).topk(min(k, len(some)), dim=1)
            similarity[part], chosen = torch.cat((similarity[part], near), 1).topk(k, dim=1)
            positions[part] = torch.cat((positions[part], places + start), 1).gather(1, chosen)
    return similarity, positions
