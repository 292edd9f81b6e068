"""NT-Xent and cross-view InfoNCE for any number of views, each as one matrix product."""

import itertools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.precision import full_precision


def unit(z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Rows of length one, in at least float32: half-precision embeddings are widened first."""
    return F.normalize(z.float() if z.dtype in (torch.float16, torch.bfloat16) else z, dim=-1)


def nt_xent(embeddings: Float[Tensor, "v n d"], temperature: float, gather: Gather = LOCAL) -> Float[Tensor, ""]:
    """Normalised temperature-scaled cross-entropy (SimCLR, arXiv 2002.05709, eq. 1).

    Anchors are all V·N views; the positives of an anchor are the other views of its image; its candidates are
    all other views of the global batch, those of the same kind included. With V > 2 the loss is the mean of
    −log p over the V−1 positives, each of which stays in the denominator.

    Args:
        embeddings: one embedding per view and image; normalised here.
        temperature: τ > 0.
        gather: collects candidates over ranks (local ones only by default).
    """
    num_views, num_images, _ = embeddings.shape
    with full_precision(embeddings.device):
        z = unit(embeddings)
        anchors = z.flatten(0, 1)
        logits = anchors @ gather(anchors).T / temperature
        rows = torch.arange(len(anchors), device=z.device)
        logits.index_put_((rows, rows + gather.rank * len(anchors)), logits.new_tensor(-torch.inf))
        total = z.sum(0)
        # Σ over ordered pairs of different views of ⟨ẑ_v, ẑ_w⟩ = ‖Σ_v ẑ_v‖² − Σ_v ‖ẑ_v‖², per image.
        positives = (total.square().sum() - z.square().sum()) / (temperature * (num_views - 1))
        return logits.logsumexp(1).mean() - positives / (num_views * num_images)


def info_nce(embeddings: Float[Tensor, "v n d"], temperature: float, gather: Gather = LOCAL) -> Float[Tensor, ""]:
    """Cross-view InfoNCE, the loss of DirectCLR (arXiv 2110.09348).

    For each ordered pair of different views (v, w): cross-entropy of ẑᵛẑʷᵀ/τ with the positives on the diagonal
    and the other images of view w as negatives; the mean over pairs.

    Args: as for `nt_xent`.
    """
    num_views = len(embeddings)
    anchor_view, candidate_view = zip(*itertools.permutations(range(num_views), 2), strict=True)
    with full_precision(embeddings.device):
        z = unit(embeddings)
        # [V, N, D] -> rows of one image -> [V, M, D] with the M images of the global batch.
        candidates = gather(z.transpose(0, 1).flatten(1)).unflatten(1, z.shape[::2]).transpose(0, 1)
        anchors, targets = z[list(anchor_view)], z[list(candidate_view)]
        logits = anchors @ candidates[list(candidate_view)].mT / temperature
        return logits.logsumexp(-1).mean() - (anchors * targets).sum(-1).mean() / temperature
