"""Folders that are handed on: they appear whole, and what is not ours, or was written on, is left alone."""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError
from ssl_lightning.files import read_text

CARD = "README.md"


@contextlib.contextmanager
def whole(to: Path) -> Iterator[Path]:
    """A folder to write into, which becomes `to` when the block ends well; of a former export, each file in turn."""
    made = to.parent / f".{to.name}.{os.getpid()}.export"
    made.mkdir(parents=True)
    try:
        yield made
        if to.is_dir():
            for file in sorted(made.iterdir(), key=lambda file: file.name == CARD):
                file.replace(to / file.name)
        else:
            made.rename(to)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def former(to: Path, file: str, made_by: str, key: str) -> Mapping[str, Any] | None:
    """What the JSON file of a former export into this folder says; None where the folder is new or empty.

    Args:
        file: which says "made_by", and in "card" the digest of the card.
        key: by which the folder is chosen, for messages.

    Raises:
        UserError: something would be lost: a folder of something else, or a card that was written on.
    """
    if not (to.is_symlink() or to.exists()) or (to.is_dir() and not any(to.iterdir())):
        return None
    try:
        described = json.loads(read_text(to / file, 2**20))
        ours = described["made_by"] == made_by
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise UserError(f"{key}={to} is there, and is nothing that {made_by} has made. Choose a new folder.")
    there = to / CARD
    if there.exists() and digest_of_card(read_text(there)) != described.get("card"):
        raise UserError(f"{there} was changed since it was made, and would be lost. Move it, or choose another {key}=.")
    return described


def digest_of_card(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
