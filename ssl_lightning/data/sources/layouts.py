"""How a folder of images is laid out: which images it has, and which split each of them belongs to."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_lightning.data.sources.listing import ImageFiles, image_files
from ssl_lightning.data.sources.lists import listed_files
from ssl_lightning.data.sources.splits import found_line, held_out
from ssl_lightning.data.sources.walk import IMAGE_SUFFIXES, TESTS
from ssl_lightning.errors import UserError

NONE = "none"
"""Of labels: there are none, whatever folders images are in."""
LIKE_SPLITS = {*TESTS, "train", "training", "testing"}
"""Names of folders, in lower case, that are taken for no classes."""


@dataclass(frozen=True)
class Layout:
    """
    Args:
        splits: train, and test and val where there are such.
        found: what it is, in words.
        lines: what else a user should know.
    """

    splits: Mapping[str, ImageFiles]
    found: str
    lines: tuple[str, ...] = ()

    def __str__(self) -> str:
        """In one line, with the numbers of images and classes."""
        labels = {part: files.labels for part, files in self.splits.items()}
        return found_line(self.found, labels, len(self.splits["train"].classes))


def layout_of(root: Path, cache: Path, labels: str | None = None, split: float | None = None, seed: int = 0) -> Layout:
    """
    Args:
        root: absolute.
        cache: see `image_files`.
        labels: a list, which tells all; `none`: folders are no classes.
        split: share of each class that is held out as the test split, by this seed.

    Raises:
        UserError: there is no image, or more than one way to read what there is.
    """
    if not root.is_dir():
        raise UserError(
            f"there is no folder {root}. Set dataset.root to one with train/<class>/* and test/<class>/*, or "
            "<class>/* (dataset.split=0.2), or images without labels."
        )
    if labels not in (None, NONE):
        return _of_list(root, cache, labels, split, seed)
    classes = labels is None
    if not (root / "train").is_dir():
        return _of_one_folder(root, cache, classes, split, seed)
    train = image_files(root, "train", cache, classes)
    if not len(train):
        raise _no_images(root / "train")
    if not train.classes:
        _refuse_split(split, root / "train")
        return Layout({"train": train}, "train/", (*_passed_over(train), *_unread(root, ["train"], _with_images(root))))
    tests = [image_files(root, part, cache) for part in TESTS]
    if split is None:
        splits = _with_tests(root, train, tests)
        return Layout(splits, _parts(splits), tuple(_of_tests(root, splits)))
    if there := next((files for files in tests if files.classes), None):
        raise UserError(
            f"dataset.split={split:g} is to hold out a test split, but {root} has one, {there.part}/. Leave "
            f"dataset.split out, or rename {there.part}/."
        )
    lines = (*_passed_over(train), *_unread(root, ["train"]))
    return Layout(divided(train, split, seed), f"train/<class>/, split={split:g}", lines)


def divided(files: ImageFiles, split: float, seed: int) -> dict[str, ImageFiles]:
    """Images with classes, a share of each of which is held out."""
    out = held_out(files.labels, [files.name(i) for i in range(len(files))], split, seed)
    if not out.any():
        raise UserError(f"dataset.split={split:g} holds out nothing: no class of {files.root} has two images.")
    return {"train": files.select(np.flatnonzero(~out)), "test": files.select(np.flatnonzero(out))}


def _of_list(root: Path, cache: Path, labels: str, split: float | None, seed: int) -> Layout:
    path = Path(labels).absolute()
    if not path.exists() and (root / labels).exists():
        path = root / labels
    splits = listed_files(root, path, cache)
    if split is not None:
        if len(splits) > 1:
            raise UserError(
                f"dataset.split={split:g} is to hold out a test split, but {path} has splits. Leave it out."
            )
        if not splits["train"].classes:
            raise UserError(f"dataset.split={split:g} holds out a share of each class, but {path} has no labels.")
        return Layout(divided(splits["train"], split, seed), f"{path.name}, split={split:g}")
    if "val" in splits and "test" not in splits:
        splits["test"] = splits.pop("val")
        return Layout(splits, path.name, ("no image is listed for test, so those for val are the test split.",))
    return Layout(splits, path.name)


def _of_one_folder(root: Path, cache: Path, classes: bool, split: float | None, seed: int) -> Layout:
    """Of a root without train/: one folder of classes, or a flat folder."""
    found = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name.lower() in LIKE_SPLITS)
    if found:
        raise UserError(
            f"there is no {root / 'train'}, but {', '.join(f'{name}/' for name in found)}. Rename the folder of the "
            "training images to train/, or set dataset.root to it."
        )
    files = image_files(root, "", cache, classes)
    if not len(files):
        raise _no_images(root)
    if not files.classes:
        _refuse_split(split, root)
        return Layout(
            {"train": files}, "a flat folder" if classes else "all images below the folder", tuple(_passed_over(files))
        )
    if split is None:
        shown = ", ".join(f"{name}/" for name in files.classes[:3]) + ", ..." * (len(files.classes) > 3)
        beside = files.skipped.get("images beside the folders of classes", 0)
        raise UserError(
            f"{root} has {len(files):,} images in folders ({shown})"
            + (f" and {beside:,} beside them" if beside else "")
            + ", but no train/ and no test/. If the folders are classes, hold out a share of each as the test split: "
            "dataset.split=0.2. If they are none, train without labels: dataset.labels=none."
        )
    return Layout(divided(files, split, seed), f"<class>/, split={split:g}", tuple(_passed_over(files)))


def _with_tests(root: Path, train: ImageFiles, tests: list[ImageFiles]) -> dict[str, ImageFiles]:
    """The test split is the first that has the classes of train; where it is test/, the next one chooses settings of
    probes."""
    alike = [files for files in tests if files.classes == train.classes]
    named_so = tests[0]
    lacks_some = bool(set(named_so.classes) & set(train.classes)) and named_so not in alike
    if alike and not lacks_some:
        further = {"val": alike[1]} if alike[0] is named_so and len(alike) > 1 else {}
        return {"train": train, "test": alike[0], **further}
    files = next((files for files in tests if len(files)), None)
    if files is None:
        raise UserError(
            f"there is no test split: {root} has no image in {', '.join(f'{part}/' for part in TESTS)}. Put images of "
            "the same classes into test/<class>/, or hold out a share of train: dataset.split=0.2."
        )
    differing = sorted(set(train.classes) ^ set(files.classes))
    raise UserError(
        f"the classes of {root / files.part} are not those of {root / 'train'}: "
        f"{', '.join(differing[:3])}{', ...' if len(differing) > 3 else ''} in only one of them. "
        "Put images of the same classes into both, or leave the class out of both."
    )


def _parts(splits: Mapping[str, ImageFiles]) -> str:
    names = [f"{files.part}/<class>/" for files in splits.values()]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _of_tests(root: Path, splits: Mapping[str, ImageFiles]) -> Iterator[str]:
    """What was passed over, and where test images come from, if that is not obvious."""
    for files in splits.values():
        yield from _passed_over(files)
    if (test := splits["test"]).part != "test":
        there = (root / "test").is_dir()
        what = "the images in test/ have none of the classes" if there else "there is no test/"
        yield f"{what}, so {test.part}/ is the test split."
    if (val := splits.get("val")) is not None:
        yield f"probes choose their settings on {val.part}/, {len(val):,} images."
    yield from _unread(root, [files.part for files in splits.values()])


def _unread(root: Path, read: list[str], further: Sequence[str] = ()) -> Iterator[str]:
    """Folders that somebody may take for a part of the data."""
    names = dict.fromkeys((*(part for part in TESTS if (root / part).is_dir()), *further))
    if unread := [f"{name}/" for name in names if name not in read]:
        yield f"not read: {', '.join(unread)}."


def _with_images(root: Path) -> list[str]:
    """Folders that hold an image themselves."""
    return sorted(path.parent.name for path in root.glob("*/*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _passed_over(files: ImageFiles) -> Iterator[str]:
    if files.skipped:
        reasons = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(files.skipped.items()))
        yield f"in {files.part or Path(files.root).name}/ passed over: {reasons}."


def _refuse_split(split: float | None, folder: Path) -> None:
    if split is not None:
        raise UserError(
            f"dataset.split={split:g} holds out a share of each class, but the images in {folder} have no classes. "
            "Leave it out, or put them into a folder for each class."
        )


def _no_images(folder: Path) -> UserError:
    return UserError(
        f"no images in {folder}. Set dataset.root to a folder with train/<class>/*.jpg and test/<class>/*.jpg, with "
        "<class>/*.jpg for dataset.split=0.2, or of images without labels "
        f"({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)})."
    )
