"""A list from elsewhere: what is read from which format, what is refused with which words, and which run it makes."""

import json
import os
import pickle
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.data.dataset import Fingerprint
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import Run, find_runs
from ssl_lightning.subsets.file import File, read_positions
from ssl_lightning.subsets.random import Random, RandomBalanced
from ssl_lightning.subsets.ranking import Ranking
from ssl_lightning.subsets.rule import Subset
from tests.composing import TINY
from tests.data.synthetic import in_memory
from tests.subsets.cutting import mask_of

LENGTH = 40
LISTED = [7, 3, 39, 0, 21, 12]
DATASET = in_memory(np.arange(LENGTH) % 4)
OTHER = Fingerprint("memory", "train", LENGTH, "0123456789abcdef")


def write(path: Path, content) -> Path:
    """In the format of the suffix."""
    match path.suffix.lower():
        case ".npy":
            np.save(path, content)
        case ".npz":
            np.savez(path, content)
        case ".json":
            path.write_text(json.dumps(content))
        case ".txt":
            path.write_text("\n".join(map(str, content)))
        case _:
            path.write_bytes(pickle.dumps(content))
    return path


FORMATS = ("list.npy", "list.npz", "list.json", "list.txt", "list.pkl", "list.pickle", "LIST.TXT")


def make(path: Path) -> File:
    return File(path=str(path))


def refused(path: Path, dataset=DATASET, fraction=None) -> str:
    rule = make(path)
    with pytest.raises(UserError) as caught:
        mask_of(rule, dataset, fraction)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


# What is read


@pytest.mark.parametrize("name", FORMATS)
def test_the_listed_come_first_in_their_order_then_the_others_ascending(tmp_path, name):
    rule = make(write(tmp_path / name, LISTED))
    ranking = rule.ranking(DATASET)
    assert ranking.order.tolist() == LISTED + [i for i in range(LENGTH) if i not in LISTED]
    assert set(ranking.latent_class.tolist()) == {0}
    assert np.isnan(ranking.score).all()
    assert ranking.fingerprint == DATASET.fingerprint()
    assert ranking.provenance["rule"] == "file"
    assert ranking.provenance["max_fraction"] == 6 / 40
    mask = rule.cut(ranking, None, "exact")
    assert mask.positions.tolist() == sorted(LISTED)
    assert (mask.rule, mask.fraction, mask.size) == ("file", 6 / 40, 6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("list.npy", np.array(LISTED, np.uint8)),
        ("list.npy", np.array(LISTED, ">i4")),
        ("list.npz", np.array(LISTED, np.uint64)),
        ("list.json", {"positions": LISTED, "source": "of a friend"}),
        ("list.json", {"positions": LISTED, "fingerprint": DATASET.fingerprint().as_dict()}),
        ("list.pkl", tuple(LISTED)),
        ("list.txt", ["# of a friend", "", *LISTED[:2], f"  {LISTED[2]}  # the best of its class", *LISTED[3:], ""]),
        ("list.txt", ["\ufeff7\r", *LISTED[1:]]),
    ],
)
def test_what_else_is_the_same_list(tmp_path, name, content):
    rule = make(write(tmp_path / name, content))
    assert rule.ranking(DATASET).order[:6].tolist() == LISTED
    assert rule.content_digest() == make(write(tmp_path / "plain.json", LISTED)).content_digest()


@pytest.mark.parametrize("name", ["mask.npy", "mask.npz"])
def test_booleans_are_the_positions_where_they_are_true(tmp_path, name):
    rule = make(write(tmp_path / name, np.isin(np.arange(LENGTH), LISTED)))
    assert mask_of(rule, DATASET, None).positions.tolist() == sorted(LISTED)
    assert rule.content_digest() == make(write(tmp_path / "sorted.txt", sorted(LISTED))).content_digest()
    message = refused(write(tmp_path / f"short_{name}", np.ones(LENGTH - 1, bool)))
    assert "holds 39 booleans, but memory has 40 training images" in message


