"""A limit to the time that a command trains."""

from datetime import timedelta
from typing import Any

from lightning.pytorch.callbacks import Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from ssl_lightning.errors import UserError


class TimeLimit(Timer):
    """Ends training after some time of this command: the same command goes on for as long again.

    Args:
        duration: `DD:HH:MM:SS`, or numbers of days, hours, minutes, seconds.

    Raises:
        UserError: it is none, or not above 0.
    """

    def __init__(self, duration: str | dict[str, float]) -> None:
        try:
            super().__init__(duration if isinstance(duration, str) else timedelta(**duration), verbose=False)
        except (MisconfigurationException, TypeError, ValueError, OverflowError) as error:
            raise UserError(
                f"trainer.max_time is {duration}, which is no duration. Write DD:HH:MM:SS, or {{hours: 2}}."
            ) from error
        if (self.time_remaining() or 0) <= 0:
            raise UserError(f"trainer.max_time is {duration}, in which nothing is trained. Give more, or null.")

    def state_dict(self) -> dict[str, Any]:
        """Nothing: a run that was resumed has its time again."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Nothing."""
