"""Datasets that come as an archive."""

import os
import shutil
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.places import data_folder
from ssl_lightning.errors import NotThere, UserError
from ssl_lightning.files import locked, writing


@dataclass(kw_only=True)
class ArchivedDataset(ImageDataset):
    """Files in a folder below `root`, or in the archive beside that folder, which torchvision's dataset knows."""

    root: Annotated[str, Place] = field(default_factory=data_folder)

    source: ClassVar[str]
    folder: ClassVar[str]
    archive: ClassVar[str]
    files: ClassVar[dict[str, list[str]]]

    @property
    def _folder(self) -> Path:
        return Path(self.root).absolute() / self.folder

    def _missing(self) -> list[str]:
        return [name for names in self.files.values() for name in names if not (self._folder / name).exists()]

    def prepare(self) -> None:
        archive = self._folder.parent / self.archive
        if not (missing := self._missing()):
            return
        if not archive.exists() and not self.download:
            raise NotThere(
                f"{self.name}: no {missing[0]} in {self._folder}, and no {archive.name} beside that folder. "
                f"Add dataset.download=true to the command, or put {archive.name} into {archive.parent}."
            )
        with locked(archive):
            if not (missing := self._missing()):  # another process was faster
                return
            if not archive.exists():
                import torchvision.datasets  # late: it takes seconds

                source = getattr(torchvision.datasets, self.source)
                fetch(source.url, archive, source.tgz_md5)
            extract(archive, self._folder, missing)


def fetch(url: str, path: Path, md5: str) -> None:
    """Download `url` to `path`, which appears only when its checksum is right."""
    from torchvision.datasets.utils import download_url  # late: it takes seconds

    part = path.with_name(f"{path.name}.part")
    try:
        download_url(url, str(path.parent), part.name, md5)
        os.replace(part, path)
    except (OSError, RuntimeError) as error:  # RuntimeError: wrong checksum
        raise UserError(
            f"cannot download {url}: {error}. Try again, or fetch it by hand and put it at {path}."
        ) from error


def extract(archive: Path, folder: Path, names: Sequence[str]) -> None:
    """Copy the regular files `folder.name/<name>` of a tar archive into `folder`, and nothing else.

    No path of the archive is ever followed, so nothing can be written elsewhere.
    """
    wanted = {f"{folder.name}/{name}" for name in names}
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and member.name in wanted and (content := tar.extractfile(member)):
                    with writing(folder / Path(member.name).name) as file:
                        shutil.copyfileobj(content, file)
                    wanted.remove(member.name)
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"{archive} is damaged or truncated ({error}). Delete it and fetch it again.") from error
    if wanted:
        raise UserError(f"{archive} holds no {sorted(wanted)[0]}. Delete it and fetch it again.")
