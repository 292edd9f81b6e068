"""Scores of difficulty: closed forms, and a loop of ordinary backward passes; and the rankings made of them."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_lightning.data.loading import normalise
from ssl_lightning.data.pseudo_labels import PseudoLabels
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.subsets.density import Density
from ssl_lightning.subsets.difficulty import EL2N, GraNd, el2n, grand
from ssl_lightning.subsets.double_end import DoubleEnd
from ssl_lightning.subsets.forgetting import Forgetting, ForgettingEvents
from ssl_lightning.subsets.hierarchy import HierarchicalKMeans
from ssl_lightning.subsets.latent import KMeans
from ssl_lightning.subsets.quota import Hierarchical
from ssl_lightning.subsets.random_in_groups import RandomInGroups
from ssl_lightning.subsets.redundancy import SemDeDup
from tests.callbacks import fitting
from tests.subsets.proxies import Toy, given


def test_el2n_is_its_definition():
    logits = torch.randn(20, 5, generator=torch.Generator().manual_seed(0)) * 4
    labels = torch.arange(20) % 5
    expected = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = sum(math.exp(z) for z in row)
        error = [math.exp(z) / total - (k == label) for k, z in enumerate(row)]
        expected.append(math.sqrt(sum(e * e for e in error)))
    score = el2n(logits, labels)
    assert score.dtype == torch.float64
    torch.testing.assert_close(score, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_el2n_lies_between_sure_and_right_and_sure_and_wrong():
    logits = torch.tensor([[900.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 900.0, 0.0, 0.0]])
    score = el2n(logits, torch.zeros(3, dtype=torch.int64))
    assert score.tolist() == pytest.approx([0, math.sqrt(1 - 1 / 4), math.sqrt(2)], rel=1e-15)


class Flat(nn.Module):
    """No parameters: the representation is the image."""

    num_features = 12

    def forward(self, images):
        return images.flatten(1)


def images_of(n, channels, size):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(n, channels, size, size, generator=generator, dtype=torch.float64), torch.arange(n) % 4


def test_grand_of_a_linear_model_is_el2n_times_the_length_of_its_input():
    """The gradient is (p − onehot)(x, 1)ᵀ."""
    torch.manual_seed(0)
    method = Supervised(Flat(), 4).double()
    images, labels = images_of(9, 3, 2)
    logits = method.project(method(images)).detach()
    expected = el2n(logits, labels) * (images.flatten(1).square().sum(1) + 1).sqrt()
    torch.testing.assert_close(grand(method, images, labels, chunk=4), expected, rtol=1e-12, atol=0)


@pytest.fixture(scope="module")
def network():
    """With running statistics of its own, a part that is not trained, and gradients left over."""
    torch.manual_seed(0)
    method = Supervised(resnet_tiny(channels=1, width=4, zero_init_residual=False), 4).double()
    images, labels = images_of(6, 1, 8)
    method.train()
    F.cross_entropy(method.project(method(3 * images + 1)), labels).backward()
    method.backbone.conv1.requires_grad_(False)
    return method, images, labels


def test_grand_is_the_norm_of_each_sample_s_gradient(network):
    method, images, labels = network
    scores = grand(method, images, labels, chunk=6)
    single = copy.deepcopy(method).eval()
    for score, image, label in zip(scores, images, labels, strict=True):
        single.zero_grad()
        F.cross_entropy(single.project(single(image[None])), label[None]).backward()
        squares = [p.grad.square().sum() for p in single.parameters() if p.requires_grad]
        torch.testing.assert_close(score, sum(squares).sqrt(), rtol=1e-10, atol=0)
    assert scores.std() > 0.01 * scores.mean()
    for chunk in (1, 4, 100):
        torch.testing.assert_close(grand(method, images, labels, chunk), scores, rtol=1e-10, atol=0)
    whole = copy.deepcopy(method).requires_grad_(True)
    assert (grand(whole, images, labels, chunk=6) > scores).all()


def test_grand_leaves_everything_as_it_was(network):
    method, images, labels = network

    def state():
        gradients = [torch.zeros(0) if p.grad is None else p.grad for p in method.parameters()]
        trained = torch.tensor([p.requires_grad for p in method.parameters()])
        return [x.clone() for x in (*method.state_dict().values(), *gradients, trained, torch.get_rng_state())]

    before = state()
    grand(method, images, labels, chunk=4)
    assert all(torch.equal(a, b) for a, b in zip(state(), before, strict=True))
    assert any(p.grad is not None for p in method.parameters())


# Rankings


def classifier(seed):
    torch.manual_seed(seed)
    return Toy(nn.Flatten(), nn.Linear(64, 3), classifies=True)


def difficulties(score, *methods):
    """Of each image of the tiny dataset, for each classifier, one image at a time."""
    images, labels = fitting.dataset().train()
    mean, std = torch.tensor([0.4]), torch.tensor([0.3])
    values = []
    for method in methods:
        parts = [score(method, normalise(images[i : i + 1], mean, std), labels[i : i + 1]) for i in range(len(labels))]
        values.append(torch.cat(parts).detach().numpy())
    return np.stack(values)


def el2n_of(method, images, labels):
    return el2n(method.project(method(images)), labels)


def grand_of(method, images, labels):
    return grand(method.requires_grad_(True), images, labels, 1)


def proxies(*methods, checkpoints=({}, {}, {}), **options):
    runs = zip(methods, "abc", checkpoints, strict=False)
    return [given(method, digest, (0.4,), (0.3,), checkpoint=state, **options) for method, digest, state in runs]


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("rule", "score"), [(EL2N, el2n_of), (GraNd, grand_of)])
@pytest.mark.parametrize("runs", [1, 3])
@pytest.mark.parametrize("balanced", [True, False])
def test_a_ranking_is_by_the_mean_difficulty_over_runs(rule, score, runs, balanced):
    methods = [classifier(seed) for seed in range(3)]
    expected = difficulties(score, *methods[:runs]).mean(0)
    labels = fitting.dataset().train().labels.numpy()
    for keep, sign in (("easiest", -1), ("hardest", 1)):
        made = rule(runs=runs, keep=keep, balanced=balanced, accelerator="cpu")
        assert made.needs() == runs
        ranking = made.rank(fitting.dataset(), proxies(*methods[:runs]))
        assert ranking.provenance["content"] == "a-b-c"[: 2 * runs - 1]
        np.testing.assert_allclose(ranking.score, sign * expected, rtol=1e-5)
        groups = labels if balanced else np.zeros(48)
        np.testing.assert_array_equal(ranking.latent_class, groups)
        for k in np.unique(groups):
            members = ranking.order[groups[ranking.order] == k]
            assert (np.diff(sign * ranking.score[members]) * sign <= 0).all()


def test_the_hardest_are_the_easiest_backwards_up_to_ties():
    class Coarse(nn.Module):
        def forward(self, representations):
            return (representations[:, :3] * 2).round() * 40  # 0, or almost 1, or √2

    made, runs = EL2N(balanced=False, accelerator="cpu"), proxies(Toy(nn.Flatten(), Coarse(), classifies=True))
    easiest, hardest = (replace(made, keep=keep).rank(fitting.dataset(), runs) for keep in ("easiest", "hardest"))
    np.testing.assert_array_equal(hardest.score, -easiest.score)
    values = hardest.score[hardest.order]
    assert 1 < len(np.unique(values)) < 20
    np.testing.assert_array_equal(values, hardest.score[easiest.order[::-1]])
    # Ties are in an order that the seed draws, and do not follow the positions.
    again, other = (replace(made, seed=seed).rank(fitting.dataset(), runs) for seed in (0, 1))
    np.testing.assert_array_equal(again.order, easiest.order)
    assert not np.array_equal(other.order, easiest.order)
    np.testing.assert_array_equal(other.score[other.order], easiest.score[easiest.order])
    value, counts = np.unique(values, return_counts=True)
    equals = easiest.order[hardest.score[easiest.order] == value[counts.argmax()]]
    assert len(equals) > 3
    assert not (np.diff(equals) > 0).all()


def test_a_ranking_is_identified_by_the_proxy_of_each_run():
    data = fitting.dataset()

    def path(rule=EL2N, digests=("a", "b", "c"), **options):
        made = rule(cache="cache", **options)
        return made.ranking_file(data, digests[: made.needs()])

    assert EL2N(runs=3).provenance(data, "abc")["content"] == "a-b-c"
    assert EL2N(runs=1).provenance(data, "a")["content"] == "a"
    assert path(runs=2) == path(runs=2, digests=("a", "b", "other")) != path(runs=2, digests=("a", "other", "c"))
    changes = [{"runs": 2}, {"keep": "hardest"}, {"balanced": False}, {"seed": 1}, {"rule": GraNd}]
    assert len({path(), *(path(**change) for change in changes)}) == 1 + len(changes)
    assert path(accelerator="cpu") == path()
    assert path(rule=GraNd, chunk=3) == path(rule=GraNd)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_chunks_change_nothing_but_rounding(chunk):
    made, runs = GraNd(accelerator="cpu"), proxies(classifier(0))
    expected = made.rank(fitting.dataset(), runs).score
    np.testing.assert_allclose(replace(made, chunk=chunk).rank(fitting.dataset(), runs).score, expected, rtol=1e-6)


def test_proxies_are_asked_for_where_the_ranking_is_missing(tmp_path):
    data, rule = fitting.dataset(), EL2N(runs=3, cache=str(tmp_path), accelerator="cpu")
    loaded = []

    def load():
        loaded.append(True)
        return proxies(*(classifier(seed) for seed in range(3)))

    first = rule.ranking(data, ["a", "b", "c"], load)
    again = rule.ranking(data, ["a", "b", "c"], load)
    np.testing.assert_array_equal(again.order, first.order)
    assert loaded == [True]


@pytest.mark.parametrize("rule", [EL2N, GraNd, Forgetting])
def test_a_proxy_that_does_not_classify(rule):
    made = rule(accelerator="cpu")
    with pytest.raises(UserError, match=rf"subset={rule.name} asks a classifier, but subset\.proxy is Toy\. Choose"):
        made.rank(fitting.dataset(), proxies(Toy(nn.Flatten())))


@pytest.mark.parametrize("rule", [EL2N, GraNd, Forgetting])
def test_a_classifier_of_other_data(rule):
    """Its classes are others, even where they are as many."""
    made = rule(accelerator="cpu")
    with pytest.raises(UserError, match=rf"subset={rule.name} asks a classifier of tiny, but .* trained on other\."):
        made.rank(fitting.dataset(), proxies(classifier(0), name="other"))


# Groups as labels


class Halves(Toy):
    """Sees of an image its mean above and below, so that clusters are neither labels nor single images."""

    def __init__(self):
        super().__init__(
            lambda images: torch.stack([images[:, :, :4].mean((1, 2, 3)), images[:, :, 4:].mean((1, 2, 3))], 1)
        )


def grouping(latent=None, redundancy=None):
    views = Augment([View()])
    latent = latent or KMeans(clusters=4)
    return RandomInGroups(latent=latent, redundancy=redundancy, augment=views, looks=1, accelerator="cpu")


def learners(tmp_path, groups, *methods):
    """An embedder, and classifiers that have learnt the groups by its embeddings; and these groups."""
    data, embedder = fitting.dataset(), given(Halves(), "e", (0.4,), (0.3,))
    levels = groups.groups.group(data, groups.features(data, embedder), groups.seed).levels
    labels = PseudoLabels(name="groups", folder=str(tmp_path))
    np.save(labels.file, levels)
    described = {"_target_": f"{PseudoLabels.__module__}.PseudoLabels", "name": "groups", "folder": str(tmp_path)}
    found = proxies(*methods)
    for proxy in found:
        proxy.config["dataset"]["pseudo_labels"] = described
    return [embedder, *found], levels


def four(seed):
    torch.manual_seed(seed)
    return Toy(nn.Flatten(), nn.Linear(64, 4), classifies=True)


@pytest.mark.parametrize(("rule", "score"), [(EL2N, el2n_of), (GraNd, grand_of)])
def test_groups_are_ranked_as_if_they_were_the_labels(tmp_path, rule, score):
    """No label of the dataset has any influence."""
    methods = [four(seed) for seed in range(2)]
    given_proxies, levels = learners(tmp_path, grouping(), *methods)
    relabelled = fitting.dataset()
    relabelled.labels = levels[:, 0]
    relabelled.num_classes = 4
    expected = rule(runs=2, accelerator="cpu").rank(relabelled, proxies(*methods))
    unlabelled = fitting.dataset()
    unlabelled.labels = np.array([0, 1, 2, *[-1] * 45])
    made = rule(runs=2, accelerator="cpu", pseudo_labels=grouping())
    made.check_dataset(unlabelled)
    ranking = made.rank(unlabelled, given_proxies)
    np.testing.assert_allclose(ranking.score, expected.score, rtol=1e-12)
    np.testing.assert_array_equal(ranking.order, expected.order)
    np.testing.assert_array_equal(ranking.latent_class, levels[:, 0])
    assert ranking.provenance["content"] == "e-a-b"
    assert ranking.provenance["parameters"]["pseudo_labels"]["latent"]["clusters"] == 4


def test_what_is_redundant_by_the_embeddings_comes_last(tmp_path):
    groups = grouping(redundancy=SemDeDup(epsilon=1e-3))
    given_proxies, levels = learners(tmp_path, groups, four(0))
    ranking = EL2N(accelerator="cpu", pseudo_labels=groups).rank(fitting.dataset(), given_proxies)
    features = torch.from_numpy(groups.features(fitting.dataset(), given_proxies[0]))
    expected = set()
    for k in range(4):
        members = np.flatnonzero(levels[:, 0] == k)
        expected |= set(members[groups.redundancy.redundant(features[members])].tolist())
    assert 0 < len(expected) < 40
    assert ranking.provenance["redundant"] == len(expected)
    assert set(ranking.order[-len(expected) :].tolist()) == expected


@pytest.mark.parametrize("quota", [Hierarchical(), Density(neighbours=2), DoubleEnd()])
def test_groups_bring_what_quotas_need(tmp_path, quota):
    latent = HierarchicalKMeans(clusters=[4, 2])
    given_proxies, levels = learners(tmp_path, grouping(latent), four(0))
    made = EL2N(accelerator="cpu", pseudo_labels=grouping(latent), quota=quota)
    ranking = made.rank(fitting.dataset(), given_proxies)
    assert sorted(ranking.order.tolist()) == list(range(48))
    if quota.needs == "tree":
        counts = [np.bincount(levels[ranking.order[:size], 1], minlength=2) for size in (4, 8)]
        assert all(abs(a - b) <= 1 for a, b in counts)
    if quota.needs != "scores":
        with pytest.raises(UserError, match=rf"subset\.quota={quota.name} needs"):
            EL2N(accelerator="cpu", quota=quota)


@pytest.mark.parametrize("learnt", ["labels", "others"])
def test_a_classifier_that_has_learnt_other_classes(tmp_path, learnt):
    made = EL2N(runs=2, accelerator="cpu", pseudo_labels=grouping())
    (embedder, one, other), _ = learners(tmp_path, grouping(), four(0), four(1))
    if learnt == "labels":
        del one.config["dataset"]["pseudo_labels"]
    else:
        one.config["dataset"]["pseudo_labels"] = one.config["dataset"]["pseudo_labels"] | {"name": "others"}
    with pytest.raises(
        UserError, match=r"asks classifiers of the groups of subset\.pseudo_labels, but .* other classes"
    ):
        made.rank(fitting.dataset(), [embedder, one, other])


# Forgetting


def counts(events, learned):
    state = {"events": torch.tensor(events), "learned": torch.tensor(learned)}
    return {"callbacks": {ForgettingEvents().state_key: state}}


def test_what_was_never_learned_is_hardest_and_events_decide_the_rest():
    """48 images: image i is forgotten i % 5 times in the one run, 2 · (i % 5) in the other; some are never learned."""
    events = np.arange(48) % 5
    learned = np.arange(48) % 7 > 0
    states = [counts(events.tolist(), learned.tolist()), counts((2 * events).tolist(), [True] * 48)]
    made, runs = Forgetting(runs=2), proxies(classifier(0), classifier(1), checkpoints=states, max_epochs=30)
    ranking = made.rank(fitting.dataset(), runs)
    np.testing.assert_array_equal(ranking.score, -(np.where(learned, events, 30) + 2 * events) / 2)
    hardest = replace(made, keep="hardest", balanced=False).rank(fitting.dataset(), runs)
    assert set(hardest.order[:7].tolist()) == set(np.flatnonzero(~learned).tolist())
    assert str(ranking.score[5]) == "0.0"  # not -0.0


def test_a_run_that_did_not_count():
    for checkpoint in ({"callbacks": {}}, {}):
        runs = proxies(classifier(0), checkpoints=(checkpoint,))
        with pytest.raises(UserError, match=r"did not count forgetting events\. Train it with \+callbacks\.forgetting"):
            Forgetting().rank(fitting.dataset(), runs)


def test_a_run_that_counted_on_other_images():
    runs = proxies(classifier(0), checkpoints=(counts([0] * 50, [True] * 50),))
    with pytest.raises(UserError, match=r"of 50 images, but tiny has 48 for training\. Choose a run on the same"):
        Forgetting().rank(fitting.dataset(), runs)
