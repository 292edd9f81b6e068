"""Weighted k-nearest-neighbour classification: what the geometry of features alone tells of the classes."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize


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
) -> dict[str, float]:
    """Accuracy of the k nearest neighbours' weighted vote (Wu et al. 2018, arXiv 1805.01978, section 3.4).

    Neighbours are the `min(k, n)` training features of the largest cosine similarity s; each votes for its
    class with weight `exp(s / temperature)`. `block` test features are compared at a time, which takes
    `block * n` floats of memory. A feature of length 0 has similarity 0 to everything.

    Returns `{"knn/top1": accuracy in [0, 1]}`.
    """
    train = normalize(train, dim=1)
    k = min(k, len(train))
    correct = 0
    for queries, targets in zip(test.split(block), test_labels.split(block), strict=True):
        similarity, neighbours = (normalize(queries, dim=1) @ train.T).topk(k, dim=1)
        # Relative to the nearest neighbour: the same winner, and no overflow however small the temperature.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = weights.new_zeros(len(queries), num_classes)
        votes.scatter_add_(1, train_labels[neighbours].long(), weights)
        correct += int((votes.argmax(1) == targets).sum())
    return {"knn/top1": correct / len(test)}
