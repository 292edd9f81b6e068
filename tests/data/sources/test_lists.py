"""Lists of images and labels, as spreadsheets and scripts write them; what is wrong is told with its line."""

from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.sources.lists import Row, listed_files, read_list
from ssl_lightning.errors import UserError
from tests.data.sources.test_walk import folder_of, put

IMAGES = ("0.png", "1.png", "more/2.png", "more/my cat, asleep.png")
BOM = "\ufeff"


def listed(root: Path, text: str, name: str = "labels.csv", **settings) -> ImageFolder:
    """The images, and a list of them in the folder."""
    put(root, *IMAGES)
    (root / name).write_bytes(text.encode())
    return folder_of(root, labels=str(root / name), **settings)


def labels_of(folder: ImageFolder, part: str = "train") -> dict[str, int]:
    files = folder._listing[part]
    return {files.name(i).decode(): label for i, label in enumerate(files.labels.tolist())}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "1.png,cat\n0.png,dog\nmore/2.png,cat\n"),
        ("a.csv", "1.png,cat\r\n0.png,dog\r\nmore/2.png,cat"),
        ("a.csv", BOM + "file,label\r\n1.png,cat\r\n0.png,dog\r\nmore/2.png,cat\r\n"),
        ("a.csv", BOM + "1.png,cat\n0.png,dog\nmore/2.png,cat\n"),
        ("a.csv", "id,Label,Filename\n7,cat,1.png\n8,dog,0.png\n9,cat,more/2.png\n"),
        ("a.csv", "1.png;cat\n0.png;dog\nmore/2.png;cat\n"),
        ("a.csv", '"1.png","cat"\n"0.png","dog"\n\n"more/2.png", cat \n'),
        ("a.csv", "1.png,cat\n0.png,dog\nmore\\2.png,cat\n"),
        ("a.csv", "./1.png,cat\n0.png,dog\nmore/../more/2.png,cat\n"),
        ("a.tsv", "1.png\tcat\n0.png\tdog\nmore/2.png\tcat\n"),
        ("a.txt", "1.png cat\n0.png   dog\nmore/2.png cat \n"),
        ("a.TXT", "1.png,cat\n0.png,dog\nmore/2.png,cat\n"),
    ],
)
def test_every_usual_list_is_read_in_its_order(tmp_path, name, text):
    folder = listed(tmp_path, text, name)
    assert list(labels_of(folder).items()) == [("1.png", 0), ("0.png", 1), ("more/2.png", 0)]
    assert folder._listing["train"].classes == ["cat", "dog"]
    assert folder.unlabelled == "has no test split"


def test_a_name_with_commas_and_spaces_stands_in_quotes(tmp_path):
    text = '"more/my cat, asleep.png",cat\n0.png,"dog, wet"\n'
    assert labels_of(listed(tmp_path, text)) == {"more/my cat, asleep.png": 0, "0.png": 1}
    assert labels_of(listed(tmp_path, '"more/my cat, asleep.png" cat\n', "labels.txt")) == {IMAGES[3]: 0}


def test_an_absolute_name_below_the_root_is_the_same_image(tmp_path):
    one = listed(tmp_path, "0.png,a\n1.png,b\n").content_digest("train")
    other = listed(tmp_path, f"{tmp_path}/0.png,a\n1.png,b\n").content_digest("train")
    assert one == other


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        (("10", "9", "10"), ["9", "10"], [1, 0, 1]),
        (("1.0", "", "3.0"), ["1", "3"], [0, -1, 1]),
        (("-1", "0", "-1"), ["0"], [-1, 0, -1]),
        (("01", "1", "2"), ["1", "2"], [0, 0, 1]),
        (("b", "", "-1"), ["-1", "b"], [1, -1, 0]),
        (("", "", ""), [], [-1, -1, -1]),
    ],
)
def test_labels_are_numbers_or_names(tmp_path, labels, classes, numbers):
    folder = listed(tmp_path, "".join(f"{file},{label}\n" for file, label in zip(IMAGES, labels, strict=False)))
    assert folder._listing["train"].classes == classes
    assert list(labels_of(folder).values()) == numbers


def test_files_alone_are_images_without_labels(tmp_path):
    folder = listed(tmp_path, "0.png\nmore/2.png\n", "list.txt")
    assert labels_of(folder) == {"0.png": -1, "more/2.png": -1}
    assert folder.unlabelled == "has no labels"


def test_splits(tmp_path):
    text = "file,label,split\n0.png,a,train\n1.png,a,Valid\nmore/2.png,a,test\n"
    folder = listed(tmp_path, text)
    assert labels_of(folder, "train") == {"0.png": 0}
    assert labels_of(folder, "val") == {"1.png": 0}
    assert labels_of(folder, "test") == {IMAGES[2]: 0}
    assert folder.notice().startswith("folder: labels.csv: 1 images for training in 1 class, 1 for val, 1 for test.")
    assert folder.unlabelled is None
    folder = listed(tmp_path, "0.png,a,train\n1.png,a,val\n")
    assert labels_of(folder, "test") == {"1.png": 0}
    assert "those for val are the test split" in folder.notice()


