"""Labels that are none of the dataset's: groups of its training images, for classifiers to learn."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from jaxtyping import Int64

from ssl_lightning.config.markers import Place
from ssl_lightning.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PseudoLabels:
    """Groups in a file of the cache.

    Args:
        name: of the file, without its end; it changes with all that the groups depend on.
        folder: where it lies.
    """

    name: str
    folder: Annotated[str, Place]

    @property
    def file(self) -> Path:
        return Path(self.folder) / f"{self.name}.npy"

    def levels(self, length: int) -> Int64[np.ndarray, "n l"]:
        """The group of each image of train, numbered from 0, then the groups that contain it.

        Args:
            length: n.
        """
        try:
            levels = np.array(np.lib.format.open_memmap(self.file, mode="r"))  # which reads no pickle
            if levels.ndim != 2 or len(levels) != length or levels.dtype != np.int64 or levels.min() < 0:
                raise ValueError(f"it holds {levels.dtype}{list(levels.shape)}")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"{self.file} holds no groups of {length:,} training images ({error}). Delete it: the command that "
                "ranks by them makes it again."
            ) from error
        return levels
