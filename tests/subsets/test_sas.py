"""SAS as a rule: every latent class in the naive order, whatever holds the work; and what identifies a ranking.

Features of few bits have exact similarities, so that ties are ties.
"""

import re
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.config import components
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.parts import subset_of
from ssl_lightning.processes import ALONE
from ssl_lightning.subsets import sas as module
from ssl_lightning.subsets.latent import KMeans, Labels
from ssl_lightning.subsets.ranking import Ranking, generator, turning_points
from ssl_lightning.subsets.sas import SAS
from tests.callbacks import fitting
from tests.composing import resolved
from tests.data.synthetic import in_memory
from tests.processes import group
from tests.subsets.cutting import deviation
from tests.subsets.proxies import Toy, given
from tests.subsets.threads import Threads

RULES = ["graph_cut", "row_sum"]
TIE_BREAKS = ["smallest", "largest", "random"]
SIZES = {
    "one class": [30],
    "ragged": [1, 2, 3, 5, 19, 30],
    "singletons": [1] * 12,
    "singletons beside a large class": [1] * 20 + [20],
}


def shuffled(sizes, seed=0):
    """Labels of classes of these sizes, in random order."""
    return np.random.default_rng([seed, 2]).permutation(np.repeat(np.arange(len(sizes)), sizes))


def halves(n, seed=0):
    """Halves of integers: few of the 25 vectors in the plane occur once."""
    return np.random.default_rng([seed, 3]).integers(-2, 3, (n, 2)).astype(np.float32) / 2


def directions(n, seed=0):
    """Means of some unit vectors, no two alike."""
    z = np.random.default_rng([seed, 4]).standard_normal((n, 3, 4)) + np.array([0.6, 0, 0, 0])
    return (z / np.linalg.norm(z, axis=2, keepdims=True)).mean(1).astype(np.float32)


PROXIES = [given(Toy(None))]


def make(**options):
    defaults = {"augment": Augment([View()]), "latent": Labels(), "accelerator": "cpu"}
    return SAS(**(defaults | options))


@pytest.fixture
def features(monkeypatch):
    """Sets what the images look like to a rule."""

    def give(values):
        monkeypatch.setattr(SAS, "features", lambda self, dataset, proxy, processes=ALONE: values)

    return give


def similarities(features, threshold=0.0):
    products = features.astype(np.float64) @ features.astype(np.float64).T
    kept = np.where(products > threshold, products, 0.0)
    np.fill_diagonal(kept, 0.0)
    return kept


def cut(s, subset):
    """F(S) = Σ_{i∉S} Σ_{j∈S} s_ij."""
    inside = np.zeros(len(s), bool)
    inside[subset] = True
    return s[np.ix_(~inside, inside)].sum()


def naive(features, latent, rule, threshold, precedence):
    """Of each latent class: members in order, and their scores. Of equals, who has the least `precedence` is first."""
    orders, s = {}, similarities(features, threshold)
    for k in np.unique(latent):
        members = sorted(np.flatnonzero(latent == k).tolist(), key=lambda i: precedence[i])
        within = s[np.ix_(members, members)]
        left, taken, scores = list(range(len(members))), [], []
        while left:
            now = [] if rule == "row_sum" else taken
            gains = [cut(within, [*now, e]) - cut(within, now) for e in left]
            scores.append(max(gains))
            taken.append(left.pop(gains.index(scores[-1])))
        orders[int(k)] = [members[i] for i in taken], scores
    return orders


def by_class(ranking):
    in_order = ranking.latent_class[ranking.order]
    places = {int(k): ranking.order[in_order == k] for k in np.unique(in_order)}
    return {k: (members.tolist(), ranking.score[members].tolist()) for k, members in places.items()}


def precedence(tie_break, n, seed):
    if tie_break == "random":
        return generator(seed, "precedence").permutation(n)
    return -np.arange(n) if tie_break == "largest" else np.arange(n)


# The order within latent classes


