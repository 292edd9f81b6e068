"""Weighted k-nearest-neighbour classification: what the geometry of features alone tells of the classes."""

import torch
from jaxtyping import Float, Int
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

    Neighbours are the `min(k, n)` training features of the largest cosine similarity s; each votes for its
    class with weight `exp(s / temperature)`. A feature of length 0 has similarity 0 to everything. `block` test
    features are compared with `rows` training features at a time, on the device of the test features; so training
    features are read once, and may lie in a file that is larger than memory.

    Returns `{"knn/top1": accuracy in [0, 1]}`.
    """
    k = min(k, len(train))
    test = normalize(test, dim=1)
    device = test.device
    similarity = test.new_full((len(test), k), -torch.inf)
    neighbours = torch.zeros(len(test), k, dtype=torch.int64, device=device)
    for start in range(0, len(train), rows):
        some = normalize(train[start : start + rows].to(device), dim=1)
        for first in range(0, len(test), block):
            part = slice(first, first + block)
            nearest, places = (test[part] @ some.T).topk(min(k, len(some)), dim=1)
            candidates = torch.cat((similarity[part], nearest), 1)
            similarity[part], chosen = candidates.topk(k, dim=1)
            neighbours[part] = torch.cat((neighbours[part], places + start), 1).gather(1, chosen)
    # Relative to the nearest neighbour: the same winner, and no overflow however small the temperature.
    weights = ((similarity - similarity[:, :1]) / temperature).exp()
    votes = weights.new_zeros(len(test), num_classes)
    votes.scatter_add_(1, train_labels.to(device).long()[neighbours], weights)
    return {"knn/top1": accuracy(votes, test_labels.to(device))}
