"""Quotas against naive transcriptions, on random, tied and degenerate groups and scores."""

import math
from itertools import pairwise

import numpy as np
import pytest

from ssl_lightning.errors import UserError
from ssl_lightning.subsets.density import Density
from ssl_lightning.subsets.double_end import DoubleEnd
from ssl_lightning.subsets.quota import Balanced, Hierarchical, Proportional, Ranked, keys_of
from ssl_lightning.subsets.random import Full, Random, RandomBalanced
from ssl_lightning.subsets.ranking import Ranking, generator
from ssl_lightning.subsets.rule import Subset
from ssl_lightning.subsets.strata import Strata
from tests.data.synthetic import in_memory

GROUPS = {
    "one": [40],
    "equal": [10] * 8,
    "ragged": [1, 2, 3, 50, 17, 80],
    "singletons": [1] * 23,
    "singletons beside a large group": [1] * 30 + [60],
}
QUOTAS = [
    Proportional(),
    Balanced(),
    Hierarchical(),
    Density(),
    Density(temperature=1e-3, neighbours=2),
    Strata(),
    Strata(cut=0.3, strata=4),
    DoubleEnd(),
    DoubleEnd(cut=0.4),
]
SCORES = {
    "random": lambda n: np.random.default_rng(1).standard_normal(n),
    "tied": lambda n: np.random.default_rng(1).integers(0, 4, n) / 4,
    "equal": lambda n: np.zeros(n),
}

sizes_of_groups = pytest.mark.parametrize("sizes", GROUPS.values(), ids=GROUPS.keys())
scores = pytest.mark.parametrize("score_of", SCORES.values(), ids=SCORES.keys())


