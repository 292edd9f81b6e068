"""Heads between representation and loss. Each is called with the length D of a representation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.ranges import Count


def mlp(
    num_features: int,
    hidden: Count | None = None,
    outputs: Count = 128,
    layers: Count = 2,
    batch_norm: bool = True,
    final_batch_norm: bool = False,
) -> nn.Sequential:
    """`layers` linear maps with ReLU between; BatchNorm after the hidden ones and, if asked, the last.

    Hidden layers are as wide as the representation where `hidden` is None, as in SimCLR (2048 for ResNet-50). A linear
    map before BatchNorm has no bias. The final BatchNorm is not affine, as in SAS.
    """
    if layers < 1:
        raise ValueError(f"projector.layers is {layers}; an MLP has at least 1 layer")
    head = nn.Sequential()
    inputs, hidden = num_features, hidden or num_features
    for _ in range(layers - 1):
        head.append(nn.Linear(inputs, hidden, bias=not batch_norm))
        if batch_norm:
            head.append(nn.BatchNorm1d(hidden))
        head.append(nn.ReLU(inplace=True))
        inputs = hidden
    head.append(nn.Linear(inputs, outputs, bias=not final_batch_norm))
    if final_batch_norm:
        head.append(nn.BatchNorm1d(outputs, affine=False))
    return head


def linear(num_features: int, outputs: Count | None = None) -> nn.Linear:
    """One linear map without bias, square by default (DirectCLR's trainable linear projector)."""
    return nn.Linear(num_features, outputs or num_features, bias=False)


def none(num_features: int) -> nn.Identity:
    """The loss acts on the representation itself."""
    return nn.Identity()


def predictor(length: Count, hidden: Count | None = None) -> nn.Sequential:
    """From an embedding to another of the same length, through one hidden layer with BatchNorm: a bottleneck of a
    quarter where `hidden` is None, as in SimSiam."""
    return mlp(length, hidden or max(1, length // 4), length)


def num_outputs_of(projector: nn.Module, num_features: int) -> int:
    """E, the length of the embeddings of a head: what its last linear layer gives, or else D."""
    lengths = [length for m in projector.modules() if isinstance(length := getattr(m, "out_features", None), int)]
    return lengths[-1] if lengths else num_features


class FixedLowRankDiagonal(nn.Module):
    """diag(1, …, 1, 0, …, 0) with `rank` ones (arXiv 2110.09348, §5): no parameter, nothing trained."""

    def __init__(self, num_features: int, rank: Count | None = None) -> None:
        super().__init__()
        self.rank = default_rank(num_features) if rank is None else rank
        self.register_buffer("diagonal", (torch.arange(num_features) < self.rank).float(), persistent=False)

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return representations * self.get_buffer("diagonal").to(representations.dtype)


def default_rank(num_features: int) -> int:
    """Length of DirectCLR's sub-vector: the best published share, 360 of 2048 (arXiv 2110.09348, §5.2)."""
    return max(1, round(0.176 * num_features))
