"""What the views of images tell of an encoder without labels, as torchmetrics: sums over batches and processes."""

from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import normalize
from torchmetrics import Metric

from ssl_lightning.metrics.moments import Moments
from ssl_lightning.metrics.ranks import rankme
from ssl_lightning.ranges import Count, Positive


class Alignment(Metric):
    """Mean of ‖ẑ_v − ẑ_w‖^α over pairs of views of an image (Wang & Isola 2020, arXiv 2005.10242): 0 is best.

    Args:
        power: α.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = Alignment()
    >>> metric.update(torch.tensor([[[1.0, 0.0]], [[0.0, 3.0]]]))
    >>> metric.compute()
    tensor(2., dtype=torch.float64)
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    total: Tensor
    count: Tensor

    def __init__(self, power: Positive = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, embeddings: Float[Tensor, "v n e"]) -> None:
        """Adds images of at least two views; embeddings are normalised here."""
        distances = _squared_distances(_unit(embeddings).transpose(0, 1))  # [n, v, v]
        v, n = embeddings.shape[:2]
        powers = distances.pow(self.power / 2)
        self.total += powers.sum() - powers.diagonal(dim1=1, dim2=2).sum()
        self.count += n * v * (v - 1)

    def compute(self) -> Float64[Tensor, ""]:
        return self.total / self.count


class Uniformity(Metric):
    """log of the mean of e^(−t‖ẑ_i − ẑ_j‖²) over pairs of different images (Wang & Isola 2020, arXiv 2005.10242): the
    lower, the more evenly embeddings lie on the sphere; 0 for a point.

    Pairs are those within an update, and within each of its views: larger batches have more of them, but the mean is
    of the same quantity.

    Args:
        t: as above.
        kwargs: of `torchmetrics.Metric`.

    >>> metric = Uniformity()
    >>> metric.update(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    >>> round(metric.compute().item(), 6)
    -8.0
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False

    total: Tensor
    count: Tensor

    def __init__(self, t: Positive = 2.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.t = t
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, embeddings: Float[Tensor, "v n e"]) -> None:
        """Adds at least two images; embeddings are normalised here."""
        v, n = embeddings.shape[:2]
        for view in _unit(embeddings):
            kernel = _squared_distances(view).mul_(-self.t).exp_()
            self.total += kernel.sum() - kernel.diagonal().sum()
        self.count += v * n * (n - 1)

    def compute(self) -> Float64[Tensor, ""]:
        return (self.total / self.count).log()


class LiDAR(Metric):
    """Linear discriminant analysis rank (Thilak et al. 2024, arXiv 2312.04000): the `rankme` of the spectrum of
    Σ_w^−½ Σ_b Σ_w^−½, where images are classes and views their samples: from 0 to d, the more the better.

    Σ_b = Σ_i (μ_i − μ)(μ_i − μ)ᵀ / n over the means of images, Σ_w = Σ_iv (z_iv − μ_i)(z_iv − μ_i)ᵀ / (n v) + δI.
    Directions in which views of an image differ as much as images do count little. Views of one size are wanted; their
    number is the same in every update.

    Args:
        num_features: d.
        delta: δ, on the scale of the features' variance.
        kwargs: of `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = True

    count: Tensor
    total: Tensor
    gram: Tensor
    within: Tensor
    samples: Tensor

    def __init__(self, num_features: Count, delta: Positive = 1e-4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.delta = delta
        for name, state in zip(("count", "total", "gram"), Moments(num_features).states(), strict=True):
            self.add_state(name, state, dist_reduce_fx="sum")
        self.add_state("within", torch.zeros_like(self.gram), dist_reduce_fx="sum")
        self.add_state("samples", torch.zeros_like(self.count), dist_reduce_fx="sum")

    def update(self, embeddings: Float[Tensor, "v n e"]) -> None:
        """Adds images of at least two views."""
        z = embeddings.detach().double()
        means = z.mean(0)
        of_means = Moments(len(self.total), self.total.device)
        of_means.update(means)
        self.count += of_means.count
        self.total += of_means.total
        self.gram += of_means.gram
        residuals = (z - means).flatten(0, 1)
        self.within += residuals.T @ residuals
        self.samples += len(residuals)

    def compute(self) -> Float64[Tensor, ""]:
        between = Moments.of(self.count, self.total, self.gram).covariance()
        identity = torch.eye(len(self.total), dtype=torch.float64, device=self.total.device)
        values, axes = torch.linalg.eigh(self.within / self.samples + self.delta * identity)
        whitening = axes * values.rsqrt()
        spectrum = torch.linalg.eigvalsh(whitening.T @ between @ whitening).clamp(min=0)
        return torch.tensor(rankme(spectrum), dtype=torch.float64, device=self.total.device)


def _unit(z: Float[Tensor, "*batch e"]) -> Float64[Tensor, "*batch e"]:
    return normalize(z.detach().double(), dim=-1)


def _squared_distances(z: Float64[Tensor, "*batch n e"]) -> Float64[Tensor, "*batch n n"]:
    """Of unit vectors."""
    return (2 - 2 * z @ z.mT).clamp_(min=0)
