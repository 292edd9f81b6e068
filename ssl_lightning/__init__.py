"""Which self-supervised method, on which part of the data, gives which representation, at what cost?"""

from typing import Any

__all__ = ["load_encoder"]


def __getattr__(name: str) -> Any:
    if name == "load_encoder":  # late: importing the package imports neither torch nor lightning
        from ssl_lightning.runs.loading import load_encoder

        return load_encoder
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
