"""Spectra and ranks of features as torchmetrics: sums over batches and processes, in float64."""

from typing import Any, ClassVar

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torchmetrics import Metric

from ssl_lightning.metrics import ranks
from ssl_lightning.metrics.moments import Moments
from ssl_lightning.ranges import Count


class Spectrum(Metric):
    """Singular values of all features [n, d] that it has seen, descending; less their mean if `centred`.

    The states are (n, Σz, Σzzᵀ): no features are kept or gathered, and any split into batches and processes gives the
    same up to rounding. They are float64, which MPS lacks: keep the metric on the CPU there.

    Args:
        num_features: d.
        centred: whether the mean is taken out.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = Spectrum(2)
    >>> metric.update(torch.tensor([[3.0, 0.0]]))
    >>> metric.update(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    >>> metric.compute()
    tensor([3., 2.], dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    centred: ClassVar[bool | None] = None
    """Of ranks, which way they are defined; a spectrum is told."""

    count: Tensor
    total: Tensor
    gram: Tensor

    def __init__(self, num_features: Count, centred: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._centred = centred if self.centred is None else self.centred
        for name, state in zip(("count", "total", "gram"), Moments(num_features).states(), strict=True):
            self.add_state(name, state, dist_reduce_fx="sum")

    def update(self, features: Float[Tensor, "n d"]) -> None:
        """Adds features, without gradient."""
        added = Moments(len(self.total), self.total.device)
        added.update(features)
        self.count += added.count
        self.total += added.total
        self.gram += added.gram

    def singular_values(self) -> Float64[Tensor, " d"]:
        return Moments.of(self.count, self.total, self.gram).singular_values(self._centred)

    def eigenvalues(self) -> Float64[Tensor, " d"]:
        """σ²/n: of the second moments, of a centred spectrum of the covariance."""
        return self.singular_values().square() / self.count

    def compute(self) -> Tensor:
        return self.singular_values()

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64, device=self.count.device)


class RankMe(Spectrum):
    """See `ranks.rankme`.

    >>> metric = RankMe(16)
    >>> metric.update(torch.eye(16))
    >>> round(metric.compute().item(), 3)
    16.0
    """

    higher_is_better = True
    centred = False

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.rankme(self.singular_values()))


class EffectiveRank(Spectrum):
    """See `ranks.effective_rank`; of the features less their mean."""

    higher_is_better = True
    centred = True

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.effective_rank(self.singular_values()))


class ParticipationRatio(Spectrum):
    """See `ranks.participation_ratio`."""

    higher_is_better = True
    centred = True

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.participation_ratio(self.eigenvalues()))


class StableRank(Spectrum):
    """See `ranks.stable_rank`."""

    higher_is_better = True
    centred = False

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.stable_rank(self.singular_values()))


class NESum(Spectrum):
    """See `ranks.nesum`."""

    higher_is_better = True
    centred = True

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.nesum(self.eigenvalues()))


class AlphaReQ(Spectrum):
    """See `ranks.alpha_req`.

    Args:
        first, last: the range of the fit, counted from 1.
    """

    centred = True

    def __init__(self, num_features: Count, first: Count = 11, last: Count = 50, **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        self.first, self.last = first, last

    def compute(self) -> Float64[Tensor, ""]:
        return self._number(ranks.alpha_req(self.eigenvalues(), self.first, self.last))
