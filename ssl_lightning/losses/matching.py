"""A mini-batch as an N-way classification, and the distance between two such classifications."""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.precision import full_precision

Prediction = tuple[Float[Tensor, "v n e"], Float[Tensor, "v n e"]]
"""Embeddings of queries, and of what they are compared with."""


def log_assignments(prediction: Prediction, temperature: float) -> Float[Tensor, "p n n"]:
    """log π(m|i) = log softmax_m(cos(pᵛ_i, tʷ_m)/τ) for every ordered pair of different views (v, w), which are
    ordered as `itertools.permutations` does."""
    queries, keys = prediction
    query_view, key_view = zip(*itertools.permutations(range(len(queries)), 2), strict=True)
    with full_precision(queries.device):
        p = unit(queries)
        t = p if keys is queries else unit(keys)
        return (p[list(query_view)] @ t[list(key_view)].mT / temperature).log_softmax(-1)


def matching_kl(prediction: Prediction, target: Prediction, temperature: float) -> Float[Tensor, ""]:
    """Mean over images of KL(π_target ‖ π_prediction), in nats, averaged over ordered pairs of different views.

    No gradient flows into `target`. Zero exactly where both classify alike; never negative up to rounding.
    """
    with torch.no_grad():
        reference = log_assignments(target, temperature)
    divergence = (reference.exp() * (reference - log_assignments(prediction, temperature))).sum(-1).mean(-1)
    return divergence.sum() / len(divergence)
