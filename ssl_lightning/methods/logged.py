"""What a method logs, and where it goes."""

import numbers
from typing import Any

import torch
from torch import Tensor

from ssl_lightning.errors import UserError
from ssl_lightning.methods.remaking import Remakable

COLUMNS = ("step", "epoch", "lr", "loss")
"""Of metrics.csv, in every run."""


class Logged(Remakable):
    """A module whose `self.log` feeds the rows of metrics.csv, where a `Recorder` writes them."""

    recorded: bool = False
    """Whether a `Recorder` logs this training. A plain `L.Trainer` has none, and logs as Lightning does."""

    def __init__(self) -> None:
        super().__init__()
        self.logged: dict[str, Tensor] = {}
        """What was logged since the last batch, by name."""
        self.in_bar: set[str] = {"loss", "online/val_top1"}
        """Names of what a progress bar shows."""

    def log(self, name: str, value: Any, prog_bar: bool = False, *args: Any, **kwargs: Any) -> None:
        """Lightning's, for callbacks that watch a number. To loggers goes its mean over the batches between two rows
        of metrics.csv, as a column, whatever `on_step`, `on_epoch` and `reduce_fx` say; a progress bar shows that
        mean too. What is logged outside of a step counts with the next batch. A plain `L.Trainer` logs as ever.

        Raises:
            UserError: it is not one number, or the name is that of a column which every run has.
        """
        if not self.recorded:
            super().log(name, value, prog_bar, *args, **kwargs)
            return
        if name in COLUMNS:
            raise UserError(
                f"self.log({name!r}, ...): {name} is a column that every run has. Log it by another name, such as "
                f"my/{name}."
            )
        if not isinstance(value, Tensor | numbers.Real) or (isinstance(value, Tensor) and value.numel() != 1):
            what = f"tensor of {value.numel()}" if isinstance(value, Tensor) else type(value).__name__
            raise UserError(
                f"self.log({name!r}, ...) was given a {what}. Log one number, or a tensor of one: of a metric object, "
                f"its value, self.log({name!r}, metric(x, y))."
            )
        number = value.detach().reshape(()).float() if isinstance(value, Tensor) else torch.full((), float(value))
        number = number.to(self.device, non_blocking=True)
        kwargs.pop("logger", None)
        if kwargs.get("batch_size") is None:
            kwargs["batch_size"] = 1  # batches are of one size, which Lightning would guess
        super().log(name, number, False, False, *args[1:], **kwargs)
        self.logged[name] = number
        if prog_bar:
            self.in_bar.add(name)
