"""Which datasets of a list are there, to look at with one encoder."""

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.components import locate
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import NotThere, UserError
from ssl_lightning.files import safe_name
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.parts import evaluated


def each(
    listed: Mapping[str, Mapping[str, Any]],
    encoder: Encoder,
    evaluate: Callable[[ImageDataset], Path],
    named: Collection[str] = (),
) -> list[Path]:
    """Has each dataset that is there evaluated on, decoded to what the encoder is made for where it is decoded. Prints
    a line on each other one: it, or what is wrong with it, stops none of the others.

    Args:
        listed: settings of datasets, by their keys in `evaluation.datasets`.
        named: those of the keys that the command itself names.

    Raises:
        UserError: once all others are done: none can be evaluated on, or one that is there, or is named, cannot. What
            is not there, or is not for this encoder, is no error of a list that names whatever there may be.
    """
    wrong: list[str] = []

    def leave_out(key: str, error: UserError) -> None:
        reason = _reason(key, listed[key], error)
        rank_zero_only(print)(f"{key} is left out: {reason}", flush=True)
        if key in named or not isinstance(error, NotThere):
            wrong.append(key)

    there: dict[str, ImageDataset] = {}
    for key, settings in listed.items():
        try:
            there[key] = _prepared(settings, encoder, f"evaluation.datasets.{key}")
        except UserError as error:
            leave_out(key, error)
    files = []
    for key in list(there):
        try:
            files.append(evaluate(there.pop(key)))  # whose images are freed after it
        except UserError as error:
            leave_out(key, error)
    if not files:
        raise UserError("None of evaluation.datasets can be evaluated on; the lines above say what to do.")
    rank_zero_only(print)(f"{len(files)} of {len(listed)} datasets were evaluated on", flush=True)
    if wrong:
        raise UserError(
            f"{', '.join(wrong)} of evaluation.datasets {'was' if len(wrong) == 1 else 'were'} to be evaluated on, and "
            "could not be; the lines above say why. What was made of the others is kept."
        )
    return files


def _prepared(settings: Mapping[str, Any], encoder: Encoder, key: str) -> ImageDataset:
    safe_name(settings["name"], "dataset.name")
    dataset = evaluated(_fitted(settings, encoder), key)
    if dataset.channels not in (1, len(encoder.mean)):
        raise NotThere(f"its images have {dataset.channels} channels, and the encoder sees {len(encoder.mean)}.")
    dataset.prepare()
    return dataset


def _fitted(settings: Mapping[str, Any], encoder: Encoder) -> Mapping[str, Any]:
    """Settings of a dataset that decodes its images: at the side and with the channels that the encoder was trained
    on."""
    channels = len(encoder.mean)
    if channels not in (1, 3) or not getattr(locate(settings["_target_"]), "any_size", False):
        return settings
    size = {} if encoder.image_size is None else {"image_size": encoder.image_size}
    return normalised_for(encoder, {**settings, **size, "channels": channels})


def normalised_for(encoder: Encoder, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Settings of a dataset, with the mean and the standard deviation by which the encoder normalises images of as many
    channels: nobody has to give others, which nothing would read."""
    if settings.get("channels") != len(encoder.mean) or not {"mean", "std"} <= settings.keys():
        return settings
    return {**settings, "mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}


def _reason(key: str, settings: Mapping[str, Any], error: UserError) -> str:
    """Of an error, with the advice for a dataset alone made that for one of the list."""
    reason = " ".join(str(error).split()).removeprefix(f"{settings['name']}: ")
    return re.sub(r"(\bdataset=\w+ )?(?<![\w.])dataset\.(?=\w)", f"evaluation.datasets.{key}.", reason)
