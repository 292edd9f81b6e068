"""What is decayed, and how the learning rate runs."""

import functools
import itertools

import pytest
import torch
from torch import nn

from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.recipe import OptimizerRecipe, ParameterGroup
from ssl_lightning.optim.schedule import Schedule


class Around(SSLMethod):
    """A method of which only the parameters matter."""

    def __init__(self, module) -> None:
        super().__init__()
        self.module = module

    def ssl_loss(self, batch, gather, draw):
        raise NotImplementedError


def groups(module) -> list[ParameterGroup]:
    return Around(module).parameter_groups()


def recipe(algorithm=torch.optim.SGD, **settings) -> OptimizerRecipe:
    return OptimizerRecipe(**({"algorithm": algorithm, "lr": 1.0, "batch_size": 256} | settings))


def test_biases_and_norms_are_excluded():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimizer, _ = recipe(functools.partial(LARS, momentum=0.9), weight_decay=0.1).build(groups(module), 10, 100)
    decayed, excluded = optimizer.param_groups
    assert [p.shape for p in decayed["params"]] == [(4, 3)]
    assert (decayed["weight_decay"], decayed["adapt"]) == (0.1, True)
    assert len(excluded["params"]) == 3
    assert (excluded["weight_decay"], excluded["adapt"]) == (0.0, False)


class Tokens(nn.Module):
    """The parameters of a small vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, 4))
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.mask_token = nn.Parameter(torch.zeros(1, 4))
        self.patches = nn.Conv2d(3, 4, 2)
        self.norm = nn.LayerNorm(4)
        self.attention = nn.Linear(4, 12, bias=False)


def names(module, group) -> set[str]:
    of = {parameter: name for name, parameter in module.named_parameters()}
    return {of[parameter] for parameter in group["params"]}


def test_tokens_and_positions_are_excluded():
    module = Tokens()
    optimizer, _ = recipe(weight_decay=0.1).build(groups(module), 10, 100)
    decayed, excluded = optimizer.param_groups
    assert names(module, decayed) == {"patches.weight", "attention.weight"}
    assert names(module, excluded) == {
        *("cls_token", "pos_embed", "mask_token"),
        *("patches.bias", "norm.weight", "norm.bias"),
    }
    assert (decayed["weight_decay"], excluded["weight_decay"]) == (0.1, 0.0)


def test_a_method_in_gessl_groups_its_own_parameters():
    method = Predicting()
    ours, wrapped = method.parameter_groups(), GeSSL(method).parameter_groups()
    assert [list(map(id, group["params"])) for group in ours] == [list(map(id, group["params"])) for group in wrapped]
    assert wrapped[-1]["schedules"] == {"lr": Schedule(shape="constant")}


class Predicting(Around):
    """A predictor that learns at a constant rate, as SimSiam's (arXiv 2011.10566)."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(3, 4))
        self.predictor = nn.Linear(4, 4)

    def parameter_groups(self) -> list[ParameterGroup]:
        predictor = list(self.predictor.parameters())
        ids = set(map(id, predictor))
        others = [
            {**group, "params": [p for p in group["params"] if id(p) not in ids]}
            for group in super().parameter_groups()
        ]
        return [*others, {"params": predictor, "schedules": {"lr": Schedule(shape="constant")}}]


def test_a_group_may_keep_its_learning_rate():
    method = Predicting()
    optimizer, scheduler = recipe(lr=0.3, warmup_epochs=1).build(method.parameter_groups(), 5, 20)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 2]
    rates = []
    for _ in range(21):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    assert {predictor for _, _, predictor in rates} == {0.3}
    assert len({weights for weights, _, _ in rates}) > 15
    assert all(weights == biases for weights, biases, _ in rates)
    assert rates[20][0] == 0


def test_nothing_is_excluded_where_not_asked():
    optimizer, _ = recipe(weight_decay=0.1, exclude_bias_and_norm=False).build(groups(nn.Linear(3, 4)), 10, 100)
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1]
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1}


def test_frozen_parameters_are_left_alone():
    module = nn.Linear(3, 4)
    module.weight.requires_grad_(False)
    optimizer, _ = recipe().build(groups(module), 10, 100)
    assert [p.shape for group in optimizer.param_groups for p in group["params"]] == [(4,)]


@pytest.mark.parametrize(("reference", "peak"), [(None, 1.0), (128, 2.0), (512, 0.5)])
def test_learning_rate_scales_with_the_batch(reference, peak):
    assert recipe(reference_batch_size=reference).peak_lr == peak


def test_warm_up_then_cosine_by_step():
    optimizer, scheduler = recipe(warmup_epochs=1, final_ratio=0.1).build(groups(nn.Linear(1, 1)), 10, 110)
    rates = []
    for _ in range(110):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[60] == pytest.approx(0.55)  # half-way: the mean of 1 and 0.1
    assert scheduler.get_last_lr()[0] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_constant_schedule_and_warm_up_from_a_share():
    constant = recipe(schedule="constant", warmup_epochs=1, warmup_ratio=0.5)
    assert [constant.lr_schedule.factor(step, 2, 10) for step in range(4)] == pytest.approx([0.75, 1.0, 1.0, 1.0])


def test_warm_up_never_takes_more_than_half():
    optimizer, scheduler = recipe(warmup_epochs=100).build(groups(nn.Linear(1, 1)), 10, 20)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)
    for _ in range(10):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr()[0] == pytest.approx(1.0)
