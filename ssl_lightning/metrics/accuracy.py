"""Accuracy as an exact share: torchmetrics counts, and counts are divided in double precision."""

from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_stat_scores


def accuracy(scores: Float[Tensor, "n c"], labels: Int[Tensor, " n"], k: int = 1) -> float:
    """The share of samples whose label is among the k largest scores.

    >>> import torch
    >>> accuracy(torch.eye(3), torch.tensor([0, 1, 1]))
    0.6666666666666666
    """
    right, *_ = multiclass_stat_scores(
        scores, labels.long(), scores.shape[1], average="micro", top_k=k, validate_args=False
    )
    return int(right) / len(labels)
