"""Which datasets of a list are there, to look at with one encoder."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.components import locate, make
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.files import safe_name
from ssl_lightning.models.encoder import Encoder


def there(listed: Mapping[str, Mapping[str, Any]], encoder: Encoder) -> list[ImageDataset]:
    """Those that can be opened, decoded to what the encoder is made for where that is free to choose. Prints a line on
    each other one.

    Raises:
        UserError: there is none.
    """
    found, missing = [], []
    for settings in listed.values():
        dataset: ImageDataset = make(_fitted(settings, encoder))
        safe_name(dataset.name, "dataset.name")
        if dataset.channels not in (1, len(encoder.mean)):
            missing.append(
                f"{dataset.name} is left out: it has {dataset.channels} channels, and the encoder sees "
                f"{len(encoder.mean)}."
            )
            continue
        try:
            dataset.prepare()
            found.append(dataset)
        except UserError as error:
            missing.append(f"{dataset.name} is left out: {error}")
    for line in missing:
        rank_zero_only(print)(line, flush=True)
    if not found:
        raise UserError("None of the datasets in evaluation.datasets is there; the lines above say what to do.")
    return found


def _fitted(settings: Mapping[str, Any], encoder: Encoder) -> Mapping[str, Any]:
    """Settings of a dataset that decodes its images: at the side and with the channels that the encoder was trained
    on."""
    if not getattr(locate(settings["_target_"]), "any_size", False):
        return settings
    values = {"mean": encoder.mean.flatten().tolist(), "std": encoder.std.flatten().tolist()}
    size = {} if encoder.image_size is None else {"image_size": encoder.image_size}
    return {**settings, **size, **values, "channels": len(encoder.mean)}
