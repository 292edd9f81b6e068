"""What a folder of images is taken for: what is clear is read and told, what is not is refused."""

import numpy as np
import pytest

from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.sources.splits import held_out
from ssl_lightning.errors import UserError
from tests.data.sources.test_walk import folder_of, put

CLASSES = tuple(f"{label}/{i}.png" for label in "ab" for i in range(10))


def names(folder: ImageFolder, part: str) -> list[str]:
    files = folder._listing[part]
    return [files.name(i).decode() for i in range(len(files))]


def found(folder: ImageFolder) -> str:
    return (folder.notice() or "").splitlines()[0]


@pytest.mark.parametrize(
    ("files", "settings", "line"),
    [
        (("train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png"), {},
         "train/<class>/ and test/<class>/: 2 images for training in 2 classes, 2 for test."),
        ([f"{part}/{label}/0.png" for part in ("train", "val", "test") for label in "ab"], {},
         "train/<class>/, test/<class>/ and val/<class>/: 2 images for training in 2 classes, 2 for val, 2 for test."),
        (("train/0.png", "train/1.png"), {}, "train/: 2 images for training, without labels."),
        (("0.png", "1.png"), {}, "a flat folder: 2 images for training, without labels."),
        (CLASSES, {"split": 0.2}, "<class>/, split=0.2: 16 images for training in 2 classes, 4 for test."),
        ([f"train/{name}" for name in CLASSES], {"split": 0.2},
         "train/<class>/, split=0.2: 16 images for training in 2 classes, 4 for test."),
        (("0.png", "2023/may/1.png"), {"labels": "none"},
         "all images below the folder: 2 images for training, without labels."),
    ],
)  # fmt: skip
def test_each_layout_is_told_in_a_line(tmp_path, files, settings, line):
    assert found(folder_of(put(tmp_path, *files), **settings)) == f"folder: {line}"


@pytest.mark.parametrize(
    ("files", "settings", "message"),
    [
        (CLASSES, {}, r"20 images in folders \(a/, b/\), but no train/ .*dataset.split=0.2.*dataset.labels=none"),
        (("0.png", *CLASSES), {}, r"20 images in folders \(a/, b/\) and 1 beside them"),
        (("0.png",), {"split": 0.2}, r"dataset.split=0.2 holds out a share of each class, but .* have no classes"),
        (("train/0.png",), {"split": 0.2}, r"but the images in .*train have no classes"),
        (("train/a/0.png", "train/b/0.png", "val/a/0.png"), {"split": 0.2}, r"but .* has one, val/\. Leave"),
        (("test/a/0.png", "test/b/0.png"), {"split": 0.2}, r"there is no .*train, but test/\. Rename"),
        (("Train/a/0.png", "Test/a/0.png"), {}, r"there is no .*train, but Test/, Train/\. Rename"),
        (("a/0.png", "b/0.png"), {"split": 0.2}, r"holds out nothing: no class of .* has two images"),
        ((), {}, r"no images in .*Set dataset.root to"),
    ],
)
def test_what_is_not_clear_is_refused(tmp_path, files, settings, message):
    with pytest.raises(UserError, match=f"^folder: .*{message}"):
        folder_of(put(tmp_path, *files), **settings).prepare()


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match=r"there is no folder .*gone\. Set dataset.root"):
        folder_of(tmp_path / "gone").prepare()


def test_what_is_beside_train_is_told(tmp_path):
    put(tmp_path, "train/0.png", "car/0.png", "test/0.png")
    assert "not read: test/, car/." in folder_of(tmp_path).notice()


def test_what_is_beside_the_classes_is_told(tmp_path):
    put(tmp_path, "0.png", *CLASSES)
    (tmp_path / "notes.txt").write_text("")
    folder = folder_of(tmp_path, split=0.5)
    assert (
        f"in {tmp_path.name}/ passed over: files that are no images (.txt): 1, images beside the folders of classes: 1."
        in folder.notice()
    )


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_a_split_is_stratified_and_its_parts_are_apart(tmp_path, storage):
    put(tmp_path, *CLASSES)
    folder = folder_of(tmp_path, split=0.3, storage=storage)
    train, test = names(folder, "train"), names(folder, "test")
    assert sorted([*train, *test]) == sorted(CLASSES)
    assert folder.test().labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert folder.train().labels.tolist() == [0] * 7 + [1] * 7
    whole = folder_of(tmp_path, labels="none")
    positions = [names(whole, "train").index(name) for name in test]
    np.testing.assert_array_equal(folder.test().images[:].numpy(), whole.train().images[:][positions].numpy())


def test_a_split_depends_on_its_seed_alone(tmp_path):
    put(tmp_path / "here", *CLASSES)
    put(tmp_path / "there", *CLASSES)
    here, again, there, other = (
        folder_of(tmp_path / place, split=0.3, split_seed=seed)
        for place, seed in (("here", 0), ("here", 0), ("there", 0), ("here", 1))
    )
    assert names(here, "test") == names(again, "test") == names(there, "test") != names(other, "test")
    digests = [[folder.content_digest(part) for part in ("train", "test")] for folder in (here, there, other)]
    assert digests[0] == digests[1]
    assert not set(digests[0]) & set(digests[2])


def test_further_images_move_few_of_the_others():
    named = [b"%d.png" % i for i in range(1000)]
    before = held_out(np.zeros(900, np.int64), named[:900], 0.2, 0)
    after = held_out(np.zeros(1000, np.int64), named, 0.2, 0)
    assert (before.sum(), after.sum()) == (180, 200)
    assert (before != after[:900]).sum() < 30


def test_no_whole_class_is_held_out_and_no_image_without_a_label():
    labels = np.array([0, 1, 1, -1, -1, -1])
    out = held_out(labels, [b"%d" % i for i in range(6)], 0.9, 0)
    assert out[labels == 1].sum() == 1
    assert not out[labels != 1].any()
