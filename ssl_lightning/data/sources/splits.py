"""Splits of data that somebody else has made: a test split where there is none, and what there is, in a line."""

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Int64

from ssl_lightning.data.sources.walk import TESTS

PARTS = {"train": "train", "test": "test"} | dict.fromkeys(TESTS[1:], "val")
"""The split that a word means."""


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


def found_line(found: str, labels: Mapping[str, Int64[np.ndarray, " n"]], num_classes: int) -> str:
    """What was found, with the numbers of images and classes."""
    train = labels["train"]
    labelled = int((train >= 0).sum())
    counts = [f"{len(train):,} images for training"]
    if not labelled:
        counts[0] += ", without labels"
    else:
        if labelled < len(train):
            counts[0] += f", {labelled:,} of them labelled,"
        counts[0] += f" in {num_classes:,} class{'es' * (num_classes != 1)}"
    counts += [f"{len(labels[part]):,} for {part}" for part in ("val", "test") if part in labels]
    return f"{found}: {', '.join(counts)}."