def test_lists_by_class_give_in_proportion_to_their_lengths(tmp_path):
    by_class = {1: [10, 11, 12, 13, 14, 15], "b": (20, 21, 22), 0: [5], 2: []}
    rule = make(write(tmp_path / "list.pkl", by_class))
    expected = [10, 20, 11, 12, 21, 5, 13, 14, 22, 15]  # by (rank + ½)/n_k; of equals, 21 and 5, the earlier class
    assert rule.ranking(DATASET).order[:10].tolist() == expected
    assert mask_of(rule, DATASET, None).positions.tolist() == sorted(expected)
    assert set(mask_of(rule, DATASET, 0.1).positions.tolist()) == {10, 20, 11, 12}


def test_positions_of_python_2_are_read(tmp_path):
    path = tmp_path / "list.pkl"
    path.write_bytes(b"\x80\x02}(U\x03cat](K\x03K\x01eU\x03dog]K\x02au.")
    assert pickle.loads(path.read_bytes()) == {"cat": [3, 1], "dog": [2]}
    assert make(path).ranking(DATASET).order[:3].tolist() == [3, 2, 1]


def test_everything_may_be_listed(tmp_path):
    order = np.random.default_rng(0).permutation(LENGTH)
    rule = make(write(tmp_path / "list.npy", order))
    assert rule.ranking(DATASET).order.tolist() == order.tolist()
    assert mask_of(rule, DATASET, None).fraction == 1.0


def test_every_number_of_listed_positions_is_cut_exactly():
    """The share m/n is a float, and may lie a little below."""
    length = 1257
    for m in range(1, length + 1):
        ranking = Ranking(np.arange(length), np.zeros(length, np.int64), np.zeros(length), {"max_fraction": m / length})
        assert File(path="").cut(ranking, None, "exact").size == m


# Rankings of ssl-select


@pytest.fixture
def stored(tmp_path) -> tuple[Ranking, Path]:
    made = RandomBalanced(seed=5).rank(DATASET)
    score = np.arange(LENGTH, dtype=np.float64)
    ranking = Ranking(made.order, made.latent_class, score, made.provenance | {"seconds": 12.5, "proxy_seconds": 3.5})
    ranking.save(tmp_path / "ranking.npz")
    return ranking, tmp_path / "ranking.npz"


def test_a_ranking_keeps_its_order_classes_and_scores(stored):
    ranking, path = stored
    found = make(path).ranking(DATASET)
    for key in ("order", "latent_class", "score"):
        np.testing.assert_array_equal(getattr(found, key), getattr(ranking, key))
    assert found.provenance == ranking.provenance | {"rule": "file"}
    assert found.cost == {"selection_seconds": 12.5, "proxy_seconds": 3.5}  # whoever reads it
    for budget in ("exact", "floor"):
        mask = mask_of(make(path), DATASET, 0.3, budget)
        assert mask.digest == ranking.mask(0.3, budget).digest
        assert mask.rule == "file"
    assert mask_of(make(path), DATASET, None).size == LENGTH


def test_a_ranking_made_in_part_is_cut_where_it_ends(stored):
    ranking, path = stored
    Ranking(ranking.order, ranking.latent_class, ranking.score, ranking.provenance | {"max_fraction": 0.25}).save(path)
    assert mask_of(make(path), DATASET, None).digest == ranking.mask(0.25).digest
    assert "ranks 10 of them" in refused(path, fraction=0.3)


def test_the_key_of_a_ranking_knows_its_classes_and_its_end(stored):
    ranking, path = stored
    order, score, provenance = ranking.order, ranking.score, ranking.provenance
    keys = {make(path).content_digest()}
    Ranking(order, ranking.latent_class, score, provenance | {"max_fraction": 0.5}).save(path)
    keys.add(make(path).content_digest())
    Ranking(order, np.arange(LENGTH) // 39, score, provenance).save(path)
    keys.add(make(path).content_digest())
    assert len(keys) == 3


# Cutting


def test_smaller_fractions_are_prefixes(tmp_path):
    path = write(tmp_path / "list.npy", np.random.default_rng(1).permutation(LENGTH)[:30])
    listed = np.load(path).tolist()
    masks = [set(mask_of(make(path), DATASET, f).positions.tolist()) for f in (0.01, 0.1, 0.3, 0.5, 0.75)]
    masks.append(set(mask_of(make(path), DATASET, None).positions.tolist()))
    assert [len(mask) for mask in masks] == [1, 4, 12, 20, 30, 30]
    for smaller, larger in pairwise(masks):
        assert smaller <= larger
    for mask in masks:
        assert mask == set(listed[: len(mask)])


def test_more_than_is_listed_cannot_be_cut(tmp_path):
    path = write(tmp_path / "list.json", LISTED)
    message = refused(path, fraction=0.2)
    assert message == (
        f"subset.fraction is 0.2, 8 of 40 images, but {path} ranks 6 of them. "
        "Choose a smaller fraction, or subset.fraction=null, which takes all of these."
    )
    mask = mask_of(make(path), DATASET, 0.16)  # 6.4 images
    assert (mask.size, mask.fraction) == (6, 0.16)


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.5])
def test_fractions_outside_are_errors(tmp_path, fraction):
    with pytest.raises(UserError, match=r"subset\.fraction is .*above 0 and at most 1"):
        Subset(make(tmp_path / "list.json"), fraction)


