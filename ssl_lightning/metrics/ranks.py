"""How many dimensions a set of features really uses, as numbers made from its spectrum.

A collapsed encoder maps everything to a point (complete collapse) or into a subspace (dimensional collapse). Spectra
are those of the feature matrix [n, d]: singular values σ, or λ = σ²/n of the features less their mean, the
eigenvalues of their covariance. All functions are 0 where all values are 0, and do not depend on the scale of
the features.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def _exp_entropy(p: Float64[Tensor, " d"]) -> float:
    return math.exp(torch.special.entr(p).sum().item())  # entr(p) = -p log p, with 0 log 0 = 0


def rankme(singular_values: Float[Tensor, " d"], eps: float = 1e-7) -> float:
    """RankMe (Garrido et al. 2023, arXiv 2210.02885, eq. 1-2): exp of the entropy of `p = σ / Σσ + eps`.

    The paper takes the singular values of the matrix that is *not* centred. From 1 to d, up to terms of the
    order of `d * eps`, which the paper adds without normalising anew; 0 where all values are 0.

    >>> round(rankme(torch.ones(16)), 3)
    16.0
    """
    sigma = singular_values.double()
    return _exp_entropy(sigma / sigma.sum() + eps) if sigma.any() else 0.0


def effective_rank(singular_values: Float[Tensor, " d"]) -> float:
    """Effective rank (Roy & Vetterli, EUSIPCO 2007): exp of the entropy of `p = σ / Σσ`, with 0 log 0 = 0.

    From 1 (a line) to d (isotropic), and never above the rank; 0 where all values are 0: complete collapse.
    Taken here of the centred matrix, whose rank is at most `min(n - 1, d)`.

    >>> effective_rank(torch.tensor([1.0, 0.0, 0.0]))
    1.0
    """
    sigma = singular_values.double()
    return _exp_entropy(sigma / sigma.sum()) if sigma.any() else 0.0


def participation_ratio(eigenvalues: Float[Tensor, " d"]) -> float:
    """(Σλ)² / Σλ² of the covariance (Gao et al. 2017, bioRxiv 214262): from 1 to d.

    >>> participation_ratio(torch.tensor([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    values = eigenvalues.double()
    return (values.sum().square() / values.square().sum()).item() if values.any() else 0.0


def stable_rank(singular_values: Float[Tensor, " d"]) -> float:
    """‖Z‖²_F / ‖Z‖²₂ = Σσ² / max σ², of the matrix that is not centred: from 1 to d.

    >>> stable_rank(torch.tensor([2.0, 1.0, 1.0]))
    1.5
    """
    return nesum(singular_values.double().square())


def nesum(eigenvalues: Float[Tensor, " d"]) -> float:
    """Normalised sum of the covariance's eigenvalues, Σλ / max λ (He & Ozay 2022, ICML): from 1 to d, d for whitened
    features.

    >>> nesum(torch.tensor([4.0, 2.0, 2.0]))
    2.0
    """
    values = eigenvalues.double()
    return (values.sum() / values.max()).item() if values.any() else 0.0


def alpha_req(eigenvalues: Float[Tensor, " d"], first: int = 11, last: int = 50) -> float:
    """α of the power law λ_j ∝ j^−α that fits the covariance's spectrum (α-ReQ: Agrawal et al. 2022, NeurIPS).

    Least squares of log λ_j on log j, j from `first` to `last`, both counted from 1. The range is fixed, as α depends
    on it; a spectrum that ends before it, or has fewer than two positive values in it, has none: NaN. The paper finds
    encoders best where α is about 1; large ones tell of collapse.

    >>> round(alpha_req(torch.arange(1.0, 101.0) ** -1.5), 6)
    1.5
    """
    values = eigenvalues.double().sort(descending=True).values[first - 1 : last]
    values = values[values > 0]
    if len(values) < 2:
        return math.nan
    x = torch.arange(first, first + len(values), dtype=torch.float64, device=values.device).log()
    x -= x.mean()
    return -((x * values.log()).sum() / x.square().sum()).item()
