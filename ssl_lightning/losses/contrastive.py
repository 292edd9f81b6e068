"""NT-Xent and cross-view InfoNCE for any number of views, whose N×N matrix is never held where it is large."""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.partition import log_partition, log_partitions
from ssl_lightning.losses.precision import full_precision, widened


def unit(z: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
    """Rows of length one, in at least float32: half-precision embeddings are widened first."""
    return F.normalize(widened(z), dim=-1)


class Terms(NamedTuple):
    """What a contrastive loss is the mean of.

    Args:
        partitions: log-partition functions of the anchors of each image.
        positives: the mean similarity of different views of each image.
        temperature: τ of both.
    """

    partitions: Float[Tensor, "a n"]
    positives: Float[Tensor, " n"]
    temperature: float

    def mean(self) -> Float[Tensor, ""]:
        """The loss."""
        return self.partitions.mean() - self.positives.mean() / self.temperature

    def of_images(self) -> Float[Tensor, " n"]:
        """The loss of each image; their mean is the loss, but for rounding."""
        return self.partitions.mean(0) - self.positives / self.temperature


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
    return nt_xent_terms(embeddings, temperature, gather).mean()


def nt_xent_terms(embeddings: Float[Tensor, "v n d"], temperature: float, gather: Gather = LOCAL) -> Terms:
    """What `nt_xent` is the mean of: each view of an image is an anchor."""
    with full_precision(embeddings.device):
        z = unit(embeddings)
        anchors = z.flatten(0, 1)
        candidates = gather(anchors)
        partitions = log_partition(anchors, candidates, temperature, skipped=gather.rank * len(anchors))
        return Terms(partitions.unflatten(0, z.shape[:2]), _positives(z), temperature)


def _positives(z: Float[Tensor, "v n d"]) -> Float[Tensor, " n"]:
    """Mean of ⟨ẑ_v, ẑ_w⟩ over ordered pairs of different views, of each image: their sum is ‖Σ_v ẑ_v‖² − Σ_v ‖ẑ_v‖²."""
    pairs = len(z) * (len(z) - 1)
    return (z.sum(0).square().sum(1) - z.square().sum((0, 2))) / pairs


def info_nce(embeddings: Float[Tensor, "v n d"], temperature: float, gather: Gather = LOCAL) -> Float[Tensor, ""]:
    """Cross-view InfoNCE, the loss of DirectCLR (arXiv 2110.09348).

    For each ordered pair of different views (v, w): cross-entropy of ẑᵛẑʷᵀ/τ with the positives on the diagonal
    and the other images of view w as negatives; the mean over pairs.

    Args: as for `nt_xent`.
    """
    return info_nce_terms(embeddings, temperature, gather).mean()


def info_nce_terms(embeddings: Float[Tensor, "v n d"], temperature: float, gather: Gather = LOCAL) -> Terms:
    """What `info_nce` is the mean of: an image has an anchor for each ordered pair of different views."""
    pairs = itertools.combinations(range(len(embeddings)), 2)
    with full_precision(embeddings.device):
        z = unit(embeddings)
        if gather.world_size == 1:  # (v, w) and (w, v) are rows and columns of one matrix
            partitions = [part for v, w in pairs for part in log_partitions(z[v], z[w], temperature)]
        else:
            # [V, N, D] -> rows of one image -> [V, M, D] with the M images of the global batch.
            others = gather(z.transpose(0, 1).flatten(1)).unflatten(1, z.shape[::2]).transpose(0, 1)
            ordered = itertools.permutations(range(len(z)), 2)
            partitions = [log_partition(z[v], others[w], temperature) for v, w in ordered]
        return Terms(torch.stack(partitions), _positives(z), temperature)
