"""Spectra from first and second moments, whose size does not grow with the number of features."""

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

    @classmethod
    def of(cls, count: Float64[Tensor, ""], total: Float64[Tensor, " d"], gram: Float64[Tensor, "d d"]) -> "Moments":
        """Of states that were summed elsewhere."""
        moments = cls.__new__(cls)
        moments.count, moments.total, moments.gram = count, total, gram
        return moments

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
