"""What the two mechanisms do to spectra, at fixed seeds."""

import doctest
import inspect

import pytest
import torch

from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import TheoryConfig
from ssl_lightning.errors import UserError
from ssl_lightning.theory import experiments
from ssl_lightning.theory.experiments import ALIVE, Alignment, Depth, StrongAugmentation
from tests.composing import composed
from tests.config.configs import forget

__all__ = ["forget"]


def test_doctests():
    assert doctest.testmod(experiments).failed == 0


@pytest.mark.parametrize("seed", [0, 1])
def test_strong_augmentation_shrinks_what_it_disturbs(seed):
    found = StrongAugmentation(noise=[0.01, 0.5, 1.0, 1.5, 2.0]).run(seed)
    assert found.gap.tolist() == pytest.approx([1.0, 1.49, 4.2, 8.3, 13.5], rel=0.1)
    clean, noisy = found.singular_values[:, :8], found.singular_values[:, 8:]
    assert (clean[1:] > 0.4).all()
    assert (noisy[0] > 0.4).all()  # without noise all directions grow
    assert (noisy[3:] < 0.4).all()  # with much, these shrink
    assert (noisy[1:] < noisy[:-1]).all()
    within = found.singular_values[:, :7] / found.singular_values[:, 1:8]
    assert (within < 1.1).all()  # no other gap


@pytest.mark.nightly
def test_layers_alone_leave_directions_behind():
    found = Depth().run(0)
    assert found.layers == [1, 2, 3, 4]
    ranks = torch.tensor(found.effective_rank)
    assert (ranks[1:] < 0.87 * ranks[:-1]).all()
    assert found.alive[0] == 16
    assert found.alive == sorted(found.alive, reverse=True)
    assert found.alive[3] <= 5
    assert (found.singular_values[:, 0] > 10 * 0.22).all()  # all of them have learned


@pytest.mark.nightly
def test_layers_that_start_alike():
    found = Depth(layers=[1, 2], alike="layer").run(1)
    assert found.effective_rank == pytest.approx([10.4, 3.0], rel=0.06)
    shares = found.singular_values / found.singular_values[:, :1]
    assert (shares > 0.01).sum(1).tolist() == [16, 4]


def test_without_a_spectrum_of_images_no_direction_is_left_behind():
    found = Depth(layers=[1, 3], decay=0.0, steps=200).run(0)
    assert min(found.effective_rank) > 15.8
    assert (found.singular_values[:, 0] > 2 * 0.22).all()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("seed", [0, 1])
def test_layers_align_in_the_directions_that_grow(seed):
    found = Alignment().run(seed)
    assert found.steps[0] == 0
    assert found.steps[-1] == 1000
    assert len(found.steps) == len(found.diagonal) == 101
    assert found.alive in (4, 5)
    assert found.diagonal[0].mean() < 0.4
    assert (found.diagonal[-1, :4] > 0.95).all()
    assert found.diagonal[-1, found.alive :].mean() < 0.5
    assert torch.equal(found.matrix.diagonal(), found.diagonal[-1])
    torch.testing.assert_close(found.matrix.square().sum(0), torch.ones(16, dtype=torch.float64))
    assert found.alive == (found.singular_values >= ALIVE * found.singular_values[0]).sum()


@pytest.mark.parametrize("experiment", [StrongAugmentation(steps=5), Depth(steps=5), Alignment(steps=5)])
def test_numbers_are_those_of_the_seed(experiment):
    state = torch.get_rng_state()
    one, again, another = (experiment.run(seed).singular_values for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.allclose(one, another)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_curve_has_its_last_step():
    assert Alignment(steps=250).run(0).steps[-2:] == [249, 250]


def test_one_strength_is_as_among_others():
    """All see the same images."""
    alone, among = (StrongAugmentation(noise=noise, steps=20).run(0) for noise in ([1.0], [0.1, 1.0]))
    torch.testing.assert_close(alone.singular_values[0], among.singular_values[1])


@pytest.mark.parametrize(
    ("experiment", "said"),
    [
        (StrongAugmentation(noisy=16), "noisy is 16, but there are 16 dimensions: leave one without noise"),
        (StrongAugmentation(noise=[]), "noise has no strengths"),
        (Depth(layers=[]), "layers has no depths"),
    ],
)
def test_what_does_not_go(experiment, said):
    with pytest.raises(UserError, match=said):
        experiment.run(0)


def test_the_defaults_are_those_of_the_config():
    config = resolve(composed(name="theory"), TheoryConfig)
    for name, kind in {"augmentation": StrongAugmentation, "depth": Depth, "alignment": Alignment}.items():
        written = config[name]
        assert written.pop("_target_") == f"{kind.__module__}.{kind.__name__}"
        defaults = {key: value.default for key, value in inspect.signature(kind).parameters.items()}
        assert written == {key: [*value] if isinstance(value, tuple) else value for key, value in defaults.items()}
