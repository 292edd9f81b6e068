"""Encoders of linear layers, W = W_L ⋯ W_1, and their training by gradient descent in float64."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float64
from torch import Generator, Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.theory.contrast import second_moments, weights

Matrix = Float64[Tensor, "*b d d"]


def orthogonal(d: int, scale: float, generator: Generator) -> Float64[Tensor, "d d"]:
    """A random matrix all of whose singular values are `scale`."""
    return scale * torch.linalg.qr(gaussian(d, 1.0, generator)).Q


def gaussian(d: int, deviation: float, generator: Generator) -> Float64[Tensor, "d d"]:
    """Independent entries of this standard deviation."""
    return deviation * torch.randn(d, d, generator=generator, dtype=torch.float64)


def product(layers: Sequence[Matrix]) -> Matrix:
    """W_L ⋯ W_1, of layers in the order in which an image goes through them."""
    whole = layers[0]
    for layer in layers[1:]:
        whole = layer @ whole
    return whole


def views(
    variances: Float64[Tensor, " d"], noise: Float64[Tensor, "*b d"], n: int, generator: Generator
) -> tuple[Float64[Tensor, "*b n d"], Float64[Tensor, "*b n d"]]:
    """Two views of n new images N(0, diag(variances)), each with noise of its own.

    Args:
        noise: standard deviations; all strengths see the same images and the same noise but for its strength.
    """
    images, first, second = torch.randn(3, n, len(variances), generator=generator, dtype=torch.float64)
    images = images * variances.sqrt()
    return images + noise[..., None, :] * first, images + noise[..., None, :] * second


def gradients(layers: Sequence[Matrix], x: Float64[Tensor, "*b n d"], other: Float64[Tensor, "*b n d"]) -> list[Matrix]:
    """Of the loss by each layer: (W_L ⋯ W_{l+1})ᵀ G (W_{l−1} ⋯ W_1)ᵀ, where G = −W(Σ̂₀ − Σ̂₁) is that by the product."""
    whole = product(layers)
    between, within = second_moments(weights(x @ whole.mT, other @ whole.mT), x, other)
    by_whole = -whole @ (between - within)
    found = []
    for i in range(len(layers)):
        after = product(layers[i + 1 :]).mT @ by_whole if layers[i + 1 :] else by_whole
        found.append(after @ product(layers[:i]).mT if layers[:i] else after)
    return found


def descend(
    layers: Sequence[Matrix],
    variances: Float64[Tensor, " d"],
    noise: Float64[Tensor, "*b d"],
    *,
    batch_size: int,
    lr: float,
    steps: int,
    generator: Generator,
) -> Iterator[list[Matrix]]:
    """The layers before the first step, and after each: a batch of new images a step.

    Raises:
        UserError: they are no longer finite.
    """
    layers = list(layers)
    yield layers
    for step in range(1, steps + 1):
        slopes = gradients(layers, *views(variances, noise, batch_size, generator))
        layers = [layer - lr * slope for layer, slope in zip(layers, slopes, strict=True)]
        if not all(layer.isfinite().all() for layer in layers):
            several = f"{len(layers)} layer{'s' * (len(layers) > 1)}"
            raise UserError(f"training of {several} diverges at step {step}, with lr {lr:g}: lower lr.")
        yield layers
