"""What `ssl_lightning.theory` computes, written down image by image as in section 4 of arXiv 2110.09348."""

import torch
from torch import Tensor


def views(n: int = 6, d: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    x, change = torch.randn(2, n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x, x + 0.5 * change


def matrix(rows: int, columns: int, seed: int, scale: float = 0.5) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(rows, columns, generator=generator, dtype=torch.float64)


def weights(z: Tensor, other: Tensor) -> list[list[Tensor]]:
    n, alpha = len(z), []
    for i in range(n):
        row = [torch.exp(-((z[i] - (other[i] if j == i else z[j])) ** 2).sum() / 2) for j in range(n)]
        alpha.append([value / sum(row) for value in row])
    return alpha


def loss(z: Tensor, other: Tensor) -> Tensor:
    alpha = weights(z, other)
    return torch.stack([-alpha[i][i].log() for i in range(len(z))]).mean()


def second_moments(alpha: list[list[Tensor]], x: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    n, d = x.shape
    between, within = torch.zeros(2, d, d, dtype=torch.float64)
    for i in range(n):
        within = within + (1 - alpha[i][i]) * torch.outer(other[i] - x[i], other[i] - x[i]) / n
        for j in range(n):
            if j != i:
                between = between + alpha[i][j] * torch.outer(x[i] - x[j], x[i] - x[j]) / n
    return between, within
