"""Alternating flips: each image is seen both ways within two epochs (arXiv 2404.00498)."""

import torch
from jaxtyping import Bool
from torch import Tensor

from ssl_lightning.data.sampler import BatchSampler, seed_of


class Alternation:
    """Which images a view mirrors: a random half of all in the first epoch, the others in the second, and so on.

    A pure function of (seed, batch number), as all of a batch is.

    Args:
        num_views: each has a half of its own.
        num_images: of the full dataset.
        sampler: tells which images a batch holds; on the host.
        seed: of the halves.
    """

    def __init__(self, num_views: int, num_images: int, sampler: BatchSampler, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed_of("alternating flips", seed))
        self._first = torch.rand(num_views, num_images, generator=generator) < 0.5
        self._sampler = sampler

    def __call__(self, number: int) -> Bool[Tensor, "v n"]:
        """Of the batch of this number, from 0."""
        second = self._sampler.place(number)[0] % 2 == 1
        return self._first[:, self._sampler.batch(number)] ^ second
