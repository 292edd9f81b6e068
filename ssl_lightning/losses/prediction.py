"""Predictions of other views: similarity to a target, without negatives."""

from jaxtyping import Float
from torch import Tensor

from ssl_lightning.losses.contrastive import unit
from ssl_lightning.losses.precision import full_precision


def cosine_to_targets(predictions: Float[Tensor, "v n e"], targets: Float[Tensor, "w n e"]) -> Float[Tensor, " n"]:
    """Mean of ⟨p̂_v, t̂_w⟩ over ordered pairs of different views, of each image.

    BYOL (arXiv 2006.07733, eq. 2) minimises 2 − 2 of this, SimSiam (arXiv 2011.10566, eq. 1–2) its negative.

    Args:
        predictions: of all views.
        targets: of the first w views, which count as constants; v > 1.
    """
    with full_precision(predictions.device):
        p, t = unit(predictions), unit(targets.detach())
        own = (p[: len(t)] * t).sum((0, 2))
        return ((p.sum(0) * t.sum(0)).sum(1) - own) / (len(t) * (len(p) - 1))
