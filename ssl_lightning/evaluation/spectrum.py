"""How many dimensions a set of features really uses: spectra from first and second moments, and their ranks.

A collapsed encoder maps everything to a point (complete collapse) or into a subspace (dimensional collapse).
The singular values of the feature matrix `[n, d]` show both, and they follow from `(n, Σz, Σzzᵀ)`, whose size
does not grow with n and which add up over batches and over ranks: no features need to be gathered.
"""

import math

import torch
from jaxtyping import Float, Float64
from torch import Tensor

_ROWS = 8192  # rows that are converted to float64 at a time
_EPS = torch.finfo(torch.float64).eps
# Summing rows that differ rounds at random, and leaves tens of machine epsilons of the uncentred trace in an
# eigenvalue that should be 0. Below this multiple it is 0.
_FLOOR = 128 * _EPS


class Moments:
    """Accumulates `(n, Σz, Σzzᵀ)` over batches of features, in float64.

    The three states are plain sums: ranks all-reduce `states()` with a sum, two accumulators add with `+`.

    >>> z = torch.tensor([[3.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    >>> moments = Moments(2)
    >>> moments.update(z[:1])
    >>> moments.update(z[1:])
    >>> moments.singular_values(centred=False)
    tensor([3., 2.], dtype=torch.float64)
    """

    def __init__(self, dimension: int, device: torch.device | str = "cpu") -> None:
        self.count: Float64[Tensor, ""] = torch.zeros((), dtype=torch.float64, device=device)
        self.total: Float64[Tensor, " d"] = torch.zeros(dimension, dtype=torch.float64, device=device)
        self.gram: Float64[Tensor, "d d"] = torch.zeros(dimension, dimension, dtype=torch.float64, device=device)

    def states(self) -> tuple[Float64[Tensor, ""], Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
        """The accumulated tensors themselves, so that an in-place sum over ranks updates this object."""
        return self.count, self.total, self.gram

    @torch.no_grad()
    def update(self, z: Float[Tensor, "n d"]) -> None:
        """Adds the features of a batch. No gradient flows through the moments."""
        for rows in z.split(_ROWS):
            rows = rows.double()
            self.total += rows.sum(0)
            self.gram.addmm_(rows.T, rows)
        self.count += len(z)

    def __add__(self, other: "Moments") -> "Moments":
        merged = Moments(len(self.total), self.total.device)
        for state, mine, theirs in zip(merged.states(), self.states(), other.states(), strict=True):
            state.copy_(mine + theirs)
        return merged

    def mean(self) -> Float64[Tensor, " d"]:
        return self.total / self.count

    def covariance(self) -> Float64[Tensor, "d d"]:
        """The biased covariance (divided by n). Cancels where the mean exceeds the spread by 1e7 or more."""
        return (self.gram - torch.outer(self.total, self.mean())) / self.count

    def singular_values(self, centred: bool) -> Float64[Tensor, " d"]:
        """Singular values of the `[n, d]` feature matrix, less its mean if `centred`; descending.

        They are the roots of the eigenvalues of the Gram matrix, so values below 1.7e-7 of the uncentred
        matrix's Frobenius norm cannot be told from 0 and are exactly 0. Rounding to float32 alters the
        features themselves about as much.

        Of n rows that are all the same, every addition of a sum may round alike, so that the error grows with n.
        In whatever order they are added, the sums have a relative error of at most n eps / 2, and the centred Gram
        matrix, as it multiplies two of them, one of 3 n eps / 2 of the uncentred trace (Higham 2002, Accuracy and
        Stability of Numerical Algorithms, section 4.2). What is no larger as a whole, or but for the first value of
        the uncentred matrix, is 0 as a whole: complete collapse.
        """
        gram = self.covariance() * self.count if centred else self.gram
        eigenvalues = torch.linalg.eigvalsh(gram).flip(0)
        collapsed = max(_FLOOR, 2 * _EPS * self.count.item()) * self.gram.trace()
        spread = eigenvalues if centred else eigenvalues[1:]
        resolved = eigenvalues > (collapsed if (spread <= collapsed).all() else _FLOOR * self.gram.trace())
        return torch.where(resolved, eigenvalues, 0.0).sqrt()


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


def spectrum(z: Float[Tensor, "n d"], prefix: str) -> tuple[Float64[Tensor, " d"], dict[str, float]]:
    """Singular values of the features as they are, descending, and two metrics: `{prefix}/rankme` of these, and
    `{prefix}/effective_rank` of the features less their mean."""
    moments = Moments(z.shape[1], z.device)
    moments.update(z)
    values, centred = moments.singular_values(centred=False), moments.singular_values(centred=True)
    return values, {f"{prefix}/rankme": rankme(values), f"{prefix}/effective_rank": effective_rank(centred)}
