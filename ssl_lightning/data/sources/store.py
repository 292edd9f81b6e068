"""Decoded images on disk: a split is two arrays, which are read through the page cache, and a summary."""

import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from ssl_lightning.data.dataset import Arrays, label_digest
from ssl_lightning.errors import UserError
from ssl_lightning.files import locked, remove_unfinished, writing

_verified: set[tuple[tuple[str, int], ...]] = set()
"""Names and times of what this process has found whole."""


@dataclass(frozen=True)
class Store:
    """A folder of decoded splits, so that a dataset may be larger than memory."""

    folder: Path

    def ensure(self, split: str, build: Callable[[str], None]) -> None:
        """Has one process `build` the split, which calls `write`, unless it is there; tidies up after a killed one."""
        if self._summary(split).exists():
            return
        with locked(self.folder):
            remove_unfinished(self.folder)
            if not self._summary(split).exists():  # another process was faster
                build(split)

    def write(
        self,
        split: str,
        labels: Int64[np.ndarray, " n"],
        images: Iterable[UInt8[np.ndarray, "c h w"]],
        shape: tuple[int, int, int],
        **facts: Any,
    ) -> None:
        """Writes a split; its summary last, with whatever else is to be told.

        Args:
            images: one for each label.
            shape: of one image.
        """
        digest = label_digest(labels)
        with writing(self.folder / f"{split}_labels.npy") as output:
            np.save(output, labels, allow_pickle=False)
        with writing(self.folder / f"{split}_images.npy") as output:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(labels), *shape)}
            np.lib.format.write_array_header_1_0(output, header)
            for image in images:
                content = image.tobytes()
                output.write(content)
                digest.update(content)
        summary = {"length": len(labels), "digest": digest.hexdigest()[:16], **facts}
        with writing(self._summary(split)) as output:
            output.write(json.dumps(summary, indent=1).encode())

    def read(self, split: str) -> Arrays:
        """
        Raises:
            UserError: what is stored is not what was written.
        """
        files = self.folder / f"{split}_images.npy", self.folder / f"{split}_labels.npy"
        try:
            load = partial(np.load, mmap_mode="c", allow_pickle=False)  # copy on write: torch wants writable arrays
            images, labels = map(load, files)
            state = tuple((str(file), file.stat().st_mtime_ns) for file in files)
            if state not in _verified and os.environ.get("LOCAL_RANK", "0") == "0":  # one of several processes
                digest = label_digest(labels)
                digest.update(np.ascontiguousarray(images).reshape(-1))
                if digest.hexdigest()[:16] != self.digest(split):
                    raise ValueError("they have changed")
                _verified.add(state)
            return images, labels
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(
                f"the decoded images in {self.folder} are damaged ({error}). Delete that folder."
            ) from error

    def digest(self, split: str) -> str:
        """Of the content, as in a `Fingerprint`."""
        summary = json.loads(self._summary(split).read_text())
        return str(summary["digest"] if "digest" in summary else summary["hash"])  # its name in the former version

    def _summary(self, split: str) -> Path:
        """Written last: where it is, the split's images and labels are complete."""
        return self.folder / f"{split}.json"
