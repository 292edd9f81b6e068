"""LeJEPA's loss (arXiv 2511.08544): views agree, and embeddings are distributed as an isotropic Gaussian."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.precision import full_precision, widened

LAST, KNOTS = 3.0, 17
"""Of the integral, by the trapezoidal rule from 0."""


def sigreg(
    embeddings: Float[Tensor, "v n e"], directions: Float[Tensor, "e m"], gather: Gather = LOCAL
) -> Float[Tensor, ""]:
    """Sketched isotropic Gaussian regularisation: mean over views and directions a of the Epps–Pulley statistic
    N·2∫₀³ |φ(t) − e^(−t²/2)|² e^(−t²/2) dt, where φ is the empirical characteristic function of ⟨a, z⟩ over the
    global batch of N images.

    Args:
        directions: unit vectors, the same on all ranks.
    """
    with full_precision(embeddings.device):
        z = widened(embeddings)
        images = z.shape[1] * gather.world_size
        t = torch.linspace(0, LAST, KNOTS, dtype=z.dtype, device=z.device)
        gaussian = (-t.square() / 2).exp()
        weights = torch.full_like(t, LAST / (KNOTS - 1))
        for end in (0, -1):  # not [0, -1], a list that would be copied to the device
            weights[end] /= 2
        angles = (z @ directions.to(z.dtype))[..., None] * t  # [v, n, m, knots]
        cos, sin = gather.total(torch.stack((angles.cos().sum(1), angles.sin().sum(1)))) / images
        errors = (cos - gaussian).square() + sin.square()
        return 2 * images * (errors @ (weights * gaussian)).mean()


def agreement(embeddings: Float[Tensor, "v n e"], num_global: int) -> Float[Tensor, ""]:
    """Mean squared distance, a dimension, of each view to the mean of the image's global views, which are the first."""
    with full_precision(embeddings.device):
        z = widened(embeddings)
        return (z - z[:num_global].mean(0)).square().mean()
