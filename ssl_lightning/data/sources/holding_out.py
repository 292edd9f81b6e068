"""A test split of data that come without one."""

import hashlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int64


def held_out(
    labels: Int64[np.ndarray, " n"], names: Sequence[bytes], share: float, seed: int
) -> Bool[np.ndarray, " n"]:
    """Which images are held out: the same share of each class, at least one of a class that has two, and never a whole
    class; none that has no label (−1).

    An image comes in by a hash of the seed and its name, so that further images move few of the others.
    """
    chosen = np.zeros(len(labels), bool)
    drawn = [hashlib.sha256(b"%d/%b" % (seed, name)).digest() for name in names]
    for label in np.unique(labels[labels >= 0]):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=drawn.__getitem__)
        chosen[members[: min(max(1, round(share * len(members))), len(members) - 1)]] = True
    return chosen
