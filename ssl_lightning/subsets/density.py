"""A quota by how dense groups lie (density-based pruning, arXiv 2401.04578)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from annotated_types import Gt
from jaxtyping import Float64

from ssl_lightning.subsets.latent import unit_vectors
from ssl_lightning.subsets.quota import Offer, Quota, Ranked

ROWS = 1024
"""Centroids whose similarities to all others are held at once."""


@dataclass(frozen=True, kw_only=True)
class Density(Quota):
    """More of groups that are wide and lie far from others: w_k = softmax(d_inter · d_intra / τ), in cosine distances.

    d_intra is the mean distance of a group's images to its centroid, d_inter that of the centroid to the nearest other
    ones. What a group lacks is given by the others in proportion to their weights, where the paper solves a quadratic
    program.

    Args:
        temperature: τ.
        neighbours: l, how many of the nearest centroids.
    """

    temperature: Annotated[float, Gt(0)] = 0.1
    neighbours: Annotated[int, Gt(0)] = 20

    name: ClassVar[str] = "density"
    needs: ClassVar[Offer | None] = "features"

    def keys(self, ranked: Ranked) -> Float64[np.ndarray, " m"]:
        members = ranked.members()
        complexity = self.complexity(ranked, members)
        keys = np.log(ranked.rank + 0.5)  # as (j + ½)/w_k, whose logarithms they are; but these stay finite
        for group, value in zip(members, complexity, strict=True):
            keys[group] -= value / self.temperature
        return keys

    def complexity(self, ranked: Ranked, members: list[np.ndarray]) -> Float64[np.ndarray, " g"]:
        """d_inter · d_intra of each group, in [0, 2]; 0 where there is one group. To six decimals, as far as single
        precision goes: groups of one image, or of copies, are equals.

        Args:
            members: of each group, where in the images they are.
        """
        assert ranked.features is not None
        means = np.stack(
            [unit_vectors(ranked.features[ranked.images[group]]).mean(0, dtype=np.float64) for group in members]
        )
        lengths = np.linalg.norm(means, axis=1)
        intra = 1 - lengths  # the mean of 1 - <unit vector, centroid / length>
        centroids = means / np.maximum(lengths, 1e-12)[:, None]
        near, inter = min(self.neighbours, len(means) - 1), np.zeros(len(means))
        for start in range(0, len(means) if near else 0, ROWS):
            distances = 1 - centroids[start : start + ROWS] @ centroids.T
            distances[np.arange(len(distances)), np.arange(start, start + len(distances))] = np.inf
            inter[start : start + ROWS] = np.partition(distances, near - 1, axis=1)[:, :near].mean(1)
        return np.round(inter * intra, 6) + 0.0
