"""Heads between representation and loss. Each is called with the length D of a representation."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.errors import UserError
from ssl_lightning.losses.precision import full_precision, widened
from ssl_lightning.ranges import Count, Number


def mlp(
    num_features: int,
    hidden: Count | None = None,
    outputs: Count = 128,
    layers: Number = 2,
    batch_norm: bool = True,
    final_batch_norm: bool = False,
) -> nn.Sequential:
    """`layers` linear maps with ReLU between; BatchNorm after the hidden ones and, if asked, the last. Without layers,
    the loss acts on the representation.

    Hidden layers are as wide as the representation where `hidden` is None, as in SimCLR (2048 for ResNet-50). A linear
    map before BatchNorm has no bias. The final BatchNorm is not affine, as in SAS.
    """
    head = nn.Sequential()
    inputs, hidden = num_features, hidden or num_features
    for _ in range(layers - 1):
        head.append(nn.Linear(inputs, hidden, bias=not batch_norm))
        if batch_norm:
            head.append(nn.BatchNorm1d(hidden))
        head.append(nn.ReLU(inplace=True))
        inputs = hidden
    if layers:
        head.append(nn.Linear(inputs, outputs, bias=not final_batch_norm))
    if final_batch_norm:
        head.append(nn.BatchNorm1d(outputs if layers else num_features, affine=False))
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


class Orthogonal(nn.Module):
    """z = Q exp(A − Aᵀ) r with a fixed random orthogonal Q and a trainable A, 0 at first: all singular values are 1,
    whatever the optimizer does (arXiv 2110.09348, table 2)."""

    base: Tensor

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("base", random_orthogonal(num_features))
        self.generator = nn.Parameter(torch.zeros(num_features, num_features))

    @property
    def weight(self) -> Float[Tensor, "d d"]:
        """Q exp(A − Aᵀ), in at least float32: half precision would not leave it orthogonal."""
        with full_precision(self.generator.device):
            generator = widened(self.generator)
            return widened(self.base) @ torch.linalg.matrix_exp(generator - generator.T)

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return nn.functional.linear(representations, self.weight.to(representations.dtype))


class Diagonal(nn.Module):
    """A trainable factor for each channel, 1 at first (arXiv 2110.09348, table 2). As a vector, it does not decay."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.diagonal = nn.Parameter(torch.ones(num_features))

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return representations * self.diagonal


class FixedLowRank(nn.Module):
    """U diag(1, …, 1, 0, …, 0) V with `rank` ones and fixed random orthogonal U and V (arXiv 2110.09348, table 2). No
    parameter, nothing trained."""

    weight: Tensor

    def __init__(self, num_features: int, rank: Count | None = None) -> None:
        super().__init__()
        self.rank = checked_rank(rank, num_features)
        left, right = random_orthogonal(num_features), random_orthogonal(num_features)
        self.register_buffer("weight", left[:, : self.rank] @ right[: self.rank])

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return nn.functional.linear(representations, self.weight)


class FixedLowRankDiagonal(nn.Module):
    """diag(1, …, 1, 0, …, 0) with `rank` ones (arXiv 2110.09348, table 2): no parameter, nothing trained."""

    def __init__(self, num_features: int, rank: Count | None = None) -> None:
        super().__init__()
        self.rank = checked_rank(rank, num_features)
        self.register_buffer("diagonal", (torch.arange(num_features) < self.rank).float(), persistent=False)

    def forward(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return representations * self.get_buffer("diagonal").to(representations.dtype)


def random_orthogonal(length: int) -> Float[Tensor, "d d"]:
    """Uniformly distributed."""
    return nn.init.orthogonal_(torch.empty(length, length))


def checked_rank(rank: int | None, num_features: int) -> int:
    """`rank`, or where it is None that of DirectCLR.

    Raises:
        UserError: it is more than there are channels.
    """
    if rank is not None and not 1 <= rank <= num_features:
        raise UserError(
            f"method.projector.rank is {rank}, but the representation has {num_features} channels. Set it between 1 "
            f"and {num_features}, or to null for {default_rank(num_features)}."
        )
    return default_rank(num_features) if rank is None else rank


def default_rank(num_features: int) -> int:
    """Length of DirectCLR's sub-vector: the best published share, 360 of 2048 (arXiv 2110.09348, §5.2)."""
    return max(1, round(0.176 * num_features))
