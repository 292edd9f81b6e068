"""Odd things in folders of images: each real file counts once, under its own class, and what is passed over is told."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_lightning.data.decoding import ORIENTATION, TURNS
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.sources.listing import image_files
from ssl_lightning.data.sources.walk import IMAGE_SUFFIXES
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.suite import EvaluationSuite


def put(root: Path, *names: str) -> Path:
    """Small images of random pixels."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
        kind = {".jfif": "JPEG", ".pgm": "PPM", ".ppm": "PPM"}.get(path.suffix.lower())
        Image.fromarray(pixels).save(path, kind)
    return root


def read(root: Path, part: str = "train") -> dict[str, str]:
    """Classes of images by their paths below the part."""
    files = image_files(root, part, root / "cache")
    named = [os.path.relpath(files.path(i), root / part) for i in range(len(files))]
    labels = files.labels.tolist()
    return {name: files.classes[label] if label >= 0 else "" for name, label in zip(named, labels, strict=True)}


def skipped(root: Path, part: str = "train") -> dict[str, int]:
    return image_files(root, part, root / "cache").skipped


PLAIN = ("train/a/0.png", "train/a/1.png", "train/b/0.png", "test/a/0.png", "test/b/0.png")
EXPECTED = {"a/0.png": "a", "a/1.png": "a", "b/0.png": "b"}


def test_plain(tmp_path):
    put(tmp_path, *PLAIN)
    assert read(tmp_path) == EXPECTED
    assert skipped(tmp_path) == {}


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../a"])
def test_links_to_folders_above_and_beside_multiply_nothing(tmp_path, target):
    put(tmp_path, *PLAIN)
    (tmp_path / "train" / "a" / "loop").symlink_to(target, target_is_directory=True)
    assert read(tmp_path) == EXPECTED
    assert skipped(tmp_path) == {"links to a folder that is read already": 1}


def test_two_links_to_one_another(tmp_path):
    put(tmp_path, *PLAIN)
    (tmp_path / "train/a/x").symlink_to(tmp_path / "train/a/y")
    (tmp_path / "train/a/y").symlink_to(tmp_path / "train/a/x")
    assert read(tmp_path) == EXPECTED
    assert skipped(tmp_path) == {"links to nothing": 2}


@pytest.mark.parametrize("target", ["test", "test/a"])
def test_test_images_do_not_come_into_train_by_a_link(tmp_path, target):
    put(tmp_path, *PLAIN)
    (tmp_path / "train" / "c").symlink_to(tmp_path / target, target_is_directory=True)
    assert read(tmp_path) == EXPECTED
    assert skipped(tmp_path)["links into another split"] == 1


def test_links_out_are_followed_once(tmp_path):
    """A subset of a dataset as links to its files, or to its folders, is a dataset."""
    store = put(tmp_path / "store", "x/0.png", "x/1.png", "y/0.png")
    root = put(tmp_path / "data", "test/x/0.png", "test/y/0.png")
    (root / "train/y").mkdir(parents=True)
    (root / "train/x").symlink_to(store / "x", target_is_directory=True)
    (root / "train/y/first.png").symlink_to(store / "y/0.png")
    (root / "train/y/again.png").symlink_to(store / "y/0.png")
    assert read(root) == {"x/0.png": "x", "x/1.png": "x", "y/again.png": "y"}
    assert skipped(root) == {"links to a file that is read already": 1}


def test_a_picture_counts_where_it_is_and_not_where_a_link_to_it_is(tmp_path):
    put(tmp_path, "train/b/0.png", "train/z/0.png")
    (tmp_path / "train/a").mkdir()
    (tmp_path / "train/a/0.png").symlink_to(tmp_path / "train/z/0.png")
    assert read(tmp_path) == {"b/0.png": "b", "z/0.png": "z"}


