"""A mini-batch as an N-way classification, and the distance between two such classifications."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.contrastive import unit


def log_assignments(embeddings: Float[Tensor, "v n d"], temperature: float) -> Float[Tensor, "v v n n"]:
    """log π(m|i) = log softmax_m(cos(zᵛ_i, zʷ_m)/τ) for every ordered pair of views (v, w)."""
    with torch.autocast(embeddings.device.type, enabled=False):
        z = unit(embeddings)
        return (torch.einsum("vid,wmd->vwim", z, z) / temperature).log_softmax(-1)


def matching_kl(
    embeddings: Float[Tensor, "v n d"], target: Float[Tensor, "v n d"], temperature: float
) -> Float[Tensor, ""]:
    """Mean over images of KL(π_target ‖ π_embeddings), in nats, averaged over ordered pairs of different views.

    No gradient flows into `target`. Zero exactly where both classify alike; never negative up to rounding.
    """
    num_views = len(embeddings)
    reference = log_assignments(target.detach(), temperature)
    divergence = (reference.exp() * (reference - log_assignments(embeddings, temperature))).sum(-1).mean(-1)
    different = ~torch.eye(num_views, dtype=torch.bool, device=embeddings.device)
    return (divergence * different).sum() / (num_views * (num_views - 1))
