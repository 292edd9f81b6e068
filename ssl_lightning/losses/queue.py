"""InfoNCE against keys of former images."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.precision import full_precision


def info_nce_of_queue(
    queries: Float[Tensor, "v n e"], keys: Float[Tensor, "w n e"], queue: Float[Tensor, "k e"], temperature: float
) -> Float[Tensor, " n"]:
    """−log e^(⟨q̂_v, k̂_w⟩/τ) / (e^(⟨q̂_v, k̂_w⟩/τ) + Σ_j e^(⟨q̂_v, k̂_j⟩/τ)) of each image, the mean over ordered pairs of
    different views (MoCo, arXiv 1911.05722, eq. 1).

    Args:
        queries: of all v > 1 views.
        keys: of the first w views, constants.
        queue: k keys of former images, constants.
        temperature: τ > 0.
    """
    with full_precision(queries.device):
        q, k, others = unit(queries), unit(keys.detach()), unit(queue.detach())
        positives = torch.einsum("vne,wne->vwn", q, k) / temperature
        negatives = (q @ others.T / temperature).logsumexp(-1)  # [v, n]
        losses = torch.logaddexp(positives, negatives[:, None]) - positives
        different = torch.ones(losses.shape[:2], device=losses.device).fill_diagonal_(0)
        return torch.einsum("vwn,vw->n", losses, different.to(losses.dtype)) / (len(k) * (len(q) - 1))
