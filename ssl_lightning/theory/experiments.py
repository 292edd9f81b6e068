"""The two mechanisms of dimensional collapse as experiments of about a second each, a function of their seed.

Source: DirectCLR's paper (Jing et al., arXiv 2110.09348), sections 4 and 5: strong augmentation shrinks the directions
that it disturbs, and layers alone, without any augmentation to speak of, leave most directions behind. Layers are 16×16
there and here; images, scales and rates are settings.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.metrics.ranks import effective_rank
from ssl_lightning.ranges import Count, NonNegative, Positive, SeedNumber
from ssl_lightning.theory.linear import Matrix, descend, gaussian, orthogonal, product

ALIVE = 0.05
"""A direction lives where its singular value is at least this share of the largest."""
MOMENTS = 100
"""At most so many points of a curve over training."""


class Augmented(NamedTuple):
    """Singular values [s d] of a layer for each of s noise strengths, and [s] σ_k / σ_{k+1}, between the last direction
    without noise and the first with it."""

    noise: list[float]
    singular_values: Float64[Tensor, "s d"]
    gap: Float64[Tensor, " s"]


class Spectra(NamedTuple):
    """Singular values [m d] of the whole encoder for each of m depths, their effective rank, and how many live."""

    layers: list[int]
    singular_values: Float64[Tensor, "m d"]
    effective_rank: list[float]
    alive: list[int]


class Aligned(NamedTuple):
    """Of two layers: the diagonal [t d] of |V₂ᵀU₁| after each of these steps [t]. At the end: all of it [d d], and of
    the whole encoder the singular values [d], and how many live."""

    steps: list[int]
    diagonal: Float64[Tensor, "t d"]
    matrix: Float64[Tensor, "d d"]
    singular_values: Float64[Tensor, " d"]
    alive: int


@dataclass(frozen=True, kw_only=True)
class Training:
    """What the experiments share.

    Args:
        dimensions: of images and of all layers.
        batch_size: new images at each step.
        lr: of plain gradient descent on the mean loss.
        steps: of gradient descent.
    """

    dimensions: Count = 16
    batch_size: Count = 64
    lr: Positive = 0.02
    steps: Count = 1000

    def _descend(
        self,
        layers: Sequence[Matrix],
        variances: Float64[Tensor, " d"],
        noise: Float64[Tensor, "*b d"],
        generator: Generator,
    ) -> Iterator[list[Matrix]]:
        batch_size, lr, steps = self.batch_size, self.lr, self.steps
        return descend(layers, variances, noise, batch_size=batch_size, lr=lr, steps=steps, generator=generator)

    def _indices(self) -> Float64[Tensor, " d"]:
        return torch.arange(self.dimensions, dtype=torch.float64)


@dataclass(frozen=True, kw_only=True)
class StrongAugmentation(Training):
    """One layer, images N(0, I), and noise on the last dimensions: what is disturbed more than images differ shrinks.

    Args:
        noise: standard deviations, an encoder each; all see the same images.
        noisy: how many dimensions have it, fewer than `dimensions`.
        scale: all singular values at the start, of a random orthogonal matrix.
    """

    noise: Sequence[NonNegative] = (0.01, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0)
    noisy: Count = 8
    scale: Positive = 0.4
    lr: Positive = 0.05

    def run(self, seed: SeedNumber) -> Augmented:
        """
        Raises:
            UserError: all dimensions have noise, no strength is given, or training diverges.
        """
        clean = self.dimensions - self.noisy
        if clean < 1:
            raise UserError(
                f"noisy is {self.noisy}, but there are {self.dimensions} dimensions: leave one without noise."
            )
        if not self.noise:
            raise UserError("noise has no strengths: give one or more, such as [0.01,1.0,2.0].")
        generator = torch.Generator().manual_seed(seed)
        strengths = torch.tensor(list(self.noise), dtype=torch.float64)
        noise = strengths[:, None] * (self._indices() >= clean)
        start = orthogonal(self.dimensions, self.scale, generator).expand(len(strengths), -1, -1)
        ones = torch.ones(self.dimensions, dtype=torch.float64)
        (layer,) = _last(self._descend([start], ones, noise, generator))
        values = torch.linalg.svdvals(layer)
        return Augmented(list(self.noise), values, values[:, clean - 1] / values[:, clean])


@dataclass(frozen=True, kw_only=True)
class Depth(Training):
    """Encoders of one and more layers, images of a spectrum that decays, and next to no augmentation: the more layers,
    the fewer directions grow.

    Args:
        layers: of an encoder each, which all see the same images.
        alike: what is the same for all at the start: the singular values of the whole encoder (`product`), so that only
            the number of layers differs, or those of each layer (`layer`).
        start: these singular values; layers are random orthogonal matrices.
        decay: the variances of images are e^{−decay·k}, k = 0, 1, ...
        noise: standard deviation of a view, in all dimensions.
    """

    layers: Sequence[Count] = (1, 2, 3, 4)
    alike: Literal["product", "layer"] = "product"
    start: Positive = 0.22
    decay: NonNegative = 0.35
    noise: NonNegative = 1e-3

    def run(self, seed: SeedNumber) -> Spectra:
        """
        Raises:
            UserError: no depth is given, or training diverges.
        """
        if not self.layers:
            raise UserError("layers has no depths: give one or more, such as [1,2,3,4].")
        variances = torch.exp(-self.decay * self._indices())
        values = torch.stack([self._values(depth, variances, seed) for depth in self.layers])
        return Spectra(list(self.layers), values, list(map(effective_rank, values)), list(map(_alive, values)))

    def _values(self, depth: int, variances: Float64[Tensor, " d"], seed: int) -> Float64[Tensor, " d"]:
        scale = self.start if self.alike == "layer" else self.start ** (1 / depth)
        start, images = (torch.Generator().manual_seed(seed) for _ in range(2))
        layers = [orthogonal(self.dimensions, scale, start) for _ in range(depth)]
        noise = torch.full_like(variances, self.noise)
        return torch.linalg.svdvals(product(_last(self._descend(layers, variances, noise, images))))


@dataclass(frozen=True, kw_only=True)
class Alignment(Training):
    """Two layers, images as for `Depth`: the left singular vectors U₁ of the first turn to the right ones V₂ of the
    second, as far as a direction grows.

    Args:
        deviation: of the entries of both layers at the start, independent and normal.
        decay, noise: as of `Depth`.
    """

    deviation: Positive = 0.1
    decay: NonNegative = 0.35
    noise: NonNegative = 1e-3

    def run(self, seed: SeedNumber) -> Aligned:
        """
        Raises:
            UserError: training diverges.
        """
        generator = torch.Generator().manual_seed(seed)
        variances = torch.exp(-self.decay * self._indices())
        start = [gaussian(self.dimensions, self.deviation, generator) for _ in range(2)]
        every = math.ceil(self.steps / MOMENTS)
        noise = torch.full_like(variances, self.noise)
        steps, kept = [], []
        for step, layers in enumerate(self._descend(start, variances, noise, generator)):
            if step % every == 0 or step == self.steps:
                steps.append(step)
                kept.append(alignment(*layers))
        values = torch.linalg.svdvals(product(layers))
        return Aligned(steps, torch.stack(kept).diagonal(dim1=-2, dim2=-1), kept[-1], values, _alive(values))


def alignment(first: Matrix, second: Matrix) -> Matrix:
    """|V₂ᵀU₁|, of W₁ = U₁S₁V₁ᵀ and W₂ = U₂S₂V₂ᵀ, singular values descending: the identity where layers are aligned.
    Signs of singular vectors are nobody's choice, and left out.

    >>> spread = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    >>> torch.allclose(alignment(spread, spread), torch.eye(3, dtype=torch.float64))
    True
    """
    return (torch.linalg.svd(second).Vh @ torch.linalg.svd(first).U).abs()


def _alive(values: Float64[Tensor, " d"]) -> int:
    return int(((values >= ALIVE * values[0]) & (values > 0)).sum())


def _last(steps: Iterator[list[Matrix]]) -> list[Matrix]:
    for layers in steps:
        last = layers
    return last