def ranked(sizes, score_of=SCORES["random"], seed=0, depth=1):
    """Images in some order, in groups whose numbers are any; each level has about a third of the groups before."""
    rng = np.random.default_rng([seed, 7])
    levels = [rng.permutation(np.repeat(np.arange(len(sizes)), sizes))]
    levels += [levels[0] // 3**level for level in range(1, depth)]
    n = len(levels[0])
    order, score = rng.permutation(n), score_of(n)
    order = order[np.argsort(-score[order], kind="stable")]
    features = rng.standard_normal((n, 3)).astype(np.float32) + 3 * rng.standard_normal((len(sizes), 3))[levels[0]]
    return order, np.stack(levels, 1) * 5 - 3, score, features.astype(np.float32)


def keys(quota, sizes, score_of=SCORES["random"], seed=0, depth=1, redundant=None):
    order, levels, score, features = ranked(sizes, score_of, seed, depth)
    behind = np.zeros(len(order), bool) if redundant is None else redundant
    return keys_of(quota, order, levels, score, behind, features, seed), order, levels, score, features


def ranking_of(quota, sizes, score_of=SCORES["random"], seed=0, depth=1):
    made, order, levels, score, _ = keys(quota, sizes, score_of, seed, depth)
    return Ranking(order, levels[:, 0], score, {"seed": seed}, made)


# Each by its definition


def by_turns(order, groups, weights, ties):
    """Takes, again and again, the best that is left of the group whose (images taken + ½)/weight is least."""
    left = {k: [i for i in order if groups[i] == k] for k in weights}
    taken = []
    while any(left.values()):
        k = min(
            (k for k in left if left[k]),
            key=lambda k: ((sum(groups[i] == k for i in taken) + 0.5) / weights[k], ties[left[k][0]]),
        )
        taken.append(left[k].pop(0))
    return taken


@sizes_of_groups
@pytest.mark.parametrize("quota", [Proportional(), Balanced(), Density(), Density(temperature=0.05, neighbours=2)])
def test_groups_give_by_their_weights(sizes, quota):
    _, order, levels, _, features = keys(quota, sizes)
    groups = levels[:, 0]
    if isinstance(quota, Density):
        weights = density(features, groups, quota)
    else:
        weights = {k: (groups == k).sum() if isinstance(quota, Proportional) else 1 for k in np.unique(groups)}
    ties = generator(0, "ties").permutation(len(order))
    assert ranking_of(quota, sizes).order.tolist() == by_turns(order.tolist(), groups, weights, ties)


def density(features, groups, quota):
    """softmax(d_inter · d_intra / τ) by cosine distances, an image and a pair of centroids at a time."""
    units = [row / np.linalg.norm(row) for row in features.astype(np.float64)]
    ids = np.unique(groups).tolist()
    members = {k: [units[i] for i in np.flatnonzero(groups == k)] for k in ids}
    centroids = {k: sum(members[k]) / len(members[k]) for k in ids}

    def distance(a, b):
        return 1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    complexity = {}
    for k in ids:
        others = sorted(distance(centroids[k], centroids[other]) for other in ids if other != k)[: quota.neighbours]
        intra = sum(distance(one, centroids[k]) for one in members[k]) / len(members[k])
        complexity[k] = round(intra * sum(others) / max(len(others), 1), 6)
    powers = {k: math.exp(value / quota.temperature) for k, value in complexity.items()}
    return {k: power / sum(powers.values()) for k, power in powers.items()}


def test_groups_that_are_alike_have_the_same_density():
    """Singletons have no width, and two have the same distance from one another."""
    _, levels, score, _ = ranked([5, 5])
    for features in (np.ones((10, 2), np.float32), np.zeros((10, 2), np.float32), np.eye(10, dtype=np.float32)):
        made = Density().keys(Ranked(np.arange(10), levels, score, np.arange(10) % 5, features, 0))
        np.testing.assert_allclose(made[:5], made[5:], atol=1e-6)


def test_a_density_of_almost_nothing_keeps_the_order():
    """The logarithms of weights are far below those of the smallest numbers."""
    made, order, levels, *_ = keys(Density(temperature=1e-6), [30, 30, 30])
    assert np.isfinite(made).all()
    for k in np.unique(levels[:, 0]):
        of_group = made[[i for i in order if levels[i, 0] == k]]
        assert (np.diff(of_group) > 0).all()


def shares(wanted, node):
    """How many of so many each leaf gives: one after another, from the child that has given least and has some left."""
    if not isinstance(node, dict):
        return {node[0]: wanted}
    children, given = list(node.values()), [0] * len(node)
    for _ in range(wanted):
        able = [i for i, child in enumerate(children) if given[i] < size(child)]
        given[min(able, key=lambda i: given[i])] += 1
    return {leaf: n for child, g in zip(children, given, strict=True) for leaf, n in shares(g, child).items()}


def size(node):
    return sum(map(size, node.values())) if isinstance(node, dict) else node[1]


def tree_of(levels):
    """{top: {middle: (leaf, size)}}"""
    root: dict = {}
    for leaf, n in zip(*np.unique(levels[:, 0], return_counts=True), strict=True):
        node = root
        path = levels[levels[:, 0] == leaf][0][::-1].tolist()
        for parent in path[:-1]:
            node = node.setdefault(parent, {})
        node[path[-1]] = (path[-1], int(n))
    return root


@sizes_of_groups
@pytest.mark.parametrize("depth", [2, 3])
def test_a_tree_gives_equal_shares_from_the_top_down(sizes, depth):
    """Of every number of images, children of one parent give alike until one is used up."""
    ranking, (_, levels, *_) = ranking_of(Hierarchical(), sizes, depth=depth), ranked(sizes, depth=depth)
    for number in range(1, len(ranking) + 1):
        taken = ranking.order[:number]
        for level in range(depth):
            above = levels[:, level + 1] if level + 1 < depth else np.zeros(len(levels), int)
            for parent in np.unique(above):
                children = np.unique(levels[above == parent, level])
                counts = np.array([(levels[taken, level] == child).sum() for child in children])
                sizes_of = np.array([(levels[:, level] == child).sum() for child in children])
                unfinished = counts[counts < sizes_of]
                if len(unfinished):
                    assert counts.max() <= unfinished.min() + 1
        top = {k: int((levels[taken, -1] == k).sum()) for k in np.unique(levels[:, -1])}
        assert sorted(shares(number, {k: (k, size(node)) for k, node in tree_of(levels).items()}).values()) == sorted(
            top.values()
        )


def test_a_tree_of_one_level_is_balanced():
    np.testing.assert_array_equal(keys(Hierarchical(), GROUPS["ragged"])[0], keys(Balanced(), GROUPS["ragged"])[0])


def strata_by_hand(score, quota, draw):
    """The hardest apart; the others into boxes, which are emptied in turn."""
    n = len(score)
    worst_first = sorted(range(n), key=lambda i: (score[i], draw[i]))
    last, rest = worst_first[: int(quota.cut * n)], worst_first[int(quota.cut * n) :]
    low, high = min(score[i] for i in rest), max(score[i] for i in rest)
    boxes = {}
    for i in sorted(rest, key=lambda i: draw[i]):
        box = 0 if high == low else min(int((score[i] - low) / (high - low) * quota.strata), quota.strata - 1)
        boxes.setdefault(box, []).append(i)
    rounds = [[box[r] for box in boxes.values() if r < len(box)] for r in range(n)]
    return [set(some) for some in rounds if some] + [{i} for i in reversed(last)]


@sizes_of_groups
@scores
@pytest.mark.parametrize("quota", [Strata(), Strata(cut=0.3, strata=4), Strata(cut=0.9)])
def test_strata_give_alike_and_the_worst_come_last(sizes, score_of, quota):
    order = ranking_of(quota, sizes, score_of).order.tolist()
    score = ranked(sizes, score_of)[2]
    for expected in strata_by_hand(score, quota, generator(0, "strata").permutation(len(score))):
        assert set(order[: len(expected)]) == expected
        del order[: len(expected)]
    assert not order


def test_strata_do_not_depend_on_the_order_of_what_is_tied():
    one, other = (keys(Strata(), [50, 50], SCORES["equal"])[:3] for _ in range(2))
    backwards = keys_of(Strata(), one[1][::-1], one[2], np.zeros(100), np.zeros(100, bool), None, 0)
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(backwards, one[0])


@sizes_of_groups
@scores
@pytest.mark.parametrize("cut", [0.0, 0.3, 0.9])
def test_a_double_end_leaves_out_the_best_and_then_the_worst(sizes, score_of, cut):
    order = ranking_of(DoubleEnd(cut=cut), sizes, score_of).order.tolist()
    score = ranked(sizes, score_of)[2]
    draw = generator(0, "double_end").permutation(len(score))
    best_first = sorted(range(len(score)), key=lambda i: (-score[i], draw[i]))
    beta = int(cut * len(score))
    for size in range(1, len(score) - beta + 1):
        assert set(order[:size]) == set(best_first[beta : beta + size])
    assert order[len(score) - beta :] == best_first[:beta][::-1]


# What all have in common


@sizes_of_groups
@scores
@pytest.mark.one_in(3)
@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_masks_are_exact_nested_and_take_everything_once(sizes, score_of, quota):
    ranking = ranking_of(quota, sizes, score_of, depth=3 if isinstance(quota, Hierarchical) else 1)
    n = len(ranking)
    masks = [ranking.mask(k / n).positions.tolist() for k in range(1, n + 1)]
    assert [len(mask) for mask in masks] == list(range(1, n + 1))
    assert all(set(small) < set(large) for small, large in pairwise(masks))
    assert masks[-1] == list(range(n))


@sizes_of_groups
@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_the_best_of_each_group_come_first(sizes, quota):
    """But for those that look at the score alone."""
    if quota.needs == "scores":
        return
    given = ranked(sizes)[0]
    ranking = ranking_of(quota, sizes)
    for k in np.unique(ranking.latent_class):
        kept = [[i for i in order.tolist() if ranking.latent_class[i] == k] for order in (given, ranking.order)]
        if not isinstance(quota, Proportional):  # whose keys can be equal within a group
            assert kept[0] == kept[1]


@sizes_of_groups
def test_proportional_keys_are_those_of_a_ranking_without(sizes):
    order, levels, score, _ = ranked(sizes)
    plain = Ranking(order, levels[:, 0], score, {"seed": 0})
    np.testing.assert_array_equal(ranking_of(Proportional(), sizes).order, plain.order)


@pytest.mark.parametrize("quota", QUOTAS, ids=repr)
def test_what_is_redundant_comes_after_all_else_by_the_same_quota(quota):
    redundant = np.random.default_rng(3).random(153) < 0.3
    made, order, levels, score, features = keys(quota, GROUPS["ragged"], redundant=redundant)
    assert made[redundant].min() > made[~redundant].max()
    for some in (~redundant, redundant):
        part = order[some[order]]
        groups = levels[part, 0]
        rank = np.array([(groups[:i] == k).sum() for i, k in enumerate(groups)])
        alone = quota.keys(Ranked(part, levels[part], score[part], rank, features, 0))
        np.testing.assert_array_equal(
            np.unique(alone, return_inverse=True)[1], np.unique(made[part], return_inverse=True)[1]
        )
    none_left = keys(quota, GROUPS["ragged"], redundant=np.ones(153, bool))[0]
    np.testing.assert_array_equal(none_left, keys(quota, GROUPS["ragged"])[0])


# Rules without embeddings


def test_balanced_labels_give_alike():
    data = in_memory(np.repeat([0, 1, 2], [10, 40, 150]))
    mask = RandomBalanced(quota=Balanced(), seed=3).rank(data).mask(0.3)
    assert np.bincount(data.train().labels[mask.positions]).tolist() == [10, 25, 25]
    assert RandomBalanced(quota=Balanced()).rank(data).keys is not None
    np.testing.assert_array_equal(Random(quota=Balanced()).rank(data).order, Random().rank(data).order)


@pytest.mark.parametrize(
    ("quota", "lacking"),
    [(Strata(), "scores that"), (Density(), "embeddings of"), (Hierarchical(), "groups that form a tree")],
    ids=repr,
)
def test_what_a_rule_lacks_is_said_at_once(quota, lacking):
    with pytest.raises(UserError, match=rf"subset\.quota={quota.name} needs {lacking}.*subset=random.*Choose"):
        Random(quota=quota)


def test_a_floor_is_of_proportional_shares_alone():
    Subset(RandomBalanced(), 0.5, "floor")
    with pytest.raises(UserError, match=r"budget=floor .*subset\.quota=balanced gives\. Choose subset\.budget=exact"):
        Subset(RandomBalanced(quota=Balanced()), 0.5, "floor")
    with pytest.raises(UserError, match=r"budget=floor .* has another quota\. Choose subset\.budget=exact"):
        ranking_of(Balanced(), [4, 5]).mask(0.5, "floor")


def test_all_images_have_no_quota():
    with pytest.raises(TypeError, match="quota"):
        Full(quota=Balanced())


def test_a_quota_is_part_of_what_identifies_a_ranking():
    data = in_memory(np.arange(20) % 2)
    assert "quota" not in RandomBalanced().rank(data).provenance["parameters"]
    assert RandomBalanced(quota=Balanced()).parameters()["quota"] == {"name": "Balanced"}
