"""The budget's mathematics, rankings on disk, and rankings built once for many processes."""

import inspect
import json
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pytest

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import Fingerprint
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.ranking import Ranking, generator
from ssl_lightning.subsets.rule import Subset, SubsetRule
from tests.data.synthetic import in_memory
from tests.processes import context
from tests.subsets.cutting import deviation, mask_of

FRACTIONS = [
    1e-9,
    0.001,
    0.01,
    0.05,
    0.1,
    0.145,
    0.2,
    0.25,
    0.29,
    1 / 3,
    0.5,
    0.57,
    2 / 3,
    0.7,
    0.9,
    0.999,
    1.0,
]
LATENT_CLASSES = {
    "one": np.zeros(100, int),
    "equal": np.repeat(np.arange(10), 10),
    "ragged": np.repeat(np.arange(6), [1, 2, 3, 50, 17, 200]),
    "singletons": np.arange(37),
    "unused ids": np.repeat([-3, 7, 1_000_000], [4, 9, 30]),
    "singletons beside a large class": np.repeat(np.arange(1001), [1] * 1000 + [1000]),
}


def make_ranking(latent_class, seed=0, **provenance):
    order = np.random.default_rng([seed, 5]).permutation(len(latent_class))
    score = np.empty(len(order))
    score[order] = -np.arange(len(order))
    values = {"rule": "test", "seed": seed, **provenance}
    return Ranking(order, np.asarray(latent_class, np.int64), score, values)


ragged = pytest.mark.parametrize("latent_class", LATENT_CLASSES.values(), ids=LATENT_CLASSES.keys())


# The exact budget


@pytest.mark.parametrize(
    ("num_positions", "fraction", "size"),
    [
        (1, 1.0, 1),
        (1, 0.01, 1),
        (3, 1 / 3, 1),
        (7, 1 / 7, 1),
        (10, 0.25, 3),  # halves go up
        (10, 0.15, 2),
        (100, 0.145, 15),  # the nearest float to 0.145 lies below it
        (1000, 0.0005, 1),
        (1000, 0.0004, 1),
        (1257, 0.2, 251),
        (1257, 0.1, 126),
        (50_000, 0.8, 40_000),
        (50_000, 1.0, 50_000),
    ],
)
def test_masks_have_the_exact_size(num_positions, fraction, size):
    for latent_class in (np.zeros(num_positions, int), np.arange(num_positions) % 7):
        mask = make_ranking(latent_class).mask(fraction)
        assert mask.size == len(mask.positions) == size


@ragged
def test_masks_are_nested_sorted_and_without_repetition(latent_class):
    ranking = make_ranking(latent_class)
    for budget in ("exact", "floor"):
        smaller: set[int] = set()
        for fraction in FRACTIONS:
            if budget == "floor" and fraction * np.bincount(np.unique(latent_class, return_inverse=True)[1]).max() < 1:
                continue
            positions = ranking.mask(fraction, budget).positions
            assert np.all(np.diff(positions) > 0)
            assert smaller <= set(positions.tolist())
            smaller = set(positions.tolist())
        assert smaller == set(range(len(latent_class)))


@ragged
def test_every_mask_is_a_prefix_of_the_order(latent_class):
    ranking = make_ranking(latent_class)
    for fraction in FRACTIONS:
        mask = ranking.mask(fraction)
        np.testing.assert_array_equal(np.sort(ranking.order[: mask.size]), mask.positions)


@ragged
def test_each_class_count_is_within_a_half_of_its_size_times_a_common_threshold(latent_class):
    ranking = make_ranking(latent_class)
    classes, sizes = np.unique(latent_class, return_counts=True)
    for fraction in FRACTIONS:
        mask = ranking.mask(fraction)
        counts = np.array([(latent_class[mask.positions] == label).sum() for label in classes])
        # |count − n_k·t| ≤ ½ bounds t from both sides; the intervals of all classes must meet.
        lowest, highest = ((counts - 0.5) / sizes).max(), ((counts + 0.5) / sizes).min()
        assert lowest <= highest + 1e-12


