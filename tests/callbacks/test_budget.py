"""Fractions are compared at equal epochs or at equal optimizer steps."""

import pytest

from ssl_lightning.callbacks.budget import Budget
from tests.callbacks import fitting
from tests.callbacks.fitting import fit

FRACTIONS = (0.4, 0.7, 1.0)  # 19, 34 and 48 images are 1, 2 and 3 batches of 16


def test_equal_steps():
    for fraction in FRACTIONS:
        trainer = fit(Budget("steps", 16), fraction=fraction)
        assert trainer.global_step == 2 * 3
        assert trainer.max_epochs == -1  # which `--status` takes for how many are planned


def test_equal_epochs():
    assert [fit(fraction=fraction).global_step for fraction in FRACTIONS] == [2, 4, 6]


@pytest.mark.parametrize(("max_steps", "expected"), [(4, 4), (100, 6)])
def test_max_steps_still_ends_training_earlier(max_steps, expected):
    trainer = fit(Budget("steps", 16), fraction=0.4, max_steps=max_steps)
    assert trainer.global_step == expected


def test_the_schedule_spans_all_steps():
    trainer = fit(Budget("steps", 16), fraction=0.4)
    (config,) = trainer.lr_scheduler_configs
    assert config.scheduler.get_last_lr() == [0.0, 0.0]  # the cosine ends with the last of 6 steps


@pytest.mark.parametrize(("cost", "expected"), [(1.0, 6), (3.0, 2), (4 / 3, 4), (100.0, 1)])
def test_equal_compute(cost, expected):
    """Of the subset's 6 steps, as many as cost what 6 of a method with one gradient evaluation do; at least one."""
    method = fitting.method()
    method.gradient_evaluations = cost
    assert fit(Budget("compute", 16), trained=method).global_step == expected
    capped = fit(Budget("compute", 16), trained=method, max_steps=3)
    assert capped.global_step == max(1, round(3 / cost))


def test_equal_compute_is_that_of_the_subset():
    assert fit(Budget("compute", 16), fraction=0.4).global_step == 2