@pytest.mark.one_in(3)
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize("tie_break", TIE_BREAKS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("threshold", [0.0, 0.5])
def test_each_class_is_ranked_as_by_definition(features, sizes, tie_break, rule, threshold):
    labels = shuffled(sizes)
    n = len(labels)
    for values in (halves(n), np.ones((n, 2), np.float32), np.zeros((n, 2), np.float32)):
        features(values)
        made = make(rule=rule, threshold=threshold, tie_break=tie_break, seed=5)
        ranking = made.rank(in_memory(labels), PROXIES)
        assert len(ranking) == n
        np.testing.assert_array_equal(ranking.latent_class, labels)
        assert by_class(ranking) == naive(values, labels, rule, threshold, precedence(tie_break, n, 5))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_so_it_is_with_real_numbers(features, rule, threshold):
    labels = shuffled(SIZES["ragged"])
    values = directions(len(labels))
    features(values)
    found = by_class(make(rule=rule, threshold=threshold).rank(in_memory(labels), PROXIES))
    expected = naive(values, labels, rule, threshold, np.arange(len(labels)))
    for k in expected:
        assert found[k][0] == expected[k][0]
        np.testing.assert_allclose(found[k][1], expected[k][1], rtol=0, atol=1e-5)


def test_a_random_order_of_equals_follows_the_seed(features):
    labels = shuffled([30, 10])
    values = halves(40)
    features(values)
    data = in_memory(labels)
    for rule in RULES:
        first, again, other = (make(rule=rule, tie_break="random", seed=seed).rank(data, PROXIES) for seed in (1, 1, 2))
        np.testing.assert_array_equal(again.order, first.order)
        assert by_class(other) != by_class(first)
    rows = [make(rule="row_sum", tie_break=tie_break).rank(data, PROXIES) for tie_break in TIE_BREAKS]
    for ranking in rows[1:]:
        np.testing.assert_array_equal(ranking.score, rows[0].score)
        found, expected = by_class(ranking), by_class(rows[0])
        assert found != expected
        assert {k: scores for k, (_, scores) in found.items()} == {k: scores for k, (_, scores) in expected.items()}


def released(embeddings, labels):
    """What the released code amounts to: sort by the sum of clipped similarities to others, ties to the largest."""
    orders = {}
    for k in np.unique(labels):
        members = np.flatnonzero(labels == k).tolist()
        sums = []
        for i in members:
            products = [float(embeddings[i] @ embeddings[j]) for j in members if j != i]
            sums.append(sum(max(product, 0.0) for product in products))
        ranked = sorted(zip(sums, members, strict=True), reverse=True)
        orders[int(k)] = [member for _, member in ranked]
    return orders


CORNERS = torch.tensor([[1.0, 1.0, 1.0, 1.0], [1.0, -1.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0], [-1.0, 1.0, 1.0, -1.0]])


def to_corner(images):
    """One of few unit vectors whose products are exact."""
    return CORNERS[images.flatten(1)[:, 0].mul(1e3).round().long() % 4] * torch.tensor([3.0, 3.0, 3.0, 3.0])


def test_the_released_order():
    labels = shuffled([25, 14, 1])
    data = in_memory(labels)
    rule, proxy = make(looks=1, rule="row_sum", tie_break="largest"), given(Toy(to_corner))
    vectors = rule.features(data, proxy)
    np.testing.assert_array_equal(np.linalg.norm(vectors, axis=1), 1)
    assert 1 < len(np.unique(vectors, axis=0)) < 5
    found = {k: members for k, (members, _) in by_class(rule.rank(data, [proxy])).items()}
    assert found == released(vectors.astype(np.float64), labels)


def test_fractions_are_nested_and_take_the_best_of_each_class(features):
    labels = shuffled([40, 30, 30])
    features(directions(100))
    ranking = make().rank(in_memory(labels), PROXIES)
    former = set()
    for fraction in (0.1, 0.37, 0.5, 0.8, 1.0):
        positions = ranking.mask(fraction).positions.tolist()
        assert len(positions) == round(100 * fraction)
        assert former <= set(positions)
        for members, _ in by_class(ranking).values():
            assert set(members[: len(set(members) & set(positions))]) <= set(positions)
        former = set(positions)


def test_latent_classes_may_be_found_in_the_features(features):
    data = in_memory(np.zeros(90, int))
    data.train()
    values = directions(90)
    features(values)
    found = [make(latent=KMeans(clusters=7), seed=seed).rank(data, PROXIES).latent_class for seed in (0, 2)]
    np.testing.assert_array_equal(found[0], KMeans(clusters=7).assign(data, values, 0))
    np.testing.assert_array_equal(found[1], KMeans(clusters=7).assign(data, values, 2))
    assert (found[0] != found[1]).any()


# Where gains turn negative


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES.keys())
def test_turning_points_are_counted(features, sizes):
    labels = shuffled(sizes) * 3 - 4  # any numbers
    features(directions(len(labels)))
    ranking = make().rank(in_memory(labels - labels.min()), PROXIES)
    expected = []
    for members, scores in by_class(ranking).values():
        negative = [i for i, score in enumerate(scores) if score < 0]
        expected.append(negative[0] / len(members) if negative else 1.0)
    assert turning_points(ranking).tolist() == expected
    assert (min(expected) < 1) == (max(sizes) > 2)


