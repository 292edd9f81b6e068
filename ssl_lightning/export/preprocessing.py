"""What is done with an image before the exported network sees it."""

from collections.abc import Mapping
from typing import Any

from ssl_lightning.models.encoder import Encoder

FILE = "preprocessing.json"
MADE_BY = "ssl-export"


def preprocessing(encoder: Encoder, dataset: Mapping[str, Any], normalises: bool) -> dict[str, Any]:
    """Steps in their order, as the run's own evaluation reads images.

    Args:
        dataset: its node in the config of the run.
        normalises: whether the exported network does that itself.
    """
    steps: list[dict[str, Any]] = [
        {"convert": "grey" if len(encoder.mean) == 1 else "RGB" if len(encoder.mean) == 3 else "as stored"},
        {"central_square": dataset.get("square", 1.0)},
        {"resize": encoder.image_size, "interpolation": "bilinear", "antialias": True},
        {"scale": 1 / 255},
    ]
    normalise = {"mean": list(dataset["mean"]), "std": list(dataset["std"])}
    return {
        "made_by": MADE_BY,
        "image_size": encoder.image_size,
        "channels": len(encoder.mean),
        **normalise,
        "network_normalises": normalises,
        "steps": steps if normalises else [*steps, {"normalise": normalise}],
        "num_features": encoder.num_features,
    }
