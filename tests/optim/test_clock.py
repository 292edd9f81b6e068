"""Where epochs are shorter, schedules go by epochs; where steps end training, by whichever comes first."""

import math

import pytest
import torch

from ssl_lightning.optim.clock import Clock
from ssl_lightning.optim.recipe import OptimizerRecipe

LENGTHS = [10, 7, 1, 10, 4]


def through(clock: Clock, lengths: list[int]) -> list[int]:
    """What each step stands for, one after the last included, and that of an epoch's last both ways."""
    made, step = [], 0
    for epoch, steps in enumerate(lengths):
        if made:
            assert clock.scheduled(step) == made[-1]
            made.pop()
        clock.begin(epoch, step, steps)
        made += [clock.scheduled(step + i) for i in range(steps + 1)]
        step += steps
    return made


def test_without_shorter_epochs_a_step_is_itself():
    clock = Clock(50, 10, 5)
    assert [clock.scheduled(step) for step in range(51)] == list(range(51))
    assert clock.planned == 50
    assert clock.progress(25) == 0.5
    assert through(Clock(50, 10, 5), [10] * 5) == list(range(51))


def test_every_epoch_takes_as_much_of_the_schedule():
    expected = [10 * epoch + math.floor(10 * i / k) for epoch, k in enumerate(LENGTHS) for i in range(k)]
    assert through(Clock(50, 10, 5), LENGTHS) == [*expected, 50]
    assert through(Clock(50, 10, 5, 1000), LENGTHS) == [*expected, 50]


def test_a_limit_of_steps_is_reached_with_them():
    assert through(Clock(20, 10, None, 20), LENGTHS[:4])[:20] == list(range(20))
    made = through(Clock(20, 10, 1000, 20), LENGTHS[:4])
    assert made[:20] == list(range(20))
    both = through(Clock(30, 10, 5, 30), LENGTHS)  # epochs are over at step 32, steps at 30
    assert both[30] == 30
    assert both == sorted(both)
    epochs_first = through(Clock(40, 10, 5, 40), LENGTHS)
    assert epochs_first[32] == 40


def test_the_plan_is_an_upper_bound_and_exact_at_last():
    clock, step, planned = Clock(50, 10, 5), 0, []
    for epoch, steps in enumerate(LENGTHS):
        clock.begin(epoch, step, steps)
        planned.append(clock.planned)
        step += steps
    assert planned == [50, 47, 38, 38, 32]
    assert step == 32
    limited = Clock(20, 10, None, 20)
    limited.begin(0, 0, 3)
    assert limited.planned == 20


def test_learning_rates_are_those_of_the_steps_that_steps_stand_for():
    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=1.0, batch_size=1, warmup_epochs=1)
    layer = torch.nn.Linear(1, 1)
    optimizer, scheduler = recipe.build([{"params": [layer.weight]}], 10, 50)
    whole = []
    for _ in range(51):
        whole.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    clock = Clock(50, 10, 5)
    optimizer, scheduler = recipe.build([{"params": [layer.weight]}], 10, 50, clock.scheduled)
    made, step = [], 0
    for epoch, steps in enumerate(LENGTHS):
        clock.begin(epoch, step, steps)
        for _ in range(steps):
            made.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        step += steps
    assert made == pytest.approx([whole[s] for s in through(Clock(50, 10, 5), LENGTHS)[:-1]])