def ranked_with(scores, latent):
    order = np.argsort(-np.asarray(scores), kind="stable")
    return Ranking(order, np.asarray(latent), np.asarray(scores, float), {"rule": "sas"})


def test_turning_points_by_hand():
    scores = [5, 3, -1, -2, 0, 0, -1e-9, 7]
    found = turning_points(ranked_with(scores, [4, 4, 4, 4, 9, 9, 9, 2]))
    assert found.tolist() == [1.0, 0.5, 2 / 3]  # of the classes 2, 4, 9


def test_only_a_fraction_well_beyond_the_median_turn_is_remarked_on():
    ranking = ranked_with([9, 8, -1, -2, 7, -3, -4, -5, 6, 5, 4, -6], np.repeat([0, 1, 2], 4))
    assert turning_points(ranking).tolist() == [0.5, 0.25, 0.75]
    assert make().notice(ranking, 0.54) is None
    notice = make().notice(ranking, 0.56)
    assert notice.startswith("subset.fraction=0.56 reaches beyond 0.50, where graph_cut's gains turn negative")
    assert "\n" not in notice
    assert make().notice(ranking, None) == make().notice(ranking, 1.0) != notice
    assert make(rule="row_sum").notice(ranking, 1.0) is None
    assert make().notice(ranked_with([3, 2, 1], [0, 0, 0]), 1.0) is None


# Rankings of a part


@pytest.mark.parametrize("sizes", [[30], [1, 2, 3, 5, 19, 30], [1] * 20 + [20], [2] * 15 + [30], [40, 40]], ids=str)
@pytest.mark.parametrize("max_fraction", [0.01, 0.1, 0.3, 0.35, 0.5, 0.8])
def test_up_to_max_fraction_masks_are_those_of_the_full_ranking(features, sizes, max_fraction):
    labels = shuffled(sizes)
    data = in_memory(labels)
    for values in (halves(len(labels)), directions(len(labels))):
        features(values)
        full, part = make().rank(data, PROXIES), make(max_fraction=max_fraction).rank(data, PROXIES)
        for fraction in (max_fraction, 0.9 * max_fraction, 0.5 * max_fraction, 0.1 * max_fraction):
            for budget in ("exact", "floor"):
                if budget == "floor" and fraction * max(sizes) < 1:
                    continue
                assert part.mask(fraction, budget).digest == full.mask(fraction, budget).digest, (fraction, budget)


def test_the_part_behind_max_fraction_is_not_ranked_greedily(features):
    """Else it would cost as much."""
    features(directions(200))
    data = in_memory(np.zeros(200, int))
    full, part = make().rank(data, PROXIES), make(max_fraction=0.2).rank(data, PROXIES)
    assert part.order[:40].tolist() == full.order[:40].tolist()
    assert part.order[50:].tolist() != full.order[50:].tolist()
    assert sorted(part.order.tolist()) == list(range(200))


@pytest.mark.parametrize("budget", ["exact", "floor"])
def test_beyond_max_fraction_is_refused_with_advice(features, budget):
    features(directions(60))
    ranking = make(max_fraction=0.3).rank(in_memory(shuffled([20, 40])), PROXIES)
    ranking.mask(0.3, budget)
    with pytest.raises(UserError, match=r"subset\.fraction is 0\.4, but .* up to 0\.3.*set subset\.max_fraction=0\.4"):
        ranking.mask(0.4, budget)


def test_row_sums_are_ranked_to_the_end(features):
    features(directions(60))
    data = in_memory(shuffled([20, 40]))
    part, full = (make(max_fraction=m, rule="row_sum").rank(data, PROXIES) for m in (0.3, 1.0))
    assert part.mask(0.9).digest == full.mask(0.9).digest