@ragged
def test_the_best_of_each_class_are_taken(latent_class):
    ranking = make_ranking(latent_class)
    given = np.random.default_rng([0, 5]).permutation(len(latent_class))
    for fraction in (0.1, 0.5, 0.9):
        for budget in ("exact", "floor"):
            if budget == "floor" and np.unique(latent_class, return_counts=True)[1].max() * fraction < 1:
                continue
            taken = set(ranking.mask(fraction, budget).positions.tolist())
            for label in np.unique(latent_class):
                of_class = [position for position in given.tolist() if latent_class[position] == label]
                count = len(taken & set(of_class))
                assert taken & set(of_class) == set(of_class[:count])


def test_singletons_beside_a_large_class_leave_it_its_share():
    latent_class = LATENT_CLASSES["singletons beside a large class"]
    mask = make_ranking(latent_class).mask(0.5)
    assert mask.size == 1000
    assert (latent_class[mask.positions] == 1000).sum() == 500
    assert deviation(mask, latent_class) == 0.5


def test_ties_between_classes_follow_the_seed():
    digests = {make_ranking(np.arange(40), seed).mask(0.5).digest for seed in range(5)}
    assert len(digests) == 5
    assert make_ranking(np.arange(40), 3).mask(0.5).digest in digests
    # and favour no class: singletons of all positions are taken about equally often
    taken = np.zeros(40)
    order = np.arange(40)
    for seed in range(400):
        ranking = Ranking(order, np.arange(40), np.zeros(40), {"seed": seed})
        taken[ranking.mask(0.5).positions] += 1
    assert np.abs(taken - 200).max() < 50  # five standard deviations of a fair draw


def test_an_order_that_is_stored_is_kept():
    ranking = make_ranking(LATENT_CLASSES["ragged"])
    again = Ranking(ranking.order, ranking.latent_class, ranking.score, ranking.provenance)
    np.testing.assert_array_equal(again.order, ranking.order)


def test_one_group_keeps_the_given_order():
    order = np.random.default_rng(0).permutation(50)
    ranking = Ranking(order, np.zeros(50, np.int64), np.full(50, np.nan), {})
    np.testing.assert_array_equal(ranking.order, order)


# The floor budget


@pytest.mark.parametrize("fraction", [0.01, 0.29, 1 / 3, 0.5, 0.9, 1.0])
def test_floor_takes_the_floor_of_each_class(fraction):
    sizes = [1, 2, 3, 100, 200]
    latent_class = np.repeat(np.arange(5), sizes)
    counts = np.bincount(latent_class[make_ranking(latent_class).mask(fraction, "floor").positions], minlength=5)
    expected = {0.01: [0, 0, 0, 1, 2], 0.29: [0, 0, 0, 29, 58], 1 / 3: [0, 0, 1, 33, 66]}
    expected |= {0.5: [0, 1, 1, 50, 100], 0.9: [0, 1, 2, 90, 180], 1.0: sizes}
    assert counts.tolist() == expected[fraction]


def test_a_floor_that_leaves_nothing_is_an_error():
    with pytest.raises(UserError, match=r"subset\.budget=floor leaves no image.*class has 1\..*budget=exact"):
        make_ranking(np.arange(10)).mask(0.5, "floor")


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.0001, 80.0, float("nan")])
def test_fractions_outside_are_errors(fraction):
    with pytest.raises(UserError, match=r"subset\.fraction is .*above 0 and at most 1"):
        make_ranking(np.zeros(10)).mask(fraction)
    with pytest.raises(UserError, match=r"subset\.fraction is"):
        Subset(Slow(log=""), fraction)


def test_a_fraction_of_as_many_positions_as_were_ranked_is_not_beyond_them():
    ranking = make_ranking(np.zeros(1257), max_fraction=377 / 1257)  # 0.3 of 1257 is 377.1
    assert ranking.mask(0.3).size == ranking.mask(377 / 1257).size == 377
    with pytest.raises(UserError, match=r"subset\.fraction is 0\.301, but .* up to 0\.29992"):
        ranking.mask(0.301)


