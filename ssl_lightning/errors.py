"""The one exception that commands turn into a single message."""


class UserError(Exception):
    """Something the user can mend. The message says what is wrong, where, and what to do."""
