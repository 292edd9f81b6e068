"""Hyper-parameters over training: exact values, and what a resume goes on with."""

import copy
import functools
import math

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.optim.lars import LARS
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.optim.schedule import OneCycle, Schedule, Scheduler
from tests.composing import composed
from tests.config.configs import forget

__all__ = ["forget"]

ALGORITHMS = {
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
    "adamw": torch.optim.AdamW,
    "lars": functools.partial(LARS, momentum=0.9),
}


def built(network: nn.Module, algorithm="adamw", total_steps: int = 40, **settings):
    groups = [{"params": [network.weight]}, {"params": [network.bias], "decay": False}]
    recipe = OptimizerRecipe(
        **({"algorithm": ALGORITHMS[algorithm], "lr": 0.3, "batch_size": 8, "weight_decay": 0.04} | settings)
    )
    return recipe.build(groups, 10, total_steps)


def course(optimizer, scheduler, steps: int, *names: str) -> list[list[tuple[float, ...]]]:
    """The values of each group before each step, and at last those after the end."""
    values = []
    for step in range(steps + 1):
        values.append([tuple(group[name] for name in names) for group in optimizer.param_groups])
        if step < steps:
            optimizer.step()
            scheduler.step()
    return values


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize("final_ratio", [0.0, 0.1])
@pytest.mark.parametrize(("warmup_epochs", "warmup_ratio"), [(0, 0.0), (1, 0.0), (0.7, 0.3), (100, 0.0)])
def test_learning_rates_are_those_of_torchs_lambda_to_the_last_bit(schedule, final_ratio, warmup_epochs, warmup_ratio):
    warmup = min(round(warmup_epochs * 10), 37 // 2)

    def factor(step: int) -> float:
        if step < warmup:
            return warmup_ratio + (1 - warmup_ratio) * (step + 1) / warmup
        if schedule == "constant":
            return 1.0
        progress = min(1.0, (step - warmup) / max(1, 37 - warmup))
        return final_ratio + (1 - final_ratio) * (1 + math.cos(math.pi * progress)) / 2

    settings = {
        "schedule": schedule,
        "final_ratio": final_ratio,
        "warmup_epochs": warmup_epochs,
        "warmup_ratio": warmup_ratio,
    }
    ours = course(*built(nn.Linear(3, 4), "sgd", 37, **settings), 40, "lr")
    reference = torch.optim.SGD(nn.Linear(3, 4).parameters(), 0.3)
    theirs = course(reference, LambdaLR(reference, factor), 40, "lr")
    assert [weights for weights, _ in ours] == [biases for _, biases in ours] == [rate for (rate,) in theirs]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weight_decay_grows_by_a_cosine_where_weights_decay(algorithm):
    """From wd to 10·wd, as in DINO (arXiv 2104.14294): half-way it is their mean."""
    grows = {"weight_decay": Schedule(final_ratio=10.0)}
    values = course(*built(nn.Linear(3, 4), algorithm, schedules=grows), 40, "weight_decay")
    decayed, excluded = ([value for (value,) in group] for group in zip(*values, strict=True))
    assert decayed[0] == 0.04
    assert decayed[20] == pytest.approx((0.04 + 0.4) / 2, rel=1e-15)
    assert decayed[40] == 0.04 * 10
    assert decayed == sorted(decayed)
    expected = [0.04 * (10 - 9 * (1 + math.cos(math.pi * step / 40)) / 2) for step in range(41)]
    assert decayed == pytest.approx(expected, rel=1e-14)
    assert set(excluded) == {0.0}


@pytest.mark.parametrize("algorithm", ["sgd", "lars"])
def test_momentum_follows_its_schedule(algorithm):
    schedule = Schedule(shape="linear", final_ratio=0.5)
    values = course(*built(nn.Linear(3, 4), algorithm, schedules={"momentum": schedule}), 40, "momentum")
    assert [value for (value,), _ in values] == pytest.approx([0.9 * (1 - step / 80) for step in range(41)], rel=1e-14)
    assert [one for one, _ in values] == [other for _, other in values]
    assert values[40][0] == (0.45,)


def test_a_schedule_acts_on_the_step_that_it_is_for():
    """SGD with a weight decay of the schedule: w ← w − lr·wd(step)·w."""
    network = nn.Linear(2, 1).double()
    optimizer, scheduler = built(
        network, "sgd", 8, lr=0.1, schedule="constant", schedules={"weight_decay": Schedule(final_ratio=3.0)}
    )
    optimizer.param_groups[0]["momentum"] = 0.0
    expected = network.weight.detach().clone()
    for step in range(8):
        network.weight.grad = torch.zeros_like(network.weight)
        optimizer.step()
        scheduler.step()
        expected *= 1 - 0.1 * 0.04 * Schedule(final_ratio=3.0).factor(step, 10, 8)
    torch.testing.assert_close(network.weight.detach(), expected, rtol=1e-14, atol=0)


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(("rise", "total_steps"), [(0.3, 40), (0.3, 37), (0.5, 8), (0.9, 11), (1.0, 7)])
@pytest.mark.parametrize(("start", "final"), [(1 / 25, 1 / 25e4), (0.5, 0.0)])
def test_one_cycle_is_torchs_step_by_step(shape, rise, total_steps, start, final):
    rate = OneCycle(shape=shape, rise=rise, start_ratio=start, final_ratio=final)
    momentum = OneCycle(shape=shape, rise=rise, start_ratio=1.0, peak_ratio=0.85 / 0.95, final_ratio=1.0)
    recipe = OptimizerRecipe(
        algorithm=functools.partial(torch.optim.SGD, momentum=0.95),
        lr=0.3,
        batch_size=8,
        schedules={"lr": rate, "momentum": momentum},
    )
    built = recipe.build([{"params": list(nn.Linear(3, 4).parameters())}], 10, total_steps)
    ours = course(*built, total_steps - 1, "lr", "momentum")
    reference = torch.optim.SGD(nn.Linear(3, 4).parameters(), 0.3, momentum=0.9)
    theirs = OneCycleLR(
        reference,
        max_lr=0.3,
        total_steps=total_steps,
        pct_start=rise,
        anneal_strategy={"cosine": "cos", "linear": "linear"}[shape],
        base_momentum=0.85,
        max_momentum=0.95,
        div_factor=1 / start,
        final_div_factor=start / final if final else math.inf,
    )
    expected = course(reference, theirs, total_steps - 1, "lr", "momentum")
    assert len(ours) == total_steps
    for (mine,), (its,) in zip(ours, expected, strict=True):
        assert mine == pytest.approx(its, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("rise", [0.3, 0.5])
def test_the_option_is_torchs_one_cycle_with_its_defaults(rise):
    overrides = ("optimizer=sgd", "schedule=one_cycle_momentum", f"optimizer.schedules.lr.rise={rise}")
    config = resolve(composed(*overrides))["method"]["optimizer"]
    optimizer, scheduler = make(config).build([{"params": list(nn.Linear(3, 4).parameters())}], 10, 40)
    reference = torch.optim.SGD(nn.Linear(3, 4).parameters(), 0.3, momentum=0.9)
    theirs = OneCycleLR(reference, max_lr=0.06 * 256 / 128, total_steps=40, pct_start=rise)
    expected = course(reference, theirs, 39, "lr", "momentum")
    for (mine,), (its,) in zip(course(optimizer, scheduler, 39, "lr", "momentum"), expected, strict=True):
        assert mine == pytest.approx(its, rel=1e-12)


@pytest.mark.parametrize("total_steps", [1, 2, 3])
@pytest.mark.parametrize("rise", [0.0, 0.3, 1.0])
def test_one_cycle_of_few_steps(rise, total_steps):
    """A rehearsal takes one step, at the peak."""
    cycle = OneCycle(rise=rise)
    factors = [cycle.factor(step, 1, total_steps) for step in range(total_steps + 3)]
    assert max(factors) == 1
    assert all(0 < factor <= 1 for factor in factors)
    assert set(factors[total_steps:]) == {factors[total_steps - 1]}  # after the end, what there was


SCHEDULES = {"weight_decay": Schedule(final_ratio=10.0), "momentum": Schedule(shape="linear", final_ratio=0.5)}
CYCLES = {"lr": OneCycle(), "momentum": OneCycle(start_ratio=1.0, peak_ratio=0.9, final_ratio=1.0)}


@pytest.mark.parametrize("schedules", [SCHEDULES, CYCLES], ids=["schedules", "one cycle"])
@pytest.mark.parametrize("step", [0, 1, 7, 20, 39])
@pytest.mark.parametrize("first", ["optimizer", "scheduler"])
def test_a_resume_in_the_middle_goes_on_bit_for_bit(step, first, schedules):
    def started():
        torch.manual_seed(0)
        network = nn.Linear(3, 4)
        return network, *built(network, "sgd", warmup_epochs=1, schedules=schedules)

    def train(network, optimizer, scheduler, steps) -> list[list[dict[str, float]]]:
        seen = []
        for number in steps:
            images = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
            optimizer.zero_grad()
            network(images).square().sum().backward()
            seen.append([{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups])
            optimizer.step()
            scheduler.step()
        return seen

    network, optimizer, scheduler = started()
    train(network, optimizer, scheduler, range(step))
    states = {
        "network": copy.deepcopy(network.state_dict()),
        "optimizer": copy.deepcopy(optimizer.state_dict()),
        "scheduler": copy.deepcopy(scheduler.state_dict()),
    }
    expected = train(network, optimizer, scheduler, range(step, 40))

    resumed, again, rest = started()
    resumed.load_state_dict(states["network"])
    for name in (first, "scheduler" if first == "optimizer" else "optimizer"):
        {"optimizer": again, "scheduler": rest}[name].load_state_dict(states[name])
    assert rest.get_last_lr() == [group["lr"] for group in again.param_groups]
    assert train(resumed, again, rest, range(step, 40)) == expected
    assert all(torch.equal(a, b) for a, b in zip(resumed.parameters(), network.parameters(), strict=True))
    assert rest.get_last_lr() == scheduler.get_last_lr()


@pytest.mark.parametrize(
    ("algorithm", "name", "known"),
    [
        ("adamw", "momentum", "lr, eps, weight_decay"),
        ("adamw", "betas", "lr, eps, weight_decay"),
        ("sgd", "weight_deacy", "lr, momentum, dampening, weight_decay"),
        ("sgd", "nesterov", "lr, momentum, dampening, weight_decay"),  # a switch is no number
        ("lars", "params", "lr, momentum, weight_decay, trust_coefficient, eps"),
    ],
)
def test_what_the_optimizer_does_not_have_is_refused(algorithm, name, known):
    with pytest.raises(UserError, match=f"^optimizer.schedules names '{name}'.*Choose among {known}.$"):
        built(nn.Linear(3, 4), algorithm, schedules={name: Schedule()})


def test_groups_without_parameters_keep_schedules_in_line():
    network = nn.Linear(3, 4, bias=False)
    groups = [{"params": []}, {"params": [network.weight], "schedules": {"lr": Schedule(shape="constant")}}]
    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=0.3, batch_size=8)
    optimizer, scheduler = recipe.build(groups, 10, 40)
    assert isinstance(scheduler, Scheduler)
    assert {rate for ((rate,),) in course(optimizer, scheduler, 40, "lr")} == {0.3}


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant"])
def test_a_factor_starts_at_one_and_ends_at_its_ratio(shape):
    schedule = Schedule(shape=shape, final_ratio=0.2)
    assert schedule.factor(0, 10, 40) == 1
    half = schedule.factor(20, 10, 40)
    end = [schedule.factor(step, 10, 40) for step in (40, 41, 1000)]
    assert half == (1 if shape == "constant" else pytest.approx(0.6))
    assert end == [1 if shape == "constant" else 0.2] * 3