# Masks


def test_a_masks_digest_is_that_of_its_positions():
    ranking = make_ranking(np.zeros(100))
    assert len(ranking.mask(0.3).digest) == 16
    assert ranking.mask(0.3).digest == ranking.mask(0.3).digest == ranking.mask(0.301).digest
    assert ranking.mask(0.3).digest != ranking.mask(0.31).digest
    assert ranking.mask(1.0).digest == make_ranking(np.zeros(100), seed=1).mask(1.0).digest


def test_a_mask_knows_where_it_comes_from():
    fingerprint = Fingerprint("digits", "train", 10, "ab")
    mask = make_ranking(np.zeros(10), fingerprint=fingerprint.as_dict()).mask(0.5)
    assert (mask.rule, mask.fraction, mask.length, mask.fingerprint) == ("test", 0.5, 10, fingerprint)


def test_rankings_cannot_be_changed():
    ranking = make_ranking(np.zeros(10))
    for values in (ranking.order, ranking.latent_class, ranking.score):
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


@pytest.mark.parametrize("order", [[0, 1, 1], [1, 2, 3], [-1, 0, 1], []])
def test_an_order_is_a_permutation(order):
    order = np.array(order, np.int64)
    with pytest.raises(ValueError, match=r"each of \d positions once"):
        Ranking(order, np.zeros(len(order), np.int64), np.zeros(len(order)), {})


def test_streams_differ_by_seed_and_purpose():
    draws = [generator(*key).random() for key in ((0, "a"), (0, "b"), (1, "a"), (0, "ab"))]
    assert len(set(draws)) == 4
    assert generator(0, "a").random() == draws[0]


# On disk

FINGERPRINT = Fingerprint("digits", "train", 258, "0123456789abcdef")


@pytest.fixture
def ranking():
    values = make_ranking(np.repeat([2, 5, 9], [1, 57, 200]), seed=4, fingerprint=FINGERPRINT.as_dict())
    score = values.score.copy()
    score[3] = np.nan
    return Ranking(values.order, values.latent_class, score, {**values.provenance, "parameters": {"k": [1, 2.5]}})


def test_a_ranking_survives_the_disk(tmp_path, ranking):
    path = tmp_path / "new folder" / "ranking.npz"
    ranking.save(path)
    loaded = Ranking.load(path, FINGERPRINT)
    for key in ("order", "latent_class", "score"):
        np.testing.assert_array_equal(getattr(loaded, key), getattr(ranking, key))
    assert loaded.provenance == ranking.provenance
    assert loaded.mask(0.37).digest == ranking.mask(0.37).digest
    assert Ranking.load(path, None).provenance == ranking.provenance
    assert [entry.name for entry in path.parent.iterdir()] == ["ranking.npz"]
    with np.load(path, allow_pickle=False) as arrays:  # readable without this package
        assert json.loads(str(arrays["provenance"]))["rule"] == "test"


def test_a_foreign_ranking_is_refused_with_both_fingerprints(tmp_path, ranking):
    ranking.save(tmp_path / "ranking.npz")
    other = Fingerprint("digits", "train", 258, "fedcba9876543210")
    with pytest.raises(UserError) as caught:
        Ranking.load(tmp_path / "ranking.npz", other)
    for part in (str(FINGERPRINT), str(other), str(tmp_path / "ranking.npz")):
        assert part in str(caught.value)
    make_ranking(np.zeros(258)).save(tmp_path / "unnamed.npz")
    with pytest.raises(UserError, match="made for unnamed data"):
        Ranking.load(tmp_path / "unnamed.npz", other)


def test_a_missing_ranking_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no ranking at .*absent\.npz"):
        Ranking.load(tmp_path / "absent.npz", None)


