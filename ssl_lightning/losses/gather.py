"""Candidates of all ranks, with gradient."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.length = len(x)
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        # Every rank's loss depends on this rank's rows: sum over ranks, keep our own rows.
        total = gradients[0].contiguous()
        dist.all_reduce(total)
        return total.narrow(0, dist.get_rank() * ctx.length, ctx.length)


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()  # every rank's loss depends on this rank's summand
        dist.all_reduce(total)
        return total


class Gather:
    """Collects the rows of all ranks, in rank order, so that a loss sees the candidates of the global batch.

    Gradients flow to the rank a row came from and are summed over the ranks' losses. With losses that average
    over local anchors, and gradients averaged over ranks as DistributedDataParallel does, W ranks give exactly
    the gradient of one process with the concatenated batch. All ranks must bring the same number of rows.

    `Gather()` is the identity (one process, or negatives kept local on purpose); `Gather(rank, world_size)`
    needs an initialised process group.
    """

    def __init__(self, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size

    def __call__(self, x: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
        return x if self.world_size == 1 else _AllGather.apply(x)

    def total(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The sum of all ranks' tensors, with gradient, for statistics over the global batch."""
        return x if self.world_size == 1 else _AllReduce.apply(x)

    @torch.no_grad()
    def largest(self, x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The elementwise maximum of all ranks' tensors, without gradient."""
        if self.world_size == 1:
            return x
        largest = x.contiguous().clone()
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest


LOCAL = Gather()