# Memory


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("tie_break", TIE_BREAKS)
def test_little_memory_gives_the_same_order_and_says_beforehand_what_it_costs(
    features, monkeypatch, capfd, rule, tie_break
):
    labels = shuffled([4, 30, 21])
    features(halves(55))
    data = in_memory(labels)
    expected = make(rule=rule, tie_break=tie_break).rank(data, PROXIES)
    assert capfd.readouterr().out == ""
    said, original = [], getattr(module, rule)

    def recorded(*arguments):
        said.append(capfd.readouterr().out)
        return original(*arguments)

    monkeypatch.setattr(module, rule, recorded)
    little = make(rule=rule, tie_break=tie_break, memory_gib=100 * 4 / 2**30).rank(data, PROXIES)
    np.testing.assert_array_equal(little.order, expected.order)
    np.testing.assert_array_equal(little.score, expected.score)
    assert said[1:] == ["", ""]
    picks = r" and 51 picks" if rule == "graph_cut" else ""
    announced = (
        r"sas: 2 of 3 latent classes, the largest of 30 images, are ranked without holding all similarities "
        rf"\(subset\.memory_gib=3\.72529e-07\): 1\.3e\+03 similarities{picks}, about \d+ s\. .*\n"
    )
    assert re.fullmatch(announced, said[0])


# What identifies a ranking


@pytest.fixture
def forget():
    yield
    HydraConfig.instance().cfg = None


def not_at_all(config):
    raise AssertionError("nothing is to be trained")


def configured(*overrides):
    config = resolved("subset=sas", "paths.cache=cache", *overrides)
    subset, proxies = subset_of(config, not_at_all)
    return subset.rank.ranking_file(components.make(config["dataset"]), [proxy.digest for proxy in proxies])


@pytest.mark.one_in(4)
@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(
    "override",
    [
        "subset.rule=row_sum",
        "subset=sas_row_sum",
        "subset.threshold=0.1",
        "subset.tie_break=largest",
        "subset.max_fraction=0.5",
        "subset.looks=3",
        "subset.layer=embedding",
        "subset.seed=1",
        "subset.latent=kmeans",
        "latent@subset.latent=few_labels",
        "augment.views.0.copies=3",
        "subset.proxy=supervised",
        "subset.proxy.seed=4",
        "subset.proxy.trainer.max_epochs=3",
        "subset.proxy.batch_size=64",
        "subset.proxy.optimizer.lr=0.3",
        "subset.proxy.method.temperature=0.7",
        "subset.proxy.trainer.precision=bf16-mixed",
        "+subset.proxy.trainer.gradient_clip_val=1",
        "+subset.proxy.channels_last=false",
        "backbone.width=4",
        "trainer.max_epochs=3",
        "dataset.validation_fraction=0.5",
    ],
)
def test_what_changes_a_ranking_changes_its_file(override):
    default, changed = configured(), configured(override)
    assert changed.name != default.name
    assert changed.parent == default.parent == Path.cwd() / "cache" / "rankings"
    assert re.fullmatch(r"sas-[0-9a-f]{16}\.npz", changed.name)


@pytest.mark.one_in(6)
@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize(
    "override",
    [
        "subset.fraction=0.3",
        "subset.budget=floor",
        "subset.cache=elsewhere",
        "subset.memory_gib=0.1",
        "subset.accelerator=cpu",
        "trainer=cpu",
        "trainer=ddp_cpu",
        "trainer.enable_progress_bar=false",
        "seed=3",
        "sweep=other",
        "method=directclr",
        "optimizer=sgd",
        "evaluation.k=3",
        "checkpoint.every_steps=3",
        "paths.runs=elsewhere",
        "paths.cache=elsewhere",
        "+subset.proxy.evaluation.k=3",
        "+subset.proxy.trainer.accelerator=cpu",
        "+subset.proxy.trainer.enable_progress_bar=false",
        "+subset.proxy.paths={runs: a, data: b, cache: c}",
        "+subset.proxy.checkpoint={every_minutes: 1, every_steps: 2}",
        "+subset.proxy.callbacks.rate._target_=lightning.pytorch.callbacks.LearningRateMonitor",
        "latent@subset.latent=labels",
        "subset.proxy=simclr",
    ],
)
def test_what_cannot_change_a_ranking_keeps_its_file(override):
    assert configured(override).name == configured().name


