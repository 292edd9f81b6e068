"""A method, made again from its checkpoint alone."""

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import lightning as L
import torch

from ssl_lightning.config.check import check_component
from ssl_lightning.config.components import make, refuse_unknown
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line

M = TypeVar("M", bound="Remakable")


class Remakable(L.LightningModule):
    """Its checkpoints say what it is made of, where that is known."""

    made_of: Mapping[str, Any] | None = None
    """The config that this was made of."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.made_of is not None:
            checkpoint["method"] = self.made_of

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # of a class only, which Lightning's decorator says too
        cls: type[M],
        checkpoint_path: str | Path,
        map_location: Any = "cpu",
        hparams_file: str | None = None,
        strict: bool | None = None,
        weights_only: bool = True,
        *,
        trusted: Collection[str] = (),
        **arguments: Any,
    ) -> M:
        """A method with the weights of a checkpoint, in which nothing is executed.

        Args:
            checkpoint_path: of `ssl-train`, which says what its method is made of; or of a plain `L.Trainer`.
            trusted: modules of yours that it may name, such as `my_package`.
            arguments: of the constructor, for a checkpoint that does not say: `backbone=resnet18()`.

        Raises:
            UserError: it says nothing and no arguments are given, or it is of another method.
        """
        if not arguments and hparams_file is None:
            return _remade(Path(checkpoint_path), cls, map_location, strict is not False, trusted)
        load: Callable[..., M] = super().load_from_checkpoint
        return load(checkpoint_path, map_location, hparams_file, strict=strict, weights_only=weights_only, **arguments)


def _remade(file: Path, kind: type[M], map_location: Any, strict: bool, trusted: Collection[str]) -> M:
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
    try:
        method.load_state_dict(weights, strict)
    except (RuntimeError, TypeError) as error:
        raise UserError(f"{file} holds other weights than it says: {in_one_line(error)}.") from error
    return method
