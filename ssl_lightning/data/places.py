"""Where data lie unless something else is said."""

import os


def data_folder() -> str:
    """Of downloaded datasets."""
    return os.environ.get("SSL_DATA") or "data"


def cache_folder() -> str:
    """Of decoded images."""
    return os.environ.get("SSL_CACHE") or "cache"