def arrays_of(ranking):
    header = np.array(json.dumps({"format": 1, **ranking.provenance}))
    return {
        "order": ranking.order,
        "latent_class": ranking.latent_class,
        "score": ranking.score,
        "provenance": header,
    }


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("order", lambda order: np.where(order == 0, 1, order)),  # a position twice
        ("order", lambda order: order + 1),
        ("order", lambda order: order[:-1]),
        ("order", lambda order: order.astype(np.int32)),
        ("order", lambda order: order.astype(float)),
        ("order", lambda order: order[None]),
        ("order", lambda order: None),
        ("latent_class", lambda latent_class: latent_class[:-1]),
        ("latent_class", lambda latent_class: latent_class.astype(np.uint8)),
        ("score", lambda score: score.astype(np.float32)),
        ("score", lambda score: np.array([{}], dtype=object)),  # would need a pickle
        ("provenance", lambda header: np.array("{not json")),
        ("provenance", lambda header: np.array("[]")),
        ("provenance", lambda header: np.array("{}")),
        ("provenance", lambda header: np.array(str(header).replace('"format": 1', '"format": 99'))),
        ("provenance", lambda header: np.array(str(header).replace("258", "259"))),
        ("provenance", lambda header: np.array(str(header).replace('"split"', '"part"'))),
        ("provenance", lambda header: None),
    ],
)
def test_wrong_contents_are_refused(tmp_path, ranking, key, change):
    arrays = arrays_of(ranking)
    np.savez(tmp_path / "good.npz", **arrays)
    Ranking.load(tmp_path / "good.npz", FINGERPRINT)
    arrays[key] = change(arrays[key])
    np.savez(tmp_path / "bad.npz", **{key: values for key, values in arrays.items() if values is not None})
    with pytest.raises(UserError, match=r"bad\.npz is no readable ranking .*Delete it"):
        Ranking.load(tmp_path / "bad.npz", FINGERPRINT)


