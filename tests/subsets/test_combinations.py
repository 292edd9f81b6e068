"""Any score with any groups, quota and redundancy: a permutation, nested and exact; the same by two processes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.processes import ALONE
from ssl_lightning.subsets.alignment import Alignment
from ssl_lightning.subsets.coverage import FacilityLocation
from ssl_lightning.subsets.d2 import D2
from ssl_lightning.subsets.density import Density
from ssl_lightning.subsets.grouped import GroupedRule
from ssl_lightning.subsets.herding import Herding
from ssl_lightning.subsets.hierarchy import HierarchicalKMeans
from ssl_lightning.subsets.k_center import KCenter
from ssl_lightning.subsets.knn_density import Density as NeighbourDensity
from ssl_lightning.subsets.latent import FewLabels, KMeans, Labels, One
from ssl_lightning.subsets.prototypes import Prototypes
from ssl_lightning.subsets.quota import Balanced, Hierarchical
from ssl_lightning.subsets.random_in_groups import RandomInGroups
from ssl_lightning.subsets.ranking import Ranking
from ssl_lightning.subsets.redundancy import SemDeDup
from ssl_lightning.subsets.rule import Subset
from ssl_lightning.subsets.sas import SAS
from ssl_lightning.subsets.strata import Strata
from tests.callbacks import fitting
from tests.data.synthetic import in_memory
from tests.processes import group
from tests.subsets.proxies import Toy, given

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(4), [3, 10, 17, 30]))
N = len(LABELS)
COPIES = 7
"""The last images are almost the first, so that something is redundant."""
PROXIES = [given(Toy(None))]

SCORES = {
    "sas": (SAS, {}),
    "sas up to a third": (SAS, {"max_fraction": 0.34}),
    "row sum": (SAS, {"rule": "row_sum", "tie_break": "random"}),
    "prototypes": (Prototypes, {}),
    "hardest of all": (Prototypes, {"keep": "hardest", "balanced": False}),
    "middle": (Prototypes, {"keep": "middle"}),
    "random": (RandomInGroups, {}),
    "density": (NeighbourDensity, {"neighbours": 3}),
    "alignment": (Alignment, {"keep": "hardest"}),
    "coverage": (FacilityLocation, {}),
    "farthest first": (KCenter, {}),
    "herding": (Herding, {}),
    "d2": (D2, {"neighbours": 3}),
}
UNSCORED = (RandomInGroups, Herding)
LATENT = [Labels(), KMeans(clusters=5), FewLabels(percent=20.0), One(), HierarchicalKMeans(clusters=[9, 3])]
QUOTAS = [None, Balanced(), Density(), Hierarchical(), Strata(cut=0.2, strata=5)]
REDUNDANCIES = [None, SemDeDup(epsilon=0.02)]


def vectors():
    rng = np.random.default_rng(1)
    made = rng.standard_normal((N, 6)) + 2 * rng.standard_normal((4, 6))[LABELS]
    made[-COPIES:] = made[:COPIES] * (1 + 1e-3 * rng.standard_normal((COPIES, 6)))
    return made.astype(np.float32)


@pytest.fixture(autouse=True)
def features(monkeypatch):
    def give(values):
        def features(self, dataset, proxy, processes=ALONE):
            dataset.train()
            return values

        monkeypatch.setattr(GroupedRule, "features", features)

    give(vectors())
    return give


def make(kind, **options):
    return kind(augment=Augment([View()]), accelerator="cpu", seed=3, **options)


def possible(score, latent, quota):
    kind, options = SCORES[score]
    if isinstance(quota, Strata):
        return kind not in UNSCORED
    return not isinstance(quota, Hierarchical) or (latent.depth > 1 and options.get("balanced", True))


ALL = [some for some in itertools.product(SCORES, LATENT, QUOTAS, REDUNDANCIES) if possible(*some[:3])]


@pytest.mark.one_in(18)
@pytest.mark.parametrize(("score", "latent", "quota", "redundancy"), ALL, ids=str)
def test_every_combination_ranks_every_image_once(score, latent, quota, redundancy):
    kind, options = SCORES[score]
    rule = make(kind, latent=latent, quota=quota, redundancy=redundancy, **options)
    ranking = rule.rank(in_memory(LABELS), PROXIES)
    assert sorted(ranking.order.tolist()) == list(range(N))
    last = int(N * ranking.max_fraction)
    masks = [set(ranking.mask(k / N).positions.tolist()) for k in range(1, last + 1)]
    assert [len(mask) for mask in masks] == list(range(1, last + 1))
    assert all(small < large for small, large in itertools.pairwise(masks))
    assert ranking.provenance.get("redundant", 0) == (0 if redundancy is None else N - first_redundant(rule, ranking))


def first_redundant(rule, ranking):
    """Redundant images are the last; which they are is found again, group by group."""
    latent = rule.groups.assign(in_memory(LABELS), vectors(), rule.seed)
    found = np.zeros(N, bool)
    for k in np.unique(latent):
        found[latent == k] = rule.redundancy.redundant(torch_of(vectors()[latent == k]))
    places = np.flatnonzero(found[ranking.order])
    assert places.tolist() == list(range(N - len(places), N))
    return N - len(places)


def torch_of(values):
    import torch

    return torch.from_numpy(values)


@pytest.mark.parametrize("latent", LATENT, ids=repr)
def test_groups_of_equals_and_of_one(features, latent):
    for values in (np.ones((N, 6), np.float32), np.zeros((N, 6), np.float32)):
        features(values)
        quota = Hierarchical() if latent.depth > 1 else Density()
        if latent.depth == 1 and not isinstance(latent, KMeans):  # whose clusters would be fewer than asked for
            rule = make(SAS, latent=latent, quota=quota, redundancy=SemDeDup())
            assert sorted(rule.rank(in_memory(LABELS), PROXIES).order.tolist()) == list(range(N))


@pytest.mark.parametrize("score", SCORES)
def test_what_needs_what_the_rule_lacks_is_refused_at_once(score):
    kind, options = SCORES[score]
    with pytest.raises(UserError, match=r"hierarchical needs groups that form a tree, .* latent@subset\.latent=hier"):
        make(kind, latent=Labels(), quota=Hierarchical(), **options)
    if kind in UNSCORED:
        with pytest.raises(UserError, match=f"strata needs scores that can be compared, which subset={kind.name}"):
            make(kind, latent=Labels(), quota=Strata(), **options)


def test_planted_duplicates_come_last_and_are_counted():
    plain, without = (
        make(SAS, latent=One(), redundancy=redundancy).rank(in_memory(LABELS), PROXIES)
        for redundancy in (None, SemDeDup(epsilon=0.001))
    )
    pairs = [{i, N - COPIES + i} for i in range(COPIES)]
    last = set(without.order[-COPIES:].tolist())
    assert all(len(pair & last) == 1 for pair in pairs)
    assert without.order[:-COPIES].tolist() == [i for i in plain.order.tolist() if i not in last]
    rule = make(Prototypes, redundancy=SemDeDup(epsilon=0.001))
    assert rule.notice(without, 0.5) == (
        f"subset.redundancy=semdedup: {COPIES} of {N} images are redundant, and come last; this subset has 0 of them."
    )
    assert rule.notice(without, (N - 2) / N).endswith(f"this subset has {COPIES - 2} of them.")
    assert rule.notice(plain, 1.0) is None
    assert make(SAS, redundancy=SemDeDup()).notice(without, 1.0).startswith("subset.redundancy=semdedup: ")
    with pytest.raises(UserError, match=r"budget=floor .* subset\.redundancy=semdedup some come after all groups"):
        Subset(make(SAS, latent=One(), redundancy=SemDeDup()), 0.5, "floor")


def test_balanced_groups_give_alike():
    ranking = make(SAS, latent=Labels(), quota=Balanced()).rank(in_memory(LABELS), PROXIES)
    assert np.bincount(LABELS[ranking.mask(0.5).positions]).tolist() == [3, 9, 9, 9]
    plain = make(SAS, latent=Labels()).rank(in_memory(LABELS), PROXIES)
    for k in range(4):  # in the order of their groups
        orders = [one.order[LABELS[one.order] == k].tolist() for one in (ranking, plain)]
        assert orders[0] == orders[1]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("redundancy", REDUNDANCIES, ids=repr)
@pytest.mark.parametrize("quota", [*QUOTAS, Density(temperature=0.001)], ids=repr)
@pytest.mark.parametrize("max_fraction", [0.02, 0.3, 0.6])
def test_up_to_max_fraction_masks_are_those_of_the_full_ranking(quota, redundancy, max_fraction):
    latent = HierarchicalKMeans(clusters=[9, 3])
    full = make(SAS, latent=latent, quota=quota, redundancy=redundancy)
    part = replace(full, max_fraction=max_fraction)
    full, part = (rule.rank(in_memory(LABELS), PROXIES) for rule in (full, part))
    for fraction in (max_fraction, 0.7 * max_fraction, 0.1 * max_fraction):
        assert part.mask(fraction).digest == full.mask(fraction).digest


def test_a_quota_is_followed_by_what_is_ranked_greedily():
    """A class of 30 of 60 that gives as much as each of ten small ones needs no more picks than these."""
    seen = {}

    class Watching(SAS):
        def order_of(self, group):
            seen[len(group.members)] = group.picks
            return super().order_of(group)

    labels = np.repeat(np.arange(11), [3] * 10 + [30])
    for quota, expected in ((None, 5), (Balanced(), 1)):
        seen.clear()
        watching = Watching(
            augment=Augment([View()]), accelerator="cpu", latent=Labels(), quota=quota, max_fraction=0.1
        )
        watching.rank(in_memory(labels), PROXIES)
        assert seen[30] == expected


# Keys on disk


def test_a_ranking_with_keys_survives_the_disk(tmp_path):
    ranking = make(SAS, latent=Labels(), quota=Balanced()).rank(in_memory(LABELS), PROXIES)
    ranking.save(tmp_path / "ranking.npz")
    loaded = Ranking.load(tmp_path / "ranking.npz", ranking.fingerprint)
    for key in ("order", "latent_class", "score", "keys"):
        np.testing.assert_array_equal(getattr(loaded, key), getattr(ranking, key))
    with np.load(tmp_path / "ranking.npz") as arrays:
        assert '"format": 2' in str(arrays["provenance"])  # which former versions refuse
        content = dict(arrays)
    del content["keys"]
    np.savez(tmp_path / "ranking.npz", **content)
    with pytest.raises(UserError, match="no readable ranking"):
        Ranking.load(tmp_path / "ranking.npz", None)


def test_a_ranking_without_keys_is_written_as_ever(tmp_path):
    make(SAS, latent=Labels()).rank(in_memory(LABELS), PROXIES).save(tmp_path / "ranking.npz")
    with np.load(tmp_path / "ranking.npz") as arrays:
        assert arrays.files == ["order", "latent_class", "score", "provenance"]
        assert '"format": 1' in str(arrays["provenance"])


# Teams


OF_TEAMS = [
    (SAS, {"quota": Balanced(), "redundancy": SemDeDup(epsilon=0.02)}),
    (Prototypes, {"quota": Density(), "redundancy": SemDeDup(epsilon=0.02)}),
    (RandomInGroups, {"latent": HierarchicalKMeans(clusters=[9, 3]), "quota": Hierarchical()}),
]


def team_rule(folder, kind, options):
    return kind(augment=Augment([View(copies=2)]), accelerator="cpu", looks=2, cache=str(folder / "cache"), **options)


def seen(images):
    return images.flatten(1)


def proxy_of_team():
    return [given(Toy(seen))]


def team_ranking(rank, folder, kind, options):
    ranking = team_rule(folder, kind, options).ranking(fitting.dataset(120, 4), ["a"], proxy_of_team, group(rank))
    return ranking.order, ranking.score, ranking.keys, ranking.provenance.get("redundant")


@pytest.fixture
def really(monkeypatch):
    """Images are really embedded."""
    monkeypatch.undo()


@pytest.mark.usefixtures("really")
@pytest.mark.parametrize(("kind", "options"), OF_TEAMS, ids=lambda value: getattr(value, "__name__", ""))
def test_two_processes_rank_as_one(pair, tmp_path, kind, options):
    alone = team_rule(tmp_path / "alone", kind, options).ranking(fitting.dataset(120, 4), ["a"], proxy_of_team)
    for order, score, keys, redundant in pair(team_ranking, tmp_path / "pair", kind, options):
        np.testing.assert_array_equal(order, alone.order)
        np.testing.assert_array_equal(score, alone.score)
        np.testing.assert_array_equal(keys, alone.keys)
        assert redundant == alone.provenance.get("redundant")
    assert {file.suffix for file in tmp_path.rglob("*") if file.is_file()} == {".npz", ".npy", ".lock"}
