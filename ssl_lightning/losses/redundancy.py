"""Losses that decorrelate the dimensions of embeddings. Statistics are those of the global batch, with gradient, so
that one process and several give the same loss and gradient."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.precision import full_precision, widened

EPS = 1e-5
"""Added to variances by which embeddings are divided."""


def _centred(z: Float[Tensor, "v n e"], images: int, gather: Gather) -> Float[Tensor, "v n e"]:
    """Less each view's mean over the global batch."""
    return z - gather.total(z.sum(1, keepdim=True)) / images


def _off_diagonal(matrices: Float[Tensor, "*k e e"]) -> Float[Tensor, "*k"]:
    """Sum of the squares of what is not on the diagonal."""
    return matrices.square().sum((-2, -1)) - matrices.diagonal(dim1=-2, dim2=-1).square().sum(-1)


def barlow_twins(
    embeddings: Float[Tensor, "v n e"], redundancy_weight: float, gather: Gather = LOCAL
) -> Float[Tensor, ""]:
    """Σ_i (1 − C_ii)² + λ Σ_{i≠j} C_ij², where C is the correlation matrix of two views (arXiv 2103.03230, eq. 1);
    with more views, the mean over pairs.

    Embeddings are standardised over the global batch, with the `EPS` of the paper's BatchNorm.

    Args:
        redundancy_weight: λ.
    """
    with full_precision(embeddings.device):
        images = embeddings.shape[1] * gather.world_size
        z = _centred(widened(embeddings), images, gather)
        variance = gather.total(z.square().sum(1, keepdim=True)) / images
        z = z * (variance + EPS).rsqrt()
        pairs = [z[v].T @ z[w] for v, w in itertools.combinations(range(len(z)), 2)]
        correlations = gather.total(torch.stack(pairs)) / images
        on = (1 - correlations.diagonal(dim1=1, dim2=2)).square().sum(1)
        return (on + redundancy_weight * _off_diagonal(correlations)).mean()


def vicreg(
    embeddings: Float[Tensor, "v n e"],
    invariance_weight: float,
    variance_weight: float,
    covariance_weight: float,
    gather: Gather = LOCAL,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The weighted terms of VICReg (arXiv 2105.04906, eq. 1–6), whose sum is the loss.

    Invariance is the mean squared error of two views, over images and dimensions; variance mean_j max(0, 1 −
    √(Var_j + 1e-4)), the mean over views; covariance (1/e) Σ_{i≠j} Cov_ij², the sum over two views. Weights and means
    are those of the released code. With more views: the mean over pairs, over views, and twice the mean over views. Var
    and Cov divide by N − 1.
    """
    with full_precision(embeddings.device):
        v, n, e = embeddings.shape
        images = n * gather.world_size
        z = widened(embeddings)
        # Σ over pairs ‖z_v − z_w‖² = V Σ_v ‖z_v‖² − ‖Σ_v z_v‖², of deviations from the mean view.
        deviations = z - z.mean(0)
        invariance = deviations.square().sum() * v / (v * (v - 1) / 2) / (n * e)
        centred = _centred(z, images, gather)
        variances = gather.total(centred.square().sum(1)) / (images - 1)
        variance = torch.relu(1 - (variances + 1e-4).sqrt()).mean()
        covariances = gather.total(centred.mT @ centred) / (images - 1)
        covariance = 2 * _off_diagonal(covariances).mean() / e
        return invariance_weight * invariance, variance_weight * variance, covariance_weight * covariance