# What is refused


def test_a_missing_file(tmp_path):
    message = refused(tmp_path / "absent.npy")
    assert message.startswith(f"subset.path: there is no file {tmp_path / 'absent.npy'}. ")
    (tmp_path / "folder.npy").mkdir()
    assert "there is no file" in refused(tmp_path / "folder.npy")


def test_an_unknown_suffix_names_the_known(tmp_path):
    (tmp_path / "list.csv").write_text("1,2")
    assert ".json, .npy, .npz, .pickle, .pkl, .txt" in refused(tmp_path / "list.csv")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        # wrong values
        ("a.json", [1, 3.0], "a.json, index 1: 3.0 is no position. These are whole numbers, counted from 0."),
        ("a.json", [True, 1], "index 0: True is no position"),
        ("a.json", [1, -2], "index 1: -2 is no position"),
        ("a.json", [1, "2"], "index 1: '2' is no position"),
        ("a.json", [1, None], "index 1: None is no position"),
        ("a.json", [[1, 2], [3, 4]], "index 0: [1, 2] is no position"),
        ("a.json", [1, 10**30], "index 1: 1000000000000000000000000000000 is no position"),
        ("a.json", {"positions": [0, -1]}, "index 1: -1 is no position"),
        ("a.npy", np.array([0.0, 1.0]), "index 0: 0.0 is no position"),
        ("a.npy", np.array([5, -3]), "index 1: -3 is no position"),
        ("a.npy", np.array([5, 2**64 - 1], np.uint64), "index 1: 18446744073709551615 is no position"),
        ("a.npy", np.array(["1"]), "index 0: '1' is no position"),
        ("a.npz", np.array([0.5]), "index 0: 0.5 is no position"),
        ("a.txt", ["# head", 4, "", "3.0"], "line 4: '3.0' is no position"),
        ("a.txt", [4, "-3"], "line 2: -3 is no position"),
        ("a.txt", ["1 2"], "line 1: '1 2' is no position"),
        ("a.txt", ["1_0"], "line 1: '1_0' is no position"),
        ("a.txt", ["٣"], "line 1: '٣' is no position"),
        ("a.pkl", [1, 2.0], "index 1: 2.0 is no position"),
        ("a.pkl", {"cat": [1], "dog": [2, False]}, "index 1 of class 'dog': False is no position"),
        # values twice
        ("a.json", [5, 1, 2, 1], "lists 1 twice, at index 1 and at index 3"),
        ("a.npy", np.array([3, 3]), "lists 3 twice, at index 0 and at index 1"),
        ("a.txt", ["# head", 6, 5, 6], "lists 6 twice, at line 2 and at line 4"),
        (
            "a.pkl",
            {"cat": [1, 2], "dog": [2]},
            "lists 2 twice, at index 0 of class 'dog' and at index 1 of class 'cat'",
        ),
        # values beyond the dataset
        ("a.json", [39, 40], "a.json, index 1: 40 is no position of memory, whose 40 training images"),
        ("a.txt", [1, "#", 2**62], "line 3: 4611686018427387904 is no position of memory"),
        ("a.pkl", {"cat": [1], "dog": [99]}, "index 0 of class 'dog': 99 is no position of memory"),
        # nothing
        ("a.json", [], "a.json lists no position"),
        ("a.npy", np.array([], np.int64), "a.npy lists no position"),
        ("a.npy", np.zeros(LENGTH, bool), "a.npy lists no position"),
        ("a.txt", ["# nothing"], "a.txt lists no position"),
        ("a.pkl", {}, "a.pkl lists no position"),
        # other things
        ("a.json", {"position": [1]}, 'neither a list nor an object with a list of "positions"'),
        ("a.json", 3, "neither a list"),
        ("a.json", {"positions": [1], "fingerprint": "digits"}, '"fingerprint" is no object of "name"'),
        ("a.json", {"positions": [1], "fingerprint": {"name": "digits"}}, '"fingerprint" is no object of "name"'),
        ("a.npy", np.zeros((2, 3), np.int64), "int64[2, 3], not one dimension of integers"),
        ("a.npy", np.array(3), "not one dimension of integers"),
        ("a.npy", np.array([{}], dtype=object), "allow_pickle=False"),
        ("a.npz", np.array([{}], dtype=object), "allow_pickle=False"),
        ("a.pkl", {1, 2}, "it is of type set, not a list"),
        ("a.pkl", 3, "it is of type int, not a list"),
        ("a.pkl", {"cat": 3}, "its class 'cat' is of type int, not a list"),
    ],
)
def test_wrong_contents_are_named(tmp_path, name, content, said):
    assert said in refused(write(tmp_path / name, content))


