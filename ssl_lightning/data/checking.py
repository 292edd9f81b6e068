"""Whether a dataset gives what its settings say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from ssl_lightning.errors import UserError


def check_arrays(found: Any, split: str, place: str) -> tuple[UInt8[np.ndarray, "n c h w"], Integer[np.ndarray, " n"]]:
    """What a dataset's `read`, which may be a user's own and return anything, has returned.

    Args:
        place: of `read`, for the message.

    Raises:
        UserError: it is no images and labels.
    """
    images, labels = found
    wanted = (images, 4, np.uint8), (labels, 1, np.integer)
    right = all(isinstance(a, np.ndarray) and a.ndim == n and np.issubdtype(a.dtype, kind) for a, n, kind in wanted)
    if right and len(images) == len(labels):
        return images, labels
    given = " and ".join(f"{getattr(a, 'dtype', type(a).__name__)} {list(np.shape(a))}" for a in (images, labels))
    raise UserError(
        f"{place} returned {given} for {split}. Return two NumPy arrays, images as uint8 [n, c, h, w] and labels as "
        "integers [n]."
    )


def check_settings(name: str, said: Mapping[str, int | None], found: Mapping[str, int]) -> None:
    """
    Raises:
        UserError: the images of a dataset of this name have other values than its settings say.
    """
    for key, value in found.items():
        if said[key] != value:
            raise UserError(
                f"dataset.{key} is {said[key]}, but the images of {name} have {value}: set dataset.{key}={value}."
            )


def check_labels(name: str, split: str, labels: Integer[np.ndarray, " n"], num_classes: int) -> None:
    """
    Raises:
        UserError: a split of a dataset of this name is empty, or has labels of other classes.
    """
    if len(labels) == 0:
        raise UserError(f"{name} has no image in its {split} split. Replace its files.")
    if labels.min() < (-1 if split == "train" else 0) or labels.max() >= num_classes:
        raise UserError(
            f"{name}: labels of {split} run from {labels.min()} to {labels.max()}, which is no "
            f"dataset.num_classes={num_classes}. Replace its files."
        )


def check_labelled(labels: Integer[np.ndarray, " n"], purpose: str, name: str, advice: str) -> None:
    """
    Raises:
        UserError: a training image of the dataset of this name has no label, and what it is needed for.
    """
    if missing := int((labels < 0).sum()):
        raise UserError(
            f"{purpose} needs the labels of all images, but {missing:,} of the {len(labels):,} training images of "
            f"{name} have none. {advice}"
        )
