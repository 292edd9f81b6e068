"""A mini-batch as an N-way classification, and the distance between two such classifications."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.precision import full_precision

Prediction = tuple[Float[Tensor, "v n e"], Float[Tensor, "v n e"]]
"""Embeddings of queries, and of what they are compared with."""


def log_assignments(prediction: Prediction, temperature: float) -> Float[Tensor, "v v n n"]:
    """log π(m|i) = log softmax_m(cos(pᵛ_i, tʷ_m)/τ) for every ordered pair of views (v, w)."""
    queries, keys = prediction
    with full_precision(queries.device):
        p = unit(queries)
        t = p if keys is queries else unit(keys)
        return (torch.einsum("vid,wmd->vwim", p, t) / temperature).log_softmax(-1)


def matching_kl(prediction: Prediction, target: Prediction, temperature: float) -> Float[Tensor, ""]:
    """Mean over images of KL(π_target ‖ π_prediction), in nats, averaged over ordered pairs of different views.

    No gradient flows into `target`. Zero exactly where both classify alike; never negative up to rounding.
    """
    num_views = len(prediction[0])
    with torch.no_grad():
        reference = log_assignments(target, temperature)
    divergence = (reference.exp() * (reference - log_assignments(prediction, temperature))).sum(-1).mean(-1)
    different = ~torch.eye(num_views, dtype=torch.bool, device=divergence.device)
    return (divergence * different).sum() / (num_views * (num_views - 1))