def test_several_arrays_are_no_list(tmp_path):
    np.savez(tmp_path / "a.npz", first=np.arange(3), second=np.arange(3))
    assert "it holds the arrays ['first', 'second'], where one, or a ranking" in refused(tmp_path / "a.npz")


@pytest.mark.parametrize("name", FORMATS[:-2])
@pytest.mark.parametrize("damage", ["cut", "empty", "other"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    content = write(tmp_path / name, LISTED).read_bytes()
    damaged = {"cut": content[:-2] + b"\xff", "empty": b"", "other": zlib.compress(b"something else")}[damage]
    (tmp_path / name).write_bytes(damaged)
    refused(tmp_path / name)


def test_a_damaged_ranking_is_refused(stored):
    _, path = stored
    path.write_bytes(path.read_bytes()[:-30])
    assert "ranking.npz is no readable" in refused(path)


def test_a_file_for_other_data_is_refused_with_both_fingerprints(tmp_path, stored):
    ranking, path = stored
    listed = write(tmp_path / "list.json", {"positions": LISTED, "fingerprint": OTHER.as_dict()})
    other = in_memory(np.arange(LENGTH) % 5)
    for file, made_for, dataset in ((listed, OTHER, DATASET), (path, DATASET.fingerprint(), other)):
        message = refused(file, dataset)
        assert str(made_for) in message
        assert str(dataset.fingerprint()) in message
    unnamed = {key: value for key, value in ranking.provenance.items() if key != "fingerprint"}
    Ranking(ranking.order, ranking.latent_class, ranking.score, unnamed).save(path)
    assert "made for unnamed data" in refused(path)


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_that_would_execute_something_is_refused(tmp_path):
    evil = tmp_path / "evil"
    message = refused(write(tmp_path / "list.pkl", [1, Evil(evil)]))
    assert "list.pkl is refused: it asks for posix.mkdir" in message
    assert not evil.exists()
    np.save(tmp_path / "list.npy", np.array([Evil(evil)], dtype=object), allow_pickle=True)
    refused(tmp_path / "list.npy")
    assert not evil.exists()


@pytest.mark.parametrize("content", [[np.int64(3)], np.arange(3), {0: np.arange(3)}], ids=repr)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_numpys_pickles_are_refused_with_advice(tmp_path, content, protocol):
    (tmp_path / "list.pkl").write_bytes(pickle.dumps(content, protocol))
    assert refused(tmp_path / "list.pkl").endswith("Save the positions with numpy.save, as .npy.")


# Identity


def test_the_key_is_that_of_the_positions_in_their_order(tmp_path):
    keys = {make(write(tmp_path / name, LISTED)).content_digest() for name in FORMATS}
    assert len(keys) == 1
    assert {len(key) for key in keys} == {16}
    for content in (LISTED[::-1], LISTED[:-1], [*LISTED, 1]):
        keys.add(make(write(tmp_path / "other.json", content)).content_digest())
    assert len(keys) == 4


def test_a_file_is_read_once(tmp_path, monkeypatch):
    rule = make(write(tmp_path / "list.txt", LISTED))
    before = rule.content_digest()
    write(tmp_path / "list.txt", [1, 2, 3])
    assert rule.content_digest() == before
    assert mask_of(rule, DATASET, None).positions.tolist() == sorted(LISTED)
    assert read_positions(tmp_path / "list.txt").positions.tolist() == [1, 2, 3]


def test_provenance_names_the_content_and_no_path(tmp_path):
    rule = make(write(tmp_path / "list.txt", LISTED))
    provenance = rule.ranking(DATASET).provenance
    assert provenance["content"] == rule.content_digest()
    assert str(tmp_path) not in json.dumps(provenance)


# A run

SHORT = (*TINY, "subset=file", "subset.path=list.npy", "trainer.limit_train_batches=2")


def runs_in(folder: Path) -> dict[str, Run]:
    return {run.id.rpartition("-")[0]: run for run in find_runs([folder / "runs"])}


@pytest.mark.nightly
def test_a_run_on_a_list(command, tmp_path):
    dataset = Digits(
        name="digits", image_size=8, channels=1, num_classes=10, mean=[0.5], std=[0.5], validation_fraction=0.1
    )
    listed = mask_of(Random(seed=3), dataset, 0.1).positions[::-1]
    write(tmp_path / "list.npy", listed)

    assert (outcome := command("ssl-train", *SHORT)).code == 0, outcome.err
    ((name, run),) = runs_in(tmp_path).items()
    assert name == "simclr-digits-file-all-s0"
    results = run.results()
    expected = mask_of(File(path=str(tmp_path / "list.npy")), dataset, None)
    assert results["mask"] == {"size": 126, "digest": expected.digest, "rule": "file"}
    assert expected.positions.tolist() == sorted(listed.tolist())
    assert results["identity"]["subset"] == "file"
    assert results["identity"]["fraction"] == 126 / 1257

    # the same list elsewhere, in another format, is the same run
    finished = run.results_file.stat().st_mtime_ns
    write(tmp_path / "list.npy", listed[::-1])
    for other in ("copy.txt", "copy.json", "copy.npz"):
        write(tmp_path / other, listed.tolist())
        again = command("ssl-train", *SHORT, f"subset.path={other}")
        assert f"{run.id} is finished" in again.out, again.err
    assert run.results_file.stat().st_mtime_ns == finished
    assert len(runs_in(tmp_path)) == 1

    # a part of it is another
    assert command("ssl-train", *SHORT, "subset.path=copy.txt", "subset.fraction=0.05").code == 0
    part = runs_in(tmp_path)["simclr-digits-file-0.05-s0"].results()
    smaller = mask_of(File(path=str(tmp_path / "copy.txt")), dataset, 0.05)
    assert part["mask"] == {"size": 63, "digest": smaller.digest, "rule": "file"}
    assert part["identity"]["fraction"] == 0.05
    assert smaller.positions.tolist() == sorted(listed[:63].tolist())

    # and so is another list, which a report does not take for a further seed
    write(tmp_path / "other.npy", np.arange(126))
    assert command("ssl-train", *SHORT, "subset.path=other.npy").code == 0
    assert len(find_runs([tmp_path / "runs"])) == 3
    assert command("ssl-report", "runs").code == 0
    report = (tmp_path / "runs" / "report" / "report.md").read_text()
    assert [path for path in ("list.npy", "copy.txt", "other.npy") if f"path={path}" in report] == [
        "list.npy",
        "copy.txt",
        "other.npy",
    ]


def test_a_wrong_list_ends_a_command_with_one_message(command, tmp_path):
    write(tmp_path / "list.npy", np.array([0, 1257]))
    outcome = command("ssl-train", *SHORT)
    assert outcome.code != 0
    (line,) = (line for line in outcome.err.splitlines() if line.startswith("Error:"))
    assert "list.npy, index 1: 1257 is no position of digits, whose 1257 training images" in line
    assert "Traceback" not in outcome.out + outcome.err