def test_other_data_proxies_or_vectors_have_a_ranking_of_their_own(tmp_path):
    labels = shuffled([5, 6])
    paths = {
        make(cache="cache").ranking_file(in_memory(labels), ["a"]),
        make(cache="cache").ranking_file(in_memory(labels, "other"), ["a"]),
    }
    paths.add(make(cache="cache").ranking_file(in_memory(1 - labels), ["a"]))
    paths.add(make(cache="cache").ranking_file(in_memory(labels), ["other"]))
    for name, value in (("a", 1.0), ("b", 2.0), ("c", 1.0)):
        np.save(tmp_path / f"{name}.npy", np.full((11, 2), value, np.float32))
        latent = KMeans(clusters=2, file=str(tmp_path / f"{name}.npy"))
        paths.add(make(cache="cache", latent=latent).ranking_file(in_memory(labels), ["a"]))
    assert len(paths) == 4 + 2  # the file's name does not count
    assert make(cache=None).ranking_file(in_memory(labels), ["a"]) is None


# Teams


def seen(images):
    return images.flatten(1) * torch.linspace(-1, 1.5, 64)


def team_rule(folder, **options):
    """On images that are really embedded, in five latent classes."""
    crops = Augment([View(copies=2, crop_scale=(0.3, 1.0))])
    return make(augment=crops, looks=3, cache=str(folder / "cache"), **options)


def proxy_of_team():
    return [given(Toy(seen))]


def team_ranking(rank, folder, options):
    ranking = team_rule(folder, **options).ranking(fitting.dataset(200, 5), ["a"], proxy_of_team, group(rank))
    return ranking.order, ranking.score, ranking.latent_class


def left(folder):
    return {file.suffix for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("options", [{}, {"rule": "row_sum", "tie_break": "random"}, {"latent": KMeans(clusters=3)}])
def test_two_processes_rank_as_one(pair, tmp_path, options):
    alone = team_rule(tmp_path / "alone", **options).ranking(fitting.dataset(200, 5), ["a"], proxy_of_team)
    for order, score, latent in pair(team_ranking, tmp_path / "pair", options):
        np.testing.assert_array_equal(order, alone.order)
        np.testing.assert_array_equal(score, alone.score)
        np.testing.assert_array_equal(latent, alone.latent_class)
    assert left(tmp_path / "pair") == {".npz", ".npy", ".lock"}
    (ours,), (theirs,) = (list(tmp_path.glob(f"{name}/cache/features/*.npy")) for name in ("alone", "pair"))
    assert ours.name == theirs.name
    assert ours.read_bytes() == theirs.read_bytes()


def test_more_processes_than_classes(tmp_path):
    labels = shuffled([30, 12])
    data = in_memory(labels)
    data.train()
    processes = Threads(3)
    for rank in range(3):
        rule = make(cache=str(tmp_path))
        processes.start(rank, lambda member, rule=rule: rule.ranking(data, ["a"], flat_proxy, member))
    expected = make().rank(data, flat_proxy())
    for ranking in processes.join():
        np.testing.assert_array_equal(ranking.order, expected.order)


def flat_proxy():
    return [given(Toy(lambda images: images.flatten(1)))]


def test_a_team_stays_together_where_another_builds_the_ranking_meanwhile(tmp_path):
    """Its first member looks before the ranking is there, its second after."""
    data = in_memory(shuffled([30, 12]))
    rule = make(cache=str(tmp_path))
    processes, looked = Threads(2), threading.Event()
    waiting = processes.barrier.wait

    def wait(timeout):
        looked.set()
        return waiting(10)

    processes.barrier.wait = wait
    path = rule.ranking_file(data, ["a"])
    processes.start(0, lambda member: rule.ranking(data, ["a"], flat_proxy, member))
    assert looked.wait(60)
    replace(rule, cache=None).rank(data, flat_proxy()).save(path)
    processes.start(1, lambda member: rule.ranking(data, ["a"], flat_proxy, member))
    first, second = processes.join()
    assert isinstance(first, Ranking)
    np.testing.assert_array_equal(first.order, second.order)


def test_digits_have_a_ranking_of_every_position(features):
    data = Digits(name="digits", image_size=8, channels=1, num_classes=10, mean=[0.3], std=[0.4])
    images, labels = data.train()
    features(np.ascontiguousarray(images.flatten(1).numpy(), np.float32))
    ranking = make(max_fraction=0.4).rank(data, PROXIES)
    assert len(ranking) == 1257
    np.testing.assert_array_equal(ranking.latent_class, labels.numpy())
    assert ranking.provenance["max_fraction"] == 0.4
    assert deviation(ranking.mask(0.4), ranking.latent_class) < 1
