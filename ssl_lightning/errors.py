"""The one exception that commands turn into a single message."""

import sys


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""


def user_error_in(error: BaseException | None) -> UserError | None:
    """The UserError behind an error, where Hydra or Lightning wrapped it."""
    while error is not None and not isinstance(error, UserError):
        error = error.__cause__
    return error


def warn(name: str, error: Exception) -> None:
    print(f"Warning: {name} has failed, but the run has not: {error!r}", file=sys.stderr, flush=True)
