"""Log-partition functions of cosine similarities, in tiles: the matrix of all similarities is never held.

As in arXiv 2410.17243, the backward pass makes the tiles again from what the forward pass has kept, the partition
functions. Beyond that: similarities of unit vectors lie in [−1, 1], so that exp((s − 1)/τ) needs no running maximum,
and one tile serves its rows and its columns.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

TILE = {"cpu": 1024, "cuda": 4096}
"""Side of a tile: those of float32 take 4 MiB and 64 MiB."""
LARGE = 2**18
"""Number of similarities from which on tiles are faster than the whole matrix."""
WIDEST = 40.0
"""1/τ up to which exp(−2/τ) is far from the smallest float32; beyond it, tiles are of float64 (1/τ up to 350)."""


def log_partition(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], temperature: float, skipped: int | None = None
) -> Float[Tensor, " n"]:
    """log Σⱼ exp(⟨rᵢ, cⱼ⟩/τ) of each row i over all columns j.

    Exact to rounding, first and second derivatives too; the latter hold the whole matrix.

    Args:
        rows, columns: of length one. `rows is columns` halves the work.
        temperature: τ ≥ 0.003.
        skipped: column that row 0 leaves out; row i leaves out the one i further on.
    """
    if rows is columns and skipped not in (None, 0):
        raise ValueError(f"a symmetric matrix leaves out its diagonal, not that from column {skipped}")
    if not _large(rows, columns):
        return _plain(rows, columns, temperature, skipped).logsumexp(1)
    of_rows: Tensor = _Partitions.apply(rows, None if rows is columns else columns, temperature, skipped, False)
    return of_rows


def log_partitions(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"], temperature: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " m"]]:
    """`log_partition` of each row over all columns, and of each column over all rows, for the work of one of them."""
    if not _large(rows, columns):
        logits = _plain(rows, columns, temperature, None)
        return logits.logsumexp(1), logits.logsumexp(0)
    both: tuple[Tensor, Tensor] = _Partitions.apply(rows, columns, temperature, None, True)
    return both


def _large(rows: Tensor, columns: Tensor) -> bool:
    return len(rows) * len(columns) >= LARGE


def _plain(rows: Tensor, columns: Tensor, temperature: float, skipped: int | None) -> Tensor:
    """The whole matrix of logits."""
    logits = rows @ columns.T / temperature
    if skipped is None:
        return logits
    i = torch.arange(len(rows), device=rows.device)
    return logits.index_put_((i, i + skipped), logits.new_full((), -torch.inf))  # a new_tensor would be copied there


class _Partitions(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, others: Tensor | None, temperature: float, skipped: int | None, both: bool
    ) -> Tensor | tuple[Tensor, Tensor]:
        ctx.arguments = temperature, skipped, both
        columns = rows if others is None else others
        of_rows = torch.zeros(len(rows), dtype=_kind(rows, temperature), device=rows.device)
        of_columns = torch.zeros(len(columns), dtype=of_rows.dtype, device=rows.device)
        for i, j, tile in _tiles(rows, columns, temperature, skipped, symmetric=others is None):
            of_rows[i] += tile.sum(1)
            if both or (others is None and i != j):
                of_columns[j] += tile.sum(0)
        if others is None:
            of_rows += of_columns
        ctx.save_for_backward(rows, others, of_rows, of_columns if both else None)
        logs = [(sums.log() + 1 / temperature).to(rows.dtype) for sums in (of_rows, of_columns)]
        return (logs[0], logs[1]) if both else logs[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, others, of_rows, of_columns = ctx.saved_tensors
        temperature, skipped, both = ctx.arguments
        columns = rows if others is None else others
        if torch.is_grad_enabled():  # a gradient of this gradient is asked for
            logits = _plain(rows, columns, temperature, skipped)
            logs = [logits.logsumexp(1), logits.logsumexp(0)] if both else [logits.logsumexp(1)]
            inputs = [x for x in (rows, others) if x is not None and x.requires_grad]
            found = iter(torch.autograd.grad(logs, inputs, gradients, create_graph=True))
            made = [next(found) if x is not None and x.requires_grad else None for x in (rows, others)]
            return made[0], made[1], None, None, None
        of_row = gradients[0] / of_rows / temperature
        of_column = gradients[1] / of_columns / temperature if both else of_row
        summed = torch.zeros_like(rows), torch.zeros_like(columns)
        for i, j, tile in _tiles(rows, columns, temperature, skipped, symmetric=others is None):
            if both or others is None:
                tile *= of_row[i, None] + of_column[None, j]
            else:
                tile *= of_row[i, None]
            weights = tile.to(rows.dtype)
            summed[0][i].addmm_(weights, columns[j])
            if others is not None or i != j:
                summed[1][j].addmm_(weights.T, rows[i])
        if others is None:
            return summed[0] + summed[1], None, None, None, None
        return summed[0], summed[1], None, None, None


def _kind(rows: Tensor, temperature: float) -> torch.dtype:
    return rows.dtype if 1 / temperature <= WIDEST else torch.float64


def _tiles(
    rows: Tensor, columns: Tensor, temperature: float, skipped: int | None, symmetric: bool
) -> Iterator[tuple[slice, slice, Tensor]]:
    """Which rows and columns, and exp((s − 1)/τ) of their similarities, 0 where they leave one another out. Of a
    symmetric matrix, those on the diagonal and above. Each is overwritten by the next."""
    side = TILE.get(rows.device.type, TILE["cpu"])
    starts = [(i, j) for i in range(0, len(rows), side) for j in range(i if symmetric else 0, len(columns), side)]
    buffer = torch.empty(min(side, len(rows)), min(side, len(columns)), dtype=rows.dtype, device=rows.device)
    for i, j in starts:
        here, there = slice(i, min(i + side, len(rows))), slice(j, min(j + side, len(columns)))
        tile = buffer[: here.stop - i, : there.stop - j]
        torch.mm(rows[here], columns[there].T, out=tile)
        tile = tile.to(_kind(rows, temperature)).sub_(1).div_(temperature).exp_()
        if skipped is not None:
            offset = i + skipped - j  # of the diagonal that is left out, in this tile
            if -len(tile) < offset < tile.shape[1]:
                tile.diagonal(offset).zero_()
        yield here, there, tile
