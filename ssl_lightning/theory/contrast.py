"""InfoNCE in its Euclidean form, and the two second moments that are all a linear encoder learns from.

Source: Jing et al., Understanding Dimensional Collapse in Contrastive Self-supervised Learning (DirectCLR,
arXiv 2110.09348), section 4. The paper sums over images; here everything is the mean over them, so that a learning
rate does not depend on the batch. x are the first views of n images, `other` their second views.
"""

from jaxtyping import Float
from torch import Tensor


def loss(z: Float[Tensor, "*b n d"], other: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b"]:
    """Mean over i of −log α_ii, where α = `weights(z, other)`: negatives are of the same branch.

    >>> import torch
    >>> images = torch.zeros(4, 2)  # all alike: chance
    >>> torch.allclose(loss(images, images), torch.tensor(4.0).log())
    True
    """
    return -_logits(z, other).log_softmax(-1).diagonal(dim1=-2, dim2=-1).mean(-1)


def weights(z: Float[Tensor, "*b n d"], other: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n n"]:
    """α: the softmax over j of −‖z_i − z_j‖²/2 for j ≠ i, and of −‖z_i − z'_i‖²/2 for j = i. Rows sum to 1."""
    return _logits(z, other).softmax(-1)


def second_moments(
    alpha: Float[Tensor, "*b n n"], x: Float[Tensor, "*b n d"], other: Float[Tensor, "*b n d"]
) -> tuple[Float[Tensor, "*b d d"], Float[Tensor, "*b d d"]]:
    """Σ̂₀ of differences between images, and Σ̂₁ of differences between views of an image:

        Σ̂₀ = (1/n) Σ_{i≠j} α_ij (x_i − x_j)(x_i − x_j)ᵀ,  Σ̂₁ = (1/n) Σ_i (1 − α_ii)(x'_i − x_i)(x'_i − x_i)ᵀ.

    With z = W x and α = `weights(z, z')`, ∂loss/∂W = −W(Σ̂₀ − Σ̂₁): directions in which X = Σ̂₀ − Σ̂₁ is positive grow,
    those in which it is negative shrink.
    """
    same = alpha.diagonal(dim1=-2, dim2=-1)
    apart = alpha - same.diag_embed()
    both = apart + apart.mT
    between = (x * both.sum(-1, keepdim=True)).mT @ x - x.mT @ both @ x  # a graph's Laplacian between the images
    change = other - x
    within = (change * (1 - same)[..., None]).mT @ change
    return between / x.shape[-2], within / x.shape[-2]


def _logits(z: Float[Tensor, "*b n d"], other: Float[Tensor, "*b n d"]) -> Float[Tensor, "*b n n"]:
    square = z.square().sum(-1)
    apart = square[..., :, None] + square[..., None, :] - 2 * z @ z.mT
    pairs = (z - other).square().sum(-1)
    return -(apart - apart.diagonal(dim1=-2, dim2=-1).diag_embed() + pairs.diag_embed()) / 2
