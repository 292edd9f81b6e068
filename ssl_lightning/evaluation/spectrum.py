"""How many dimensions the features of an encoder really use."""

from jaxtyping import Float, Float64
from torch import Tensor

from ssl_lightning.metrics.moments import Moments
from ssl_lightning.metrics.ranks import effective_rank, rankme


def spectrum(z: Float[Tensor, "n d"], prefix: str) -> tuple[Float64[Tensor, " d"], dict[str, float]]:
    """Singular values of the features as they are, descending, and two metrics: `{prefix}/rankme` of these, and
    `{prefix}/effective_rank` of the features less their mean."""
    moments = Moments(z.shape[1], z.device)
    moments.update(z)
    values, centred = moments.singular_values(centred=False), moments.singular_values(centred=True)
    return values, {f"{prefix}/rankme": rankme(values), f"{prefix}/effective_rank": effective_rank(centred)}
