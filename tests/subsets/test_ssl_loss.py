"""The loss of each image under a proxy: its definition, batch by batch, and what must not change it."""

import numpy as np
import pytest
import torch

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.byol import BYOL
from ssl_lightning.methods.vicreg import VICReg
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import linear
from ssl_lightning.subsets.latent import Labels, One
from ssl_lightning.subsets.ssl_loss import SSLLoss, parts_of
from tests.callbacks import fitting
from tests.subsets.proxies import given
from tests.subsets.threads import Threads

VIEWS = Augment([View(copies=2, crop_scale=(0.4, 1.0), flip_probability=0.5)])


def make(**options):
    defaults = {"augment": VIEWS, "latent": One(), "accelerator": "cpu", "looks": 1, "batch_size": 20, "rounds": 2}
    return SSLLoss(**(defaults | options))


def byol():
    torch.manual_seed(0)
    return BYOL(resnet_tiny(channels=1, width=4), linear, linear)


# Batches


@pytest.mark.parametrize(("n", "size"), [(1, 2), (2, 2), (7, 3), (48, 20), (48, 48), (48, 100), (100, 33)])
def test_each_round_holds_each_image_once(n, size):
    parts = parts_of(n, 3, size, 5)
    assert [part.number for part in parts] == list(range(len(parts)))
    joined = torch.cat([part.positions for part in parts]).view(3, n)
    assert (joined.sort(1).values == torch.arange(n)).all()
    sizes = [len(part.positions) for part in parts]
    assert max(sizes) <= size
    assert max(sizes) - min(sizes) <= 1
    assert [part.start for part in parts] == np.cumsum([0, *sizes[:-1]]).tolist()
    if n > 10:
        assert not torch.equal(joined[0], joined[1])


# The definition


@pytest.mark.parametrize("method", [fitting.method, byol], ids=["simclr", "byol"])
def test_it_is_the_mean_of_the_losses_of_its_batches(method):
    data, proxy, rule = fitting.dataset(), given(method()), make(seed=3)
    split, total = data.train(), np.zeros(48)
    for part in parts_of(48, 2, 20, 3):
        generator = torch.Generator().manual_seed(seed_of("loss views", 3, part.number))
        views = VIEWS(split.images[part.positions], torch.tensor([0.5]), torch.tensor([0.25]), generator)
        with torch.no_grad():
            batch = Batch(tuple(views), split.labels[part.positions], part.positions)
            objective = proxy.method.ssl_loss(batch, LOCAL, Draw(3, part.number))
        torch.testing.assert_close(objective.image_losses.mean(), objective.loss)
        total[part.positions] += objective.image_losses.numpy()
    ranking = rule.rank(data, [proxy])
    np.testing.assert_allclose(ranking.score, -total / 2, rtol=1e-5)
    assert (np.diff(ranking.score[ranking.order]) <= 0).all()


def test_the_hardest_are_the_easiest_backwards_and_groups_change_no_loss():
    data, proxies = fitting.dataset(), [given(fitting.method())]
    easiest, hardest = (make(keep=keep).rank(data, proxies) for keep in ("easiest", "hardest"))
    np.testing.assert_array_equal(hardest.score, -easiest.score)
    np.testing.assert_array_equal(hardest.order, easiest.order[::-1])
    np.testing.assert_array_equal(make(latent=Labels()).rank(data, proxies).score, easiest.score)


# Teams


def test_three_processes_give_what_one_gives(tmp_path):
    data = fitting.dataset()
    data.train()
    expected = make(latent=Labels()).rank(data, [given(fitting.method())])
    team = Threads(3)
    for rank in range(3):
        rule = make(latent=Labels(), cache=str(tmp_path))
        proxies = [given(fitting.method())]
        team.start(rank, lambda member, rule=rule, proxies=proxies: rule.ranking(data, ["a"], lambda: proxies, member))
    for ranking in team.join():
        np.testing.assert_array_equal(ranking.order, expected.order)
        np.testing.assert_array_equal(ranking.score, expected.score)
    assert not list(tmp_path.rglob("*.part"))


# Refusals


def test_a_method_without_a_loss_of_each_image_is_refused():
    proxy = given(VICReg(resnet_tiny(channels=1, width=4), linear))
    with pytest.raises(UserError, match="VICReg has only one of a whole batch"):
        make().rank(fitting.dataset(), [proxy])


def test_too_few_views_are_refused():
    with pytest.raises(UserError, match="gives 1 view of an image, but SimCLR needs at least 2"):
        make(augment=Augment([View()])).rank(fitting.dataset(), [given(fitting.method())])


def test_losses_that_are_not_finite_are_refused():
    method = fitting.method()
    with torch.no_grad():
        next(method.projector.parameters()).fill_(torch.nan)
    with pytest.raises(UserError, match="losses that are not finite"):
        make().rank(fitting.dataset(), [given(method)])


def test_what_identifies_a_ranking():
    default = make(cache="cache").ranking_file(fitting.dataset(), ["a"])
    for options in ({"rounds": 3}, {"batch_size": 21}, {"keep": "hardest"}, {"seed": 1}):
        assert make(cache="cache", **options).ranking_file(fitting.dataset(), ["a"]) != default
    quick = make(rounds=4).for_fast_dev_run()
    assert (quick.rounds, quick.cache) == (1, None)
