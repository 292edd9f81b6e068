"""How close an image's neighbours are."""

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

from ssl_lightning.subsets.nearest import nearest


def density(features: Float[Tensor, "n d"], k: int, memory: float | None = None) -> Float64[np.ndarray, " n"]:
    """Mean cosine with the k nearest other members of a group, in [−1, 1]; 0 for a member that is alone.

    Args: as for `nearest`.
    """
    cosines, _ = nearest(features, k, memory)
    return cosines.double().sum(1).cpu().numpy() / max(1, cosines.shape[1])
