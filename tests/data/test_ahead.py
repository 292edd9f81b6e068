"""Batches made one ahead are those made in time."""

import threading
from collections.abc import Iterator

import pytest
import torch

from ssl_lightning.data.ahead import Ahead
from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.loading import ResidentLoader
from ssl_lightning.data.sampler import BatchSampler, Round


class Views:
    """Counts what it makes, and where. Those of a batch are its images and its number."""

    def __init__(self) -> None:
        self.made: list[int] = []
        self.threads: set[int] = set()
        self.wrong: int | None = None

    def __call__(self, stored: Stored, number: int) -> Batch:
        self.made.append(number)
        self.threads.add(threading.get_ident())
        if number == self.wrong:
            raise RuntimeError(f"no views of {number}")
        assert isinstance(stored.images, torch.Tensor)
        return Batch((stored.images[None] + number,), stored.label, stored.index)


@pytest.fixture
def views() -> Views:
    return Views()


@pytest.fixture
def resident() -> ResidentLoader:
    split = Split(torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1), torch.arange(20) % 3)
    return ResidentLoader(split, BatchSampler(torch.arange(20), 6, 0), lambda: 0)


@pytest.fixture
def ahead(resident: ResidentLoader, views: Views) -> Iterator[Ahead]:
    loader = Ahead(resident, views, torch.device("cpu"))
    yield loader
    loader.stop()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.views[0], other.views[0]) and all(map(torch.equal, one[1:3], other[1:3]))


def test_batches_are_those_of_the_loader(ahead, resident, views):
    """In order, over epochs, after a jump forward and back, and again after the end."""
    for number in (0, 1, 2, 3, 4, 9, 10, 2, 3):
        assert same(ahead.batch(number), Views()(resident.batch(number), number)), number
        ahead.begin()
    ahead.stop()
    assert same(ahead.batch(4), Views()(resident.batch(4), 4))
    assert threading.get_ident() not in views.threads


def test_the_next_is_made_once_it_has_begun(ahead, views):
    ahead.batch(0)
    assert views.made == [0]
    ahead.begin()
    ahead.begin()
    made = ahead._next
    assert made is not None
    made[1].result()
    assert views.made == [0, 1]
    ahead.batch(1)
    assert views.made == [0, 1]


def test_what_goes_wrong_is_raised_where_the_batch_is_asked_for(ahead, views):
    views.wrong = 2
    ahead.batch(0)
    ahead.batch(1)
    ahead.begin()
    with pytest.raises(RuntimeError, match="no views of 2"):
        ahead.batch(2)


def test_the_thread_ends(ahead):
    before = threading.active_count()
    ahead.batch(0)
    assert threading.active_count() == before + 1
    ahead.stop()
    assert threading.active_count() == before
    ahead.stop()


def test_nothing_is_made_of_a_round_that_is_not_chosen_yet(ahead, resident, views):
    """Of two batches, as six images are left out; then of three, which are the next ones."""
    ahead.sampler.begin(Round(0, 0, (torch.arange(20) >= 6).float()))
    for number in range(2):
        assert same(ahead.batch(number), Views()(resident.batch(number), number))
        ahead.begin()
    ahead.sampler.begin(Round(1, 2, torch.ones(20)))
    for number in range(2, 5):
        assert same(ahead.batch(number), Views()(resident.batch(number), number))
        ahead.begin()
    assert views.made == [0, 1, 2, 3, 4]
