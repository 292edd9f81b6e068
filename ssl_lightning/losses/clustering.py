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

    Columns are normalised over the global batch, then rows to 1, in turns; rows sum to 1 exactly. In logarithms: of
    exp(s/ε), whole columns underflow where ε is small.

    Args:
        scores: cosines, in [−1, 1].
        epsilon: weight of the entropy, > 0.
        iterations: ≥ 1.
    """
    with full_precision(scores.device):
        logits = widened(scores) / epsilon
        rows = torch.zeros_like(logits[:, :1])
        for _ in range(iterations):
            columns = _log_totals(logits - rows, gather)
            rows = (logits - columns).logsumexp(1, keepdim=True)
        return (logits - columns).softmax(1)


def _log_totals(logits: Float[Tensor, "n k"], gather: Gather) -> Float[Tensor, " k"]:
    """log Σ exp of each column over the rows of all processes."""
    largest = gather.largest(logits.amax(0))
    return gather.total((logits - largest).exp().sum(0)).log() + largest


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
