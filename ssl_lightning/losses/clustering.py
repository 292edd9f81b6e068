"""Predictions of cluster assignments: SwAV's balanced codes, DINO's centred and sharpened teacher."""

import torch
from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.precision import full_precision, widened


@torch.no_grad()
def sinkhorn(
    scores: Float[Tensor, "n k"], epsilon: float = 0.05, iterations: int = 3, gather: Gather = LOCAL
) -> Float[Tensor, "n k"]:
    """Codes of a view: the assignment of images to prototypes of most score and entropy whose prototypes are used
    equally, by Sinkhorn–Knopp (SwAV, arXiv 2006.09882, eq. 3–5).

    Columns are normalised to N/k over the global batch, then rows to 1, in turns; rows sum to 1 exactly.

    Args:
        scores: cosines, in [−1, 1].
        epsilon: weight of the entropy, > 0.
    """
    with full_precision(scores.device):
        codes = ((widened(scores) - 1) / epsilon).exp()  # a common factor does not matter
        for _ in range(iterations):
            codes = codes / gather.total(codes.sum(0))
            codes = codes / codes.sum(1, keepdim=True)
        return codes


def cross_entropy_of_pairs(targets: Float[Tensor, "w n k"], logits: Float[Tensor, "v n k"]) -> Float[Tensor, " n"]:
    """Cross-entropy −Σ_k q_w log softmax(l_v), of each image the mean over pairs of different views.

    Args:
        targets: probabilities of the first w views.
        logits: of all v > 1 views.
    """
    with full_precision(logits.device):
        log_p = widened(logits).log_softmax(-1)
        q = widened(targets)
        own = (q * log_p[: len(q)]).sum((0, 2))
        return (own - (q.sum(0) * log_p.sum(0)).sum(1)) / (len(q) * (len(log_p) - 1))
