"""Directions that embeddings are compared with."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ssl_lightning.losses.contrastive import unit


class Prototypes(nn.Module):
    """Cosines of embeddings and k learned directions: a linear layer without bias, of unit rows.

    Args:
        length: of embeddings.
        number: k.
    """

    def __init__(self, length: int, number: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(number, length) / length**0.5)

    def forward(
        self, embeddings: Float[Tensor, "*batch e"], moves: Bool[Tensor, ""] | None = None
    ) -> Float[Tensor, "*batch k"]:
        """Cosines.

        Args:
            moves: whether the directions get a gradient; on the device, so that nothing waits for it.
        """
        weight = self.weight if moves is None else torch.where(moves, self.weight, self.weight.detach())
        return unit(embeddings) @ unit(weight).T
