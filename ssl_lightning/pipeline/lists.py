"""Lists, and rankings of others, that are compared with those that are made."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.reports.selections import Chosen
from ssl_lightning.subsets.file import File


@dataclass(frozen=True, kw_only=True)
class _Listed(File):
    key: ClassVar[str] = "lists"


def read_lists(paths: Sequence[str], dataset: ImageDataset) -> list[Chosen]:
    """Each is called by the last part of its path, or by all of it where others end alike.

    Raises:
        UserError: one is not there, is none, or is of other images.
    """
    last = [Path(path).name for path in paths]
    names = {path: name if last.count(name) == 1 else path for path, name in zip(paths, last, strict=True)}
    return [Chosen(name, _Listed(path=path).rank(dataset)) for path, name in names.items()]
