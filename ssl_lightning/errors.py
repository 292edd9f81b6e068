"""The one exception that commands turn into a single message."""

import sys

from ssl_lightning.explaining import explained


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""


class NotThere(UserError):
    """Data that nobody has put where they are looked for, and that are not to be fetched."""


def user_error_in(error: BaseException | None) -> UserError | None:
    """The UserError behind an error, where Hydra or Lightning wrapped it."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def warn(name: str, error: Exception) -> None:
    line = str(user_error_in(error) or explained(error).partition("\n")[0])
    print(f"Warning: {name} has failed, but the run has not: {line}", file=sys.stderr, flush=True)
