"""Weights that a training starts from: `init`."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.runs.loading import EXPORTED, read_tensors
from ssl_lightning.runs.run import CHECKPOINTS, Run

if TYPE_CHECKING:
    from torch import Tensor

    from ssl_lightning.methods.method import SSLMethod

BACKBONE = re.compile(r"(base\.)*backbone\.")
"""What names of a method's checkpoint begin with that are those of its backbone."""


def backbone_weights(source: str | Path) -> dict[str, "Tensor"]:
    """Of a run or of what ssl-export has written (a folder), of a checkpoint, also a plain trainer's, or of a file of
    weights alone, by torch.save or of safetensors. Nothing of it is executed, and a run's config is not read.

    Raises:
        UserError: it is not there, or damaged, or no such thing.
    """
    from torch import Tensor, strided

    path = Path(source).expanduser()
    if not str(source) or not path.exists():
        raise UserError(
            f"init={source}: there is no such file or folder. Check the path. Of a run that has started from it, it is "
            "a part of the name; ssl-evaluate, ssl-export and ssl-report do without."
        )
    state = _read(path, str(source))
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) and value.layout is strided for name, value in state.items()
    ):
        raise UserError(f"init={source} holds more than named weights. Give a run's folder, or a file of weights.")
    if broken := [name for name, value in state.items() if value.is_floating_point() and not value.isfinite().all()]:
        raise UserError(f"init={source} holds weights that are not finite, such as {broken[0]}. Give others.")
    named = {name[found.end() :]: value for name, value in state.items() if (found := BACKBONE.match(name))}
    return named or state


def _read(path: Path, source: str) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if path.is_dir():
        places = Run(path).checkpoint, path / EXPORTED
        found = [place for place in places if place.exists()]
        if not found:
            raise UserError(
                f"init={source}: {path} has neither {CHECKPOINTS}/last.ckpt, as a run that has trained, nor "
                f"{EXPORTED}, as what ssl-export writes. Give the folder of one of these, or a file of weights."
            )
        path = found[0]
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = read_tensors(path)
        return content.get("state_dict", content) if isinstance(content, dict) else content
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"init={source} cannot be read: {in_one_line(error)}. Copy it again, or give another file of weights."
        ) from error
    except UserError as error:
        reason = str(error).partition(". Copy it again")[0]
        raise UserError(f"init={source}: {reason}. Give a run's folder, or a file of weights.") from error


def initial_content(config: Mapping[str, Any]) -> dict[str, str]:
    """A digest of the weights that a run starts from; none where these are random."""
    if config.get("init") is None:
        return {}
    import torch

    digest = hashlib.sha256()
    for name, value in sorted(backbone_weights(config["init"]).items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().view(-1).view(torch.uint8).numpy().data)
    return {"init": digest.hexdigest()[:16]}


def start_from(method: "SSLMethod", source: str) -> None:
    """Gives a method's backbone, and what follows it, the weights of another's.

    Raises:
        UserError: they are those of another network.
    """
    weights = backbone_weights(source)
    try:
        method.start_from(weights)
    except RuntimeError as error:
        raise UserError(
            f"init={source} holds the weights of another network, or under other names: {in_one_line(error)}. Choose "
            "the backbone that they were trained with (backbone=..., and dataset.stem and channels as there)."
        ) from error