def test_a_share_of_the_labelled_images_is_held_out(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(30)))
    rows = "".join(f"{i}.png,{'' if i < 10 else 'ab'[i % 2]}\n" for i in range(30))
    (tmp_path / "labels.csv").write_text(rows)
    folder = folder_of(tmp_path, labels=str(tmp_path / "labels.csv"), split=0.2)
    assert folder.test().labels.bincount().tolist() == [2, 2]
    assert folder.notice().startswith(
        "folder: labels.csv, split=0.2: 26 images for training, 16 of them labelled, in 2 classes, 4 for test."
    )
    assert folder.unlabelled is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png,a\n1.png,a\n0.png,b\n", r"labels.csv, line 3: 0.png stands in line 1 already"),
        ("0.png,a\nmore/../0.png,b\n", r"line 2: more/../0.png stands in line 1 already"),
        (
            "0.png,a\n\ngone.png,a\nmore,b\n",
            r"2 of 3 files are not in .*: gone.png \(line 3\), more \(line 4\)",
        ),
        ("0.png,a\n../0.png,a\n", r"line 2: ../0.png is not below .*dataset.root"),
        ("0.png,a\n/etc/hostname,a\n", r"line 2: /etc/hostname is not below"),
        ("0.png,a,train,x\n", r"line 1: there are 4 fields, not file, label, split"),
        (",a\n", r"line 1: there are 2 fields, not file"),
        ("0.png,a,train\n1.png,a\n", r"line 2: no split, but line 1 has one"),
        ("0.png,a,train\n1.png,a,dev\n", r"line 2: the split is 'dev'\. Write train, val or test"),
        ("0.png,a,train\n1.png,,test\n", r"line 2: 1.png is to test, but has no label"),
        ("0.png,a,train\n1.png,b,test\n", r"line 2: 1.png is to test, but has the label 'b', which no image of train"),
        ("0.png,a,test\n", r"line 1: 0.png is to test, but has the label 'a', which no image of train"),
        ("0.png,0\n1.png,-2\n", r"line 2: the label is -2\. Number classes from 0; -1 is none"),
        ('0.png,a\n"1.png,b\n', r"line \d: .*Mend its quotes"),
        ("file,path,label\n", r"two columns for the file"),
        ("file,label\n", r"lists no image"),
        ("", r"lists no image"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path, text, message):
    with pytest.raises(UserError, match=f"^folder: .*{message}"):
        listed(tmp_path, text).prepare()


def test_other_files_are_no_lists(tmp_path):
    with pytest.raises(UserError, match=r"labels.xlsx is no list of images: it is to end in .csv, .tsv, .txt"):
        listed(tmp_path, "0.png,a\n", "labels.xlsx").prepare()
    with pytest.raises(UserError, match=r"cannot read dataset.labels=.*gone.csv: No such file"):
        folder_of(tmp_path, labels=str(tmp_path / "gone.csv")).prepare()
    (tmp_path / "labels.csv").write_bytes("0.png,Käse\n".encode("utf-16"))
    with pytest.raises(UserError, match=r"labels.csv is not UTF-8 .*Save it as UTF-8"):
        folder_of(tmp_path, labels=str(tmp_path / "labels.csv")).prepare()
    with pytest.raises(UserError, match=r"split=0.2 .* has splits\. Leave it out"):
        listed(tmp_path, "0.png,a,train\n1.png,a,test\n", split=0.2).prepare()
    with pytest.raises(UserError, match=r"split=0.2 .* has no labels"):
        listed(tmp_path, "0.png\n1.png\n", split=0.2).prepare()


def test_a_list_is_looked_for_here_and_in_the_folder(tmp_path, monkeypatch):
    listed(tmp_path / "images", "0.png,a\n", "mine.csv")
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "images", labels="mine.csv")
    assert labels_of(folder) == {"0.png": 0}


def test_what_the_list_says_is_what_counts(tmp_path):
    def digest(text: str, name: str = "labels.csv") -> str:
        return listed(tmp_path, text, name).content_digest("train")

    before = digest("0.png,a\n1.png,b\n")
    assert digest("file;label\r\n0.png;a\r\n1.png;b\r\n", "other.csv") == before
    others = ["0.png,b\n1.png,a\n", "1.png,b\n0.png,a\n", "0.png,a\n1.png,\n", "0.png,a\n", "0.png,a\nmore/2.png,b\n"]
    assert len({before, *map(digest, others)}) == 1 + len(others)


@pytest.mark.parametrize("storage", ["resident", "streamed"])
def test_pixels_are_those_of_the_files(tmp_path, storage):
    folder = listed(tmp_path, "more/2.png,a\n0.png,b\n", storage=storage)
    whole = folder_of(tmp_path, labels="none")
    positions = [list(labels_of(whole)).index(name) for name in ("more/2.png", "0.png")]
    np.testing.assert_array_equal(folder.train().images[:].numpy(), whole.train().images[:][positions].numpy())


def test_rows_know_their_lines(tmp_path):
    (tmp_path / "labels.csv").write_text("\nfile,label\n\n0.png,a\n")
    assert read_list(tmp_path / "labels.csv") == [Row(4, "0.png", "a", "train")]


def test_a_root_with_dots(tmp_path):
    listed(tmp_path, "0.png,a\n")
    root = tmp_path / "more" / ".."
    assert len(listed_files(root, tmp_path / "labels.csv", tmp_path / "cache")["train"]) == 1
