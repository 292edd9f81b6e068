"""What a loss draws is a function of seed, batch, rank, purpose and part, and of nothing else."""

import itertools

import pytest
import torch
from scipy.stats import kstest

from ssl_lightning.data.draw import Draw


def numbers(draw: Draw) -> tuple:
    """Of all kinds."""
    return (
        tuple(draw.uniform("mask", 2, 3).flatten().tolist()),
        tuple(draw.normal("noise", 4).tolist()),
        tuple(draw.permutation("shuffle", 20).tolist()),
        draw.generator("other").initial_seed(),
    )


DRAWS = {
    (seed, batch, rank, part): Draw(seed, batch, rank, part)
    for seed, batch, rank, part in itertools.product((0, 1), (0, 1, 12), (0, 1, None), (0, 1, 2))
}


def test_the_same_numbers_however_often_one_asks():
    torch.manual_seed(5)
    for arguments, draw in DRAWS.items():
        assert numbers(draw) == numbers(draw) == numbers(Draw(*arguments))
    assert torch.initial_seed() == 5  # the global generator has no part in it
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(5)))


def test_other_numbers_for_every_seed_batch_rank_part_and_purpose():
    kinds = list(zip(*map(numbers, DRAWS.values()), strict=True))
    assert [len(set(values)) for values in kinds] == [len(DRAWS)] * 4
    purposes = [tuple(Draw().uniform(purpose, 5).tolist()) for purpose in ("mask", "masks", "shuffle", "")]
    assert len(set(purposes)) == 4
    # Neither one stream nor a shifted one.
    values = [value for draw in DRAWS.values() for value in draw.uniform("mask", 50).tolist()]
    assert len(set(values)) == len(values)


def test_what_is_common_is_equal_on_all_ranks_and_no_ranks_own():
    shared = [numbers(Draw(3, 7, rank).common()) for rank in range(4)]
    assert len(set(shared)) == 1
    assert shared[0] not in [numbers(Draw(3, 7, rank)) for rank in range(4)]
    assert numbers(Draw(3, 7, 0).common().common()) == shared[0]
    assert numbers(Draw(3, 7, 0).part(2).common()) == numbers(Draw(3, 7, 1).part(2).common()) != shared[0]


def test_the_first_part_draws_as_the_whole():
    draw = Draw(3, 7, 1)
    assert numbers(draw.part(0)) == numbers(draw)
    assert len({numbers(draw.part(number)) for number in range(4)}) == 4


def test_distributions():
    draw = Draw(1)
    uniform, normal = draw.uniform("a", 50, 40), draw.normal("b", 50, 40)
    assert uniform.shape == normal.shape == (50, 40)
    assert kstest(uniform.flatten().double(), "uniform").pvalue > 1e-3
    assert kstest(normal.flatten().double(), "norm").pvalue > 1e-3
    assert sorted(draw.permutation("c", 30).tolist()) == list(range(30))
    # One number a batch is uniform over batches too.
    assert kstest([Draw(0, batch).uniform("a", 1).item() for batch in range(1000)], "uniform").pvalue > 1e-3


def test_modules_that_draw_by_themselves_are_seeded_and_leave_no_trace():
    dropout, ones = torch.nn.Dropout(0.5), torch.ones(200)
    torch.manual_seed(9)
    first = torch.rand(3)
    torch.manual_seed(9)
    masks = []
    for draw in (Draw(0, 4), Draw(0, 4), Draw(0, 5), Draw(0, 4, 1), Draw(0, 4).part(1)):
        with draw.seeded():
            masks.append(dropout(ones))
    assert torch.equal(torch.rand(3), first)
    assert torch.equal(masks[0], masks[1])
    assert not any(torch.equal(masks[0], other) for other in masks[2:])


def test_generators_are_left_as_they_were_found_by_an_error_too():
    torch.manual_seed(9)
    state = torch.get_rng_state()

    def fail():
        with Draw().seeded():
            torch.rand(3)
            raise ValueError("in the middle")

    with pytest.raises(ValueError, match="in the middle"):
        fail()
    assert torch.equal(torch.get_rng_state(), state)
