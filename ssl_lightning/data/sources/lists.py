"""A list of images and their labels, as a spreadsheet or a script writes one: `file,label[,split]`."""

import csv
import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.sources.listing import ImageFiles, contents_of
from ssl_lightning.data.sources.splits import PARTS
from ssl_lightning.errors import UserError

SUFFIXES = (".csv", ".tsv", ".txt")
COLUMNS = ("file", "label", "split")
NAMES = {"file": "file", "filename": "file", "path": "file", "image": "file", "label": "label", "class": "label"}
"""What a header may call the columns, in lower case."""
NUMBER = re.compile(r"(-?\d+)(\.0*)?")  # a table with empty labels makes 3.0 of 3
SHOWN = 3  # of files that are missing


class Row(NamedTuple):
    """One image of a list. An empty label is none; an empty split is train."""

    line: int
    file: str
    label: str
    split: str


def listed_files(root: Path, path: Path, cache: Path) -> dict[str, ImageFiles]:
    """The images of a list by split, in its order; all of them in train where it has no such column.

    Files are named relative to the root, with / or \\, and lie below it. Classes are sorted by name, or by number where
    all labels are whole numbers, of which −1 is none.

    Args:
        root: absolute.
        path: of the list.
        cache: see `image_files`.

    Raises:
        UserError: names the line.
    """
    rows = read_list(path)
    names, states = _found(rows, root, path)
    classes, labels = _numbered(rows, path)
    key = hashlib.sha256(os.fsencode(path)).hexdigest()[:16]
    whole = ImageFiles(
        str(root),
        "",
        classes,
        labels,
        np.frombuffer(b"".join(names), np.uint8),
        np.cumsum([len(name) for name in names], dtype=np.int64),
        contents_of(root, names, states, cache / "indexes" / f"{key}.npz"),
    )
    parts = np.array([PARTS.get(row.split.lower(), "") for row in rows])
    known = set(labels[parts == "train"].tolist()) - {-1}
    for row, part, label in zip(rows, parts, labels.tolist(), strict=True):
        if not part:
            raise _wrong(path, row, f"the split is {row.split!r}. Write train, val or test")
        if part != "train" and label not in known:
            what = f"has the label {row.label!r}, which no image of train has" if label >= 0 else "has no label"
            raise _wrong(path, row, f"{row.file} is to {part}, but {what}. Remove the line, or label more images")
    if not (parts == "train").any():
        raise UserError(f"{path} lists no image of train. Say so in its column split.")
    return {part: whole.select(np.flatnonzero(parts == part)) for part in ("train", "test", "val") if part in parts}


def read_list(path: Path) -> list[Row]:
    """The rows of a list in UTF-8, with or without a byte order mark, whatever ends its lines. A header is known by its
    names; without one, columns are those of `COLUMNS`."""
    records = list(_records(path))
    columns: Sequence[str] = COLUMNS
    header = [NAMES.get(field.lower(), field.lower()) for field in records[0][1]] if records else []
    if "file" in header:
        columns, records = header, records[1:]
        if twice := [name for name in COLUMNS if header.count(name) > 1]:
            raise UserError(f"{path} has two columns for the {twice[0]}. Remove one.")
    if not records:
        raise UserError(f"{path} lists no image. Write a line `file,label` for each.")
    rows = []
    for line, fields in records:
        named = dict(zip(columns, fields, strict=False))
        row = Row(line, *(named.get(name, "") for name in COLUMNS))
        if len(fields) > len(columns) or not row.file:
            fault = f"there are {len(fields)} fields, not {', '.join(columns)}"
            raise _wrong(path, row, f"{fault}. A name with commas or spaces stands in quotes")
        rows.append(row)
    divided = next((row for row in rows if row.split), None)
    alone = next((row for row in rows if not row.split), None)
    if divided and alone:
        raise _wrong(path, alone, f"no split, but line {divided.line} has one. Write train, val or test")
    return [row._replace(split=row.split or "train") for row in rows]


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Fields of each line that has any, and its number, from 1."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"dataset.labels={path} is no list of images: it is to end in {', '.join(SUFFIXES)}.")
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            first = re.sub('"[^"]*"', "quoted", next((line for line in file if line.strip()), ""))
            separators = ("\t", ",", ";", *((" ",) if path.suffix.lower() == ".txt" else ()))
            separator = next((one for one in separators if one in first.strip()), ",")
            file.seek(0)
            reader = csv.reader(
                (line.strip(" \r\n") for line in file), delimiter=separator, skipinitialspace=True, strict=True
            )
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num, [field.strip() for field in fields]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}. Mend its quotes.") from error
    except OSError as error:
        raise UserError(f"cannot read dataset.labels={path}: {error.strerror}. Give a list of images.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 ({error.reason}). Save it as UTF-8.") from error


def _found(rows: Sequence[Row], root: Path, path: Path) -> tuple[list[bytes], Int64[np.ndarray, "n 3"]]:
    """Names relative to the root, and the state of each file."""
    base = os.path.normpath(root)
    lines: dict[bytes, int] = {}
    states, missing = [], []
    for row in rows:
        for written in (row.file, row.file.replace("\\", "/")):  # as Windows writes it
            full = os.path.normpath(os.path.join(base, written))
            if not full.startswith(os.path.join(base, "")):
                raise _wrong(
                    path, row, f"{row.file} is not below {root}. Set dataset.root to a folder above all images"
                )
            if (state := _state(full)) is not None:
                break
        else:
            missing.append(row)
            continue
        name = os.fsencode(os.path.relpath(full, base))
        if name in lines:
            raise _wrong(path, row, f"{row.file} stands in line {lines[name]} already. Remove one of them")
        lines[name] = row.line
        states.append(state)
    if missing:
        shown = ", ".join(f"{row.file} (line {row.line})" for row in missing[:SHOWN])
        more = ", ..." if len(missing) > SHOWN else ""
        raise UserError(
            f"{path}: {len(missing):,} of {len(rows):,} files are not in {root}: {shown}{more}. Names are relative to "
            "dataset.root."
        )
    return list(lines), np.array(states, np.int64).reshape(-1, 3)


def _state(path: str) -> tuple[int, int, int] | None:
    """Size and times of a regular file, if there is one."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return None
    return (state.st_size, state.st_mtime_ns, state.st_ctime_ns) if stat.S_ISREG(state.st_mode) else None


def _numbered(rows: Sequence[Row], path: Path) -> tuple[list[str], Int64[np.ndarray, " n"]]:
    """Names of the classes, and the number of each image's; −1 for none."""
    given = {row.label for row in rows} - {""}
    if all(NUMBER.fullmatch(label) for label in given):
        values = {label: int(label.partition(".")[0]) for label in given}
        if negative := next((row for row in rows if values.get(row.label, 0) < -1), None):
            raise _wrong(path, negative, f"the label is {negative.label}. Number classes from 0; -1 is none")
        order = sorted(set(values.values()) - {-1})
        numbers = {label: order.index(value) if value >= 0 else -1 for label, value in values.items()}
        classes = [str(value) for value in order]
    else:
        classes = sorted(given)
        numbers = {label: i for i, label in enumerate(classes)}
    return classes, np.array([numbers.get(row.label, -1) for row in rows], np.int64)


def _wrong(path: Path, row: Row, what: str) -> UserError:
    return UserError(f"{path}, line {row.line}: {what}.")
