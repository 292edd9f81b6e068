"""Which training images are held out for tuning."""

import numpy as np
from jaxtyping import Bool, Int64

VALIDATION_SEED = 0


def held_out_part(labels: Int64[np.ndarray, " n"], fraction: float) -> Bool[np.ndarray, " n"]:
    """Always the same positions, the same share of each class: at least one image of each class that has two, and never
    a whole class; only images that have a label, which is −1 where there is none."""
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(VALIDATION_SEED)))
    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        positions = generator.permutation(np.flatnonzero(labels == label))
        size = max(1, round(fraction * len(positions)))
        held_out[positions[: min(size, len(positions) - 1)]] = True
    return held_out
