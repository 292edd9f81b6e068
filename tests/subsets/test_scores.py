"""Scores from elsewhere: the order that they make, what is read from which format, and what is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import find_runs
from ssl_lightning.subsets.scores import Scores, read_scores
from ssl_lightning.subsets.strata import Strata
from tests.composing import TINY
from tests.data.synthetic import in_memory
from tests.subsets import test_file as of_lists
from tests.subsets.cutting import mask_of

LABELS = np.arange(40) % 4
DATASET = in_memory(LABELS)
VALUES = np.random.default_rng(0).normal(size=40).round(1)  # some are equal


def write(path: Path, values) -> Path:
    """In the format of the suffix; text has a comment, or is as spreadsheets write it."""
    written = np.asarray(values).tolist()
    match path.suffix.lower():
        case ".txt":
            path.write_text("# of a paper\n\n" + "\n".join(map(repr, written)))
        case ".csv":
            path.write_bytes(b"\xef\xbb\xbfscore\r\n" + "\r\n".join(map(repr, written)).encode())
        case ".json":
            of_lists.write(path, written)
        case _:
            of_lists.write(path, values)
    return path


FORMATS = ("scores.npy", "scores.npz", "scores.json", "scores.txt", "scores.csv", "SCORES.NPY")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_says_the_same(tmp_path, name):
    path = tmp_path / name
    if path.suffix.isupper():
        np.save(tmp_path / "scores.npy", VALUES)
        (tmp_path / "scores.npy").rename(path)
    else:
        write(path, VALUES)
    np.testing.assert_array_equal(read_scores(path), VALUES)
    plain = write(tmp_path / "plain.npy", VALUES)
    assert Scores(path=str(path)).content_digest() == Scores(path=str(plain)).content_digest()


@pytest.mark.parametrize("kind", ["float32", "int8", "bool", "uint64"])
def test_all_numbers_are_scores(tmp_path, kind):
    values = (VALUES > 0) if kind == "bool" else np.abs(VALUES).astype(kind)
    np.testing.assert_array_equal(read_scores(write(tmp_path / "scores.npy", values)), values.astype(float))


@pytest.mark.parametrize("keep", ["largest", "smallest"])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_order_is_that_of_the_scores(tmp_path, keep, balanced):
    path = write(tmp_path / "scores.npy", VALUES)
    sign = 1 if keep == "largest" else -1
    ranking = Scores(path=str(path), keep=keep, balanced=balanced).rank(DATASET)
    assert sorted(ranking.order) == list(range(40))
    np.testing.assert_array_equal(ranking.score, sign * VALUES)
    for group in range(4) if balanced else [slice(None)]:
        members = [p for p in ranking.order if not balanced or LABELS[p] == group]
        taken = sign * VALUES[members]
        assert (np.diff(taken) <= 0).all()
    # of equals, another seed takes others first
    other = Scores(path=str(path), keep=keep, balanced=balanced, seed=1).rank(DATASET)
    assert other.order.tolist() != ranking.order.tolist()
    np.testing.assert_array_equal(np.sort(other.score[other.order]), np.sort(ranking.score[ranking.order]))


def test_fractions_are_nested_and_exact(tmp_path):
    rule = Scores(path=str(write(tmp_path / "scores.npy", VALUES)))
    former: set[int] = set()
    for fraction in (0.05, 0.1, 0.33, 0.5, 1.0):
        taken = set(mask_of(rule, DATASET, fraction).positions.tolist())
        assert len(taken) == round(40 * fraction)
        assert former <= taken
        former = taken
    best = mask_of(rule, DATASET, 0.25).positions
    assert VALUES[best].min() >= np.delete(VALUES, best).max()


def test_a_balanced_fraction_keeps_the_proportions_of_the_labels(tmp_path):
    rule = Scores(path=str(write(tmp_path / "scores.npy", VALUES)), balanced=True)
    assert np.bincount(LABELS[mask_of(rule, DATASET, 0.5).positions]).tolist() == [5, 5, 5, 5]


def test_strata_go_by_them(tmp_path):
    path = write(tmp_path / "scores.npy", np.arange(40.0))
    rule = Scores(path=str(path), quota=Strata(cut=0.0, strata=4))
    assert np.bincount(mask_of(rule, DATASET, 0.2).positions // 10).tolist() == [2, 2, 2, 2]


def test_equal_scores_are_a_draw(tmp_path):
    rule = Scores(path=str(write(tmp_path / "scores.npy", np.zeros(40))))
    assert rule.rank(DATASET).order.tolist() != list(range(40))


NONE = np.zeros((0,))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.npy", VALUES[:39], r"holds 39 scores, but memory has 40 training images"),
        ("scores.npy", np.where(np.arange(40) == 3, np.nan, VALUES), r"score 3, counted from 0, is nan"),
        ("scores.json", np.where(np.arange(40) == 3, np.inf, VALUES), r"score 3, counted from 0, is inf"),
        ("scores.npy", VALUES.reshape(4, 10), r"not one dimension of numbers"),
        ("scores.npy", VALUES.astype(str), r"not one dimension of numbers"),
        ("scores.npy", NONE, r"holds no score"),
        ("scores.txt", NONE, r"holds no score"),
    ],
)
def test_wrong_contents_are_named(tmp_path, name, content, said):
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=said) as caught:
        Scores(path=str(path)).rank(DATASET)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("scores.txt", b"1.5\n2,5\n", "line 2 is '2,5', not one number"),
        ("scores.txt", b"1.2.3\n2.5\n", "line 1 is '1.2.3', not one number"),
        ("scores.csv", b"file,score\na.png,2.5\n", "line 1 is 'file,score', not one number"),
        ("scores.csv", b"score\nmore\n2.5\n", "line 2 is 'more', not one number"),
        ("scores.txt", b"nan\n2.5\n", "score 0, counted from 0, is nan"),
        ("scores.json", b'{"a": 1}', "holds no list"),
        ("scores.json", b'[1, "2"]', "score 1, counted from 0, is no number"),
        ("scores.json", b"[1, true]", "score 1, counted from 0, is no number"),
        ("scores.json", b"[1", "no readable scores"),
        ("scores.npy", b"no array", "no readable scores"),
        ("scores.npy", pickle.dumps([1.0]), "no readable scores"),
        ("scores.npz", b"no archive", "no archive of arrays"),
        ("scores.txt", b"\xff\xfe\x00", "no readable scores"),
        ("scores.pkl", pickle.dumps([1.0]), r"read from files that end in .csv, .json, .npy, .npz, .txt"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said) as caught:
        read_scores(tmp_path / name)
    assert name in str(caught.value)


def test_a_column_is_named_after_a_comment_too(tmp_path):
    (tmp_path / "scores.csv").write_text("# mine\n\nscore\n1.5\n-2e-3\n")
    np.testing.assert_array_equal(read_scores(tmp_path / "scores.csv"), [1.5, -2e-3])


def test_objects_in_an_array_are_never_made(tmp_path):
    np.save(tmp_path / "scores.npy", np.array([1.0, None], dtype=object), allow_pickle=True)
    with pytest.raises(UserError, match="no readable scores"):
        read_scores(tmp_path / "scores.npy")


def test_several_arrays_are_no_scores(tmp_path):
    np.savez(tmp_path / "scores.npz", filenames=np.arange(3), scores=np.arange(3))
    with pytest.raises(UserError, match="it is not known which one is meant"):
        read_scores(tmp_path / "scores.npz")


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"subset.path: there is no file"):
        read_scores(tmp_path / "scores.npy")


def test_balance_needs_labels(tmp_path):
    rule = Scores(path=str(write(tmp_path / "scores.npy", VALUES)), balanced=True)
    with pytest.raises(UserError, match="needs the labels of all images"):
        rule.rank(in_memory(np.full(40, -1)))


def test_a_run_is_known_by_the_scores_wherever_they_lie(command, tmp_path):
    short = (*TINY, "subset=scores", "subset.fraction=0.1", "trainer.limit_train_batches=2")
    scores = np.arange(1257.0)
    write(tmp_path / "scores.npy", scores)
    write(tmp_path / "copy.csv", scores)
    assert (done := command("ssl-train", *short, "subset.path=scores.npy")).code == 0, done.err
    (run,) = find_runs([tmp_path / "runs"])
    assert run.id.startswith("simclr-digits-scores-0.1-s0-")
    assert "is finished" in command("ssl-train", *short, "subset.path=copy.csv").out
    again = command("ssl-train", *short, "subset.path=copy.csv", "subset.keep=smallest")
    assert again.code == 0, again.err
    assert len(find_runs([tmp_path / "runs"])) == 2

    lists = command("ssl-train", *short[:-2], "subset=file", "subset.path=scores.npy")
    assert "A file of a score for each image is read by subset=scores." in lists.err
