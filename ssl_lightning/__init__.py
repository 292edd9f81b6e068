"""Which self-supervised method, on which part of the data, gives which representation, at what cost?"""

import importlib
from typing import Any

_PUBLIC = {
    "load_encoder": "runs.loading",
    "SubsetDataModule": "data.datamodule",
    "Augment": "data.views",
    "View": "data.view",
    "SSLMethod": "methods.method",
    "Objective": "methods.method",
    "SimCLR": "methods.simclr",
    "DirectCLR": "methods.directclr",
    "GeSSL": "methods.gessl",
    "Supervised": "methods.supervised",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    """Late: importing the package imports neither torch nor lightning."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"ssl_lightning.{_PUBLIC[name]}"), name)
    if name == "__version__":
        from importlib.metadata import version

        return version("ssl-lightning")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
