"""Spectral contrastive learning (arXiv 2106.04156)."""

import itertools
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.losses.precision import full_precision
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.models.backbones import num_features_of
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.ranges import Positive


class SpectralContrastive(SSLMethod):
    """L = −2·E⟨z, z⁺⟩ + E⟨z, z′⟩², of two views of one image, and of two images: least where the z span the top
    eigenvectors of the graph of views. Embeddings longer than √μ are shortened to that.

    Args:
        backbone: encoder to train.
        projector: called with D, returns the head between representation and loss.
        mu: μ > 0.
    """

    min_images = 2  # of a batch and process: images are compared with one another

    def __init__(
        self,
        backbone: nn.Module,
        projector: Callable[[int], nn.Module],
        mu: Positive = 10.0,
        optimizer: OptimizerRecipe | None = None,
    ) -> None:
        super().__init__(optimizer)
        self.backbone = backbone
        self.projector = projector(num_features_of(backbone))
        self.longest = mu**0.5

    def project(self, representations: Float[Tensor, "n d"]) -> Float[Tensor, "n e"]:
        z = self.projector(representations)
        return z * (self.longest / z.norm(dim=1, keepdim=True).clamp(min=self.longest))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        with full_precision(embeddings.device):
            loss = spectral_contrastive(embeddings.float(), gather)
        return Objective(loss, representations, embeddings)


def spectral_contrastive(z: Float[Tensor, "v n e"], gather: Gather) -> Float[Tensor, ""]:
    """The mean over ordered pairs of different views. The other images of an image are those of all processes."""
    # [v, n, e] -> rows of one image -> [v, m, e] with the m images of the global batch.
    others = gather(z.transpose(0, 1).flatten(1)).unflatten(1, z.shape[::2]).transpose(0, 1)
    pairs = itertools.permutations(range(len(z)), 2)
    return torch.stack([_of_pair(z[v] @ others[w].T, gather.rank) for v, w in pairs]).mean()


def _of_pair(products: Float[Tensor, "n m"], rank: int) -> Float[Tensor, ""]:
    n, m = products.shape
    own = products.diagonal(rank * n)  # of views of one image
    return -2 * own.mean() + (products.square().sum() - own.square().sum()) / (n * (m - 1))
