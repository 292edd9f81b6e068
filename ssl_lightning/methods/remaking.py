"""A method, made again from its checkpoint alone."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ssl_lightning.config.check import check_component
from ssl_lightning.config.components import make, refuse_unknown
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line

M = TypeVar("M", bound=nn.Module)


def remade(file: Path, kind: type[M], map_location: Any = "cpu", trusted: Collection[str] = ()) -> M:
    """What the checkpoint says that its method is made of, with its weights. Executes nothing of the file: see
    `refuse_unknown`.

    Args:
        kind: which class it must be of.
        trusted: modules that it may name besides known ones.
    """
    name = kind.__name__
    try:
        content = torch.load(file, map_location=map_location, weights_only=True)
        weights, config = content["state_dict"], json.loads(json.dumps(content.get("method")))  # plain values alone
    except Exception as error:  # torch raises of many kinds
        raise UserError(f"{file} cannot be read as a checkpoint: {in_one_line(error)}.") from error
    if config is None:
        raise UserError(
            f"{file} does not say what its method is made of, as one that ssl-train makes now does. Give what {name} "
            f"was made with: {name}.load_from_checkpoint({str(file)!r}, backbone=...). For the encoder of a run, "
            "however old, load_encoder(<folder of the run>) is enough."
        )
    refuse_unknown(config, trusted, str(file))
    check_component(config, "torch.nn.Module", "method")
    method = make(config, trusted=trusted)
    if not isinstance(method, kind):
        made = type(method).__name__
        raise UserError(f"{file} is of {made}, and not of {name}: {made}.load_from_checkpoint({str(file)!r}).")
    method.load_state_dict(weights)
    return method