def test_a_dangling_link_to_an_image_is_named(tmp_path):
    put(tmp_path, *PLAIN)
    (tmp_path / "train/a/2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"cannot read .*train/a/2\.png: No such file"):
        read(tmp_path)


@pytest.mark.parametrize(
    "name",
    [".hidden/0.png", "a/.thumbs/0.png", "a/._0.png", "a/@eaDir/0.png", "__MACOSX/0.png", ".ipynb_checkpoints/0.png"],
)
def test_hidden_and_system_folders_are_passed_over(tmp_path, name):
    put(tmp_path, *PLAIN, f"train/{name}")
    assert read(tmp_path) == EXPECTED
    assert sum(skipped(tmp_path).values()) == 1


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_every_usual_suffix_is_read_in_any_case(tmp_path, suffix):
    put(tmp_path, f"train/a/0{suffix}", f"train/a/1{suffix.upper()}", "train/b/0.png", "test/a/0.png", "test/b/0.png")
    assert set(read(tmp_path)) == {f"a/0{suffix}", f"a/1{suffix.upper()}", "b/0.png"}
    folder = folder_of(tmp_path)
    assert len(folder.train().labels) == 3
    assert len(folder.train().images[:]) == 3


def test_what_is_passed_over_is_told_in_a_line(tmp_path):
    put(tmp_path, *PLAIN)
    (tmp_path / "train/a/notes.txt").write_text("")
    (tmp_path / "train/a/raw.NEF").write_text("")
    (tmp_path / "train/empty").mkdir()
    put(tmp_path, "train/lost.png")
    assert read(tmp_path) == EXPECTED
    notice = folder_of(tmp_path).notice()
    assert (
        "folder: in train/ passed over: files that are no images (.nef): 1, files that are no images (.txt): 1, "
        "folders without an image (empty): 1, images beside the folders of classes: 1." in notice
    )


@pytest.mark.parametrize("kind", ["run", "report", "rankings"])
def test_what_a_run_leaves_is_no_class(tmp_path, kind):
    """Of a user who works in the folder of the images."""
    put(tmp_path, *PLAIN)
    left = {
        "run": ("runs/default/r/config.yaml", "runs/default/r/metrics.csv", "runs/default/r/figures/curves.png"),
        "report": ("runs/default/report/report.html", "runs/default/report/report.md", "runs/default/report/log.png"),
        "rankings": ("cache/rankings/sas-0.npz", "cache/rankings/sas-0.images.png"),
    }[kind]
    for name in left:
        if name.endswith(".png"):
            put(tmp_path, f"train/{name}")
        else:
            (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / name).write_text("")
    assert read(tmp_path) == EXPECTED


def test_special_files_are_not_opened(tmp_path):
    put(tmp_path, *PLAIN)
    os.mkfifo(tmp_path / "train/a/pipe.png")
    assert read(tmp_path) == EXPECTED
    assert skipped(tmp_path) == {"what is no regular file": 1}


def test_a_name_that_is_no_text(tmp_path):
    put(tmp_path, *PLAIN)
    name = os.path.join(os.fsencode(tmp_path), b"train/a/\xff.png")
    os.link(tmp_path / "train/a/0.png", name)
    files = image_files(tmp_path, "train", tmp_path / "cache")
    assert len(files) == 4
    assert os.fsencode(files.path(2)) == name


# Splits


def test_no_test_split_says_what_was_looked_for(tmp_path):
    put(tmp_path, "train/a/0.png", "train/b/0.png")
    with pytest.raises(UserError, match=r"there is no test split: .* has no image in test/, val/, valid/, validation/"):
        folder_of(tmp_path).prepare()


@pytest.mark.parametrize("part", ["val", "valid", "validation"])
def test_another_split_that_is_the_test_split_is_told(tmp_path, part):
    put(tmp_path, "train/a/0.png", "train/b/0.png", f"{part}/a/0.png", f"{part}/b/0.png")
    folder = folder_of(tmp_path)
    assert len(folder.test().labels) == 2
    assert f"there is no test/, so {part}/ is the test split" in folder.notice()


def test_a_test_split_that_lacks_a_class_is_replaced_by_no_other(tmp_path):
    put(tmp_path, *(f"{part}/{label}/0.png" for part in ("train", "val") for label in "abc"), "test/a/0.png")
    with pytest.raises(UserError, match=r"the classes of .*test are not those of .*train: b, c in only one of them"):
        folder_of(tmp_path).prepare()


@pytest.mark.parametrize("name", ["0.png", "images/0.png"])
def test_a_test_split_without_classes_is_told(tmp_path, name):
    """As of a competition, whose labels nobody has."""
    put(tmp_path, *(f"{part}/{label}/0.png" for part in ("train", "val") for label in "ab"), f"test/{name}")
    folder = folder_of(tmp_path)
    assert "the images in test/ have none of the classes, so val/ is the test split." in folder.notice()
    assert len(folder.test().labels) == 2


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_a_split_beside_test_chooses_settings_of_probes(tmp_path, storage):
    named = [f"{part}/{label}/{i}.png" for part in ("train", "valid", "test") for label in "ab" for i in range(3)]
    put(tmp_path, *named)
    folder = folder_of(tmp_path, storage=storage)
    assert "probes choose their settings on valid/, 6 images" in folder.notice()
    images, labels = folder.labelled()
    assert labels.tolist() == [0, 0, 0, 1, 1, 1] * 2
    assert folder.validation_part().tolist() == [False] * 6 + [True] * 6
    assert torch.equal(images[:6], folder.train().images[:])
    alone = folder_of(tmp_path, storage=storage)
    alone._listing = {"train": alone._listing["val"]}
    assert torch.equal(images[6:12], alone.train().images[:])
    assert not torch.equal(images[6:12], images[:6])
    EvaluationSuite().check(folder)

    def content(folder):
        return protocol_of({}, folder).content

    assert len(folder.train().labels) == len(folder.validation()) == 6  # pretraining sees none of it

    before = content(folder), folder.content_digest("train")
    shutil.copy(tmp_path / "test/a/0.png", tmp_path / "valid/a/0.png")
    changed = folder_of(tmp_path, storage=storage)
    assert (content(changed) != before[0], changed.content_digest("train") == before[1]) == (True, True)
    (tmp_path / "valid/b").rename(tmp_path / "valid/c")
    other = folder_of(tmp_path, storage=storage)
    assert not other.has_val  # its classes are others
    assert "not read: valid/." in other.notice()


# Pixels


def folder_of(root: Path, **settings) -> ImageFolder:
    values = {
        **{"name": "folder", "root": str(root), "cache": str(root / "cache"), "image_size": 8, "channels": 3},
        **{"num_classes": None, "mean": [0.5] * 3, "std": [0.2] * 3, "workers": 0},
    }
    return ImageFolder(**values | settings)


@pytest.mark.parametrize("storage", ["resident", "streamed"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_upright_whatever_their_orientation(tmp_path, orientation, storage):
    """As `ImageOps.exif_transpose` turns them; not square, so that sides are exchanged."""
    upright = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    put(tmp_path, *PLAIN)
    turn = TURNS.get(orientation)
    back = {
        Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
        Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    }
    stored = Image.fromarray(upright)
    stored = stored if turn is None else stored.transpose(back.get(turn, turn))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored.save(tmp_path / "train/a/0.png", exif=exif)
    image = folder_of(tmp_path, image_size=12, storage=storage).train().images[:1][0]
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), upright[:, 4:16])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_white_whatever_their_colour(tmp_path, mode):
    put(tmp_path, *PLAIN)
    pixels = np.full((8, 8, 4), (200, 20, 20, 255), np.uint8)
    pixels[:4] = (10, 200, 10, 0)  # hidden
    image = Image.fromarray(pixels)
    if mode == "P":
        image = Image.fromarray((pixels[..., 3] == 0).astype(np.uint8), "P")
        image.putpalette([200, 20, 20, 10, 200, 10])
        image.info["transparency"] = 1
        image.save(tmp_path / "train/a/0.png", transparency=1)
    else:
        image.convert(mode).save(tmp_path / "train/a/0.png")
    read_back = folder_of(tmp_path).train().images[:1][0]
    assert (read_back[:, :4] == 255).all()
    assert (read_back[:, 4:] < 210).all()
    grey = folder_of(tmp_path, channels=1, mean=[0.5], std=[0.2]).train().images[:1][0]
    assert (grey[:, :4] == 255).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 400), (400, 1), (2, 999)])
@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_thin_pictures(tmp_path, size, storage):
    put(tmp_path, *PLAIN)
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "train/a/0.png")
    image = folder_of(tmp_path, storage=storage, square=0.3).train().images[:1][0]
    assert image.flatten(1).float().mean(1).tolist() == [10, 20, 30]


def test_all_images_that_cannot_be_decoded_are_named_at_once(tmp_path):
    put(tmp_path, *PLAIN)
    (tmp_path / "train/a/0.png").write_text("<html>")
    (tmp_path / "train/b/0.png").write_bytes((tmp_path / "train/b/0.png").read_bytes()[:60])
    with pytest.raises(UserError, match="2 of 3 images cannot be decoded") as caught:
        folder_of(tmp_path).prepare()
    message = str(caught.value)
    assert "train/a/0.png (it is none of JPEG, PNG" in message
    assert "train/b/0.png" in message
    assert "object at 0x" not in message
    assert message.endswith("Replace or remove it.")