def test_damaged_files_are_refused(tmp_path, ranking):
    path = tmp_path / "ranking.npz"
    ranking.save(path)
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 3] ^= 0xFF
    np.save(tmp_path / "array.npy", np.arange(3))
    damages = [
        content[: len(content) // 2],
        content[:-1],
        b"",
        b"text",
        flipped,
        (tmp_path / "array.npy").read_bytes(),
    ]
    for damage in damages:
        path.write_bytes(damage)
        with pytest.raises(UserError, match=r"ranking\.npz is no readable ranking"):
            Ranking.load(path, FINGERPRINT)


@pytest.mark.parametrize("failing", ["os.replace", "numpy.savez_compressed"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_writer_leaves_the_old_file_and_nothing_else(tmp_path, ranking, monkeypatch, failing, error):
    path = tmp_path / "ranking.npz"
    ranking.save(path)
    old = path.read_bytes()

    def fail(file, *_, **__):
        if hasattr(file, "write"):
            file.write(b"half of it")
        raise error

    monkeypatch.setattr(failing, fail)
    expected = UserError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        make_ranking(np.zeros(9)).save(path)
    if expected is UserError:
        assert str(caught.value).startswith(f"cannot write {path}: No space left on device")
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["ranking.npz"]


# Rules and their cache


@dataclass(frozen=True, kw_only=True)
class Slow(SubsetRule):
    """Takes its time, and leaves a file in `log` for each time that it ranks."""

    name: ClassVar[str] = "slow"
    expensive: ClassVar[bool] = True

    log: Annotated[str, Place]
    strength: float = 1.0

    def content_digest(self):
        content = Path(self.log) / "content"
        return content.read_text() if content.exists() else ""

    def rank(self, dataset, proxies=(), processes=None):
        (Path(self.log) / f"{uuid.uuid4().hex}.rank").touch()
        time.sleep(0.5)
        length = dataset.fingerprint().length
        order = generator(self.seed, "order").permutation(length)
        return Ranking(order, np.zeros(length, np.int64), np.zeros(length), self.provenance(dataset, ()))


def times_ranked(folder):
    return len(list(Path(folder).glob("*.rank")))


def ask(barrier, answers, folder, fraction):
    barrier.wait()
    mask = mask_of(Slow(log=folder, cache=f"{folder}/cache"), in_memory(np.arange(20) % 2), fraction)
    answers.put((fraction, mask.positions.tolist()))


def test_processes_that_ask_at_the_same_time_build_once(tmp_path):
    barrier, answers = context.Barrier(2), context.Queue()
    processes = [
        context.Process(target=ask, args=(barrier, answers, str(tmp_path), fraction)) for fraction in (0.5, 1.0)
    ]
    for process in processes:
        process.start()
    masks = dict(answers.get(timeout=300) for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert times_ranked(tmp_path) == 1
    assert len(masks[0.5]) == 10
    assert masks[1.0] == list(range(20))


def test_one_ranking_serves_every_fraction_and_budget(tmp_path):
    dataset, log, cache = in_memory(np.arange(20) % 2), str(tmp_path), str(tmp_path / "cache")
    half = mask_of(Slow(log=log, cache=cache), dataset, 0.5)
    assert half.fingerprint == dataset.fingerprint()
    mask_of(Slow(log=log, cache=cache), dataset, 0.2, "floor")
    Slow(log=log, cache=cache).ranking(in_memory(np.arange(20) % 2))
    assert times_ranked(tmp_path) == 1
    files = list((tmp_path / "cache" / "rankings").glob("*.npz"))
    assert [file.name[:5] for file in files] == ["slow-"]

    Slow(log=log, cache=cache, seed=1).ranking(dataset)
    assert times_ranked(tmp_path) == 2
    Slow(log=log, cache=cache, strength=2.0).ranking(dataset)
    assert times_ranked(tmp_path) == 3
    Slow(log=log, cache=cache).ranking(in_memory(np.arange(20) % 4))
    assert times_ranked(tmp_path) == 4
    (tmp_path / "content").write_text("other weights")
    Slow(log=log, cache=cache).ranking(dataset)
    assert times_ranked(tmp_path) == 5


def test_without_a_cache_nothing_is_written(tmp_path):
    dataset = in_memory(np.arange(20) % 2)
    first = mask_of(Slow(log=str(tmp_path)), dataset)
    assert mask_of(Slow(log=str(tmp_path)), dataset).digest == first.digest
    assert times_ranked(tmp_path) == 2
    assert {path.suffix for path in tmp_path.iterdir()} == {".rank"}


def test_a_rule_that_fails_leaves_no_ranking(tmp_path, monkeypatch):
    def fail(self, dataset, proxies, processes):
        raise UserError("no proxy")

    dataset, rule = in_memory(np.arange(20) % 2), Slow(log=str(tmp_path), cache=str(tmp_path / "cache"))
    with monkeypatch.context() as patch:
        patch.setattr(Slow, "rank", fail)
        with pytest.raises(UserError, match="no proxy"):
            mask_of(rule, dataset)
    assert mask_of(rule, dataset).size == 20  # and the lock is free


def test_provenance_names_everything_that_matters(tmp_path):
    dataset = in_memory(np.arange(20) % 2)
    provenance = Slow(log=str(tmp_path), seed=3, strength=0.5).ranking(dataset).provenance
    assert json.loads(json.dumps(provenance)) == provenance
    assert provenance["rule"] == "slow"
    assert provenance["seed"] == 3
    assert len(provenance["parameters"].pop("code")) == 16  # of this file: the rule is not the product's
    assert provenance["parameters"] == {"seed": 3, "strength": 0.5}
    assert Fingerprint.from_dict(provenance["fingerprint"]) == dataset.fingerprint()
    assert set(provenance["versions"]) == {"ssl-lightning", "numpy", "torch"}


def test_wrong_settings_are_errors(tmp_path):
    with pytest.raises(UserError, match=r"subset\.seed is -1"):
        Slow(log="", seed=-1)
    with pytest.raises(UserError, match=r"subset\.budget is 'most': choose exact or floor"):
        inspect.unwrap(Ranking.mask)(make_ranking(np.zeros(4)), 0.5, "most")  # past the annotations
