"""Which images a step sees, and as which views, is a pure function of seed, step and rank."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ssl_lightning.data.batch import Stored
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.loading import ResidentLoader, normalise
from ssl_lightning.data.sampler import BatchSampler, seed_of
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.random import Random
from ssl_lightning.subsets.rule import Subset
from tests.data.synthetic import in_memory


def split_of(length: int) -> Split:
    """Images that tell their position."""
    values = torch.arange(length)
    images = torch.stack([values % 256, values // 256], 1).to(torch.uint8)[:, :, None, None]
    return Split(images, values % 7)


def loader_of(positions, batch_size, seed=0, step=lambda: 0, rank=0, world_size=1):
    return ResidentLoader(
        split_of(1000), BatchSampler(torch.as_tensor(positions), batch_size, seed, rank, world_size), step
    )


def indices(loader, steps):
    return [loader.batch(step).index.tolist() for step in steps]


def epoch_of(loader, epoch):
    steps = range(epoch * len(loader), (epoch + 1) * len(loader))
    return list(itertools.chain.from_iterable(indices(loader, steps)))


@pytest.mark.parametrize(("size", "batch_size"), [(40, 8), (43, 8), (8, 8), (15, 8), (9, 1)])
def test_an_epoch_sees_each_position_at_most_once_and_drops_less_than_a_batch(size, batch_size):
    positions = np.random.default_rng(0).permutation(1000)[:size]
    loader = loader_of(positions, batch_size)
    assert len(loader) == size // batch_size
    for epoch in range(4):
        seen = epoch_of(loader, epoch)
        assert len(seen) == len(set(seen)) == size // batch_size * batch_size
        assert set(seen) <= set(positions.tolist())


def test_what_an_epoch_drops_is_drawn_anew():
    loader = loader_of(range(43), 8)
    assert set().union(*(epoch_of(loader, epoch) for epoch in range(20))) == set(range(43))


def test_the_order_is_new_in_every_epoch_and_for_every_seed():
    orders = [tuple(epoch_of(loader_of(range(40), 8, seed=seed), epoch)) for seed in range(3) for epoch in range(5)]
    assert len(set(orders)) == len(orders)
    assert tuple(range(40)) not in orders


def test_order_is_uniform():
    """Each of 6 orders of 3 positions comes with probability 1/6: χ² with 5 degrees of freedom stays below 20.5 with
    probability 0.999."""
    counts: dict[tuple[int, ...], int] = {}
    loader = loader_of(range(3), 3)
    for epoch in range(600):
        order = tuple(loader.batch(epoch).index.tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 6
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 20.5


def test_a_batch_is_a_function_of_the_step_alone():
    forwards = indices(loader_of(range(43), 8), range(15))
    other = loader_of(range(43), 8)
    backwards = indices(other, reversed(range(15)))[::-1]
    assert forwards == backwards
    assert indices(other, [7, 7, 3]) == [forwards[7], forwards[7], forwards[3]]


def test_iteration_follows_the_count_of_batches():
    made = 12  # as after a resume in the third epoch of 5 steps

    loader = loader_of(range(43), 8, step=lambda: made)
    seen = []
    for batch in itertools.islice(loader, 3):
        seen.append(batch.index.tolist())
        made += 1
    assert seen == indices(loader_of(range(43), 8), [12, 13, 14])


def test_batch_holds_images_and_labels_of_its_index():
    split = split_of(1000)
    batch = loader_of(range(500, 900), 64).batch(3)
    assert torch.equal(batch.images, split.images[batch.index])
    assert torch.equal(batch.label, split.labels[batch.index])
    assert batch.images.dtype == torch.uint8


@pytest.mark.parametrize("batches_a_step", [2, 4])
@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_of_a_step_are_parts_of_the_share_of_a_rank(world_size, batches_a_step):
    positions = torch.arange(43)
    whole = BatchSampler(positions, 8, 0)
    ranks = [BatchSampler(positions, 8, 0, rank, world_size, batches_a_step) for rank in range(world_size)]
    assert {len(sampler) for sampler in ranks} == {5 * batches_a_step}
    for step in range(15):
        numbers = range(step * batches_a_step, (step + 1) * batches_a_step)
        parts = [sampler.batch(number) for sampler in ranks for number in numbers]
        assert {len(part) for part in parts} == {8 // world_size // batches_a_step}
        assert torch.equal(torch.cat(parts), whole.batch(step))
    # Also in any order, as after a resume.
    assert torch.equal(BatchSampler(positions, 8, 0, 0, 1, 2).batch(7), whole.batch(3)[4:])


@pytest.mark.parametrize("world_size", [2, 4])
def test_shares_of_ranks_make_up_the_batch_of_one_process(world_size):
    whole = loader_of(range(43), 8)
    ranks = [loader_of(range(43), 8, rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in range(15):
        shares = [loader.batch(step).index for loader in ranks]
        assert {len(share) for share in shares} == {8 // world_size}
        assert torch.equal(torch.cat(shares), whole.batch(step).index)
    assert {len(loader) for loader in ranks} == {len(whole)}


def test_seeds_differ_by_purpose_and_by_every_number():
    arguments = [(), (0,), (0, 0), (1,), (1, 2), (2, 1), (1, 2, 0), (0, 1, 2), (12,), (1 << 32,), (1, 0, 0)]
    arguments += [(0, 1), (3 << 40,)]
    seeds = {seed_of(purpose, *numbers) for purpose in ("order", "views", "crops", "step") for numbers in arguments}
    assert len(seeds) == 4 * len(arguments)
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert seed_of("views", 1, 2) == seed_of("views", 1, 2)


def test_seeds_of_neighbouring_steps_are_unrelated():
    seeds = [seed_of("views", 0, step, 0) for step in range(2000)]
    bits = (np.array(seeds)[:, None] >> np.arange(63)) & 1
    flipped = (bits[1:] != bits[:-1]).mean()
    assert flipped == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(bits[1:].size))


def test_normalise_takes_out_the_statistics():
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(2, 3, 1, 1)
    mean, std = torch.tensor([0.0, 0.5, 0.25]), torch.tensor([1.0, 0.5, 0.2])
    exact = (images.double() / 255 - mean.double()[:, None, None]) / std.double()[:, None, None]
    result = normalise(images, mean, std)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result.double(), exact, rtol=0, atol=1e-6)
    assert result[0, 1].min() == -1
    assert result[0, 1].max() == pytest.approx(1, abs=1e-6)


class Trainer:
    """The little of a trainer that the data need."""

    def __init__(self, batches=0, global_rank=0, world_size=1, accumulate_grad_batches=1):
        self.lightning_module = SimpleNamespace(batches=batches)
        self.global_rank, self.world_size = global_rank, world_size
        self.accumulate_grad_batches = accumulate_grad_batches
        self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})


TWO = Augment([View(copies=2, crop_scale=(0.3, 1.0), jitter_probability=1.0, brightness=0.4, contrast=0.4)])


def module_of(fraction=1.0, batch_size=8, seed=0, length=100, augment=TWO, **trainer):
    dataset = in_memory(np.arange(length) % 5)
    mask = Subset(Random(seed=3), fraction).cut(Random(seed=3).ranking(dataset))
    module = SubsetDataModule(dataset, mask, augment=augment, batch_size=batch_size, seed=seed)
    module.trainer = Trainer(**trainer)
    module.prepare_data()
    module.setup()
    return module


@pytest.mark.parametrize("fraction", [0.2, 0.55, 1.0])
def test_training_sees_the_masked_positions_only(fraction):
    module = module_of(fraction)
    loader = module.train_dataloader()
    seen = set().union(*(epoch_of(loader, epoch) for epoch in range(30)))
    assert seen == set(module.mask.positions.tolist())
    assert len(seen) == round(fraction * 100)


def views_of(image, seed=0, step=0, rank=0):
    module = module_of(seed=seed, batches=step, global_rank=rank, world_size=2)
    batch = Stored(image, torch.zeros(len(image), dtype=torch.int64), torch.arange(len(image)))
    (views,) = module.on_after_batch_transfer(batch, 0).views
    return views


def test_views_are_a_function_of_seed_step_and_rank():
    image = torch.randint(0, 256, (8, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    views = views_of(image)
    assert views.shape == (2, 8, 1, 2, 2)
    torch.manual_seed(1234)  # the global generator has no part in it
    assert torch.equal(views_of(image), views)
    for other in ({"seed": 1}, {"step": 1}, {"rank": 1}):
        assert not torch.equal(views_of(image, **other), views)


def test_batch_that_ranks_and_batches_of_a_step_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"12, which 2 processes cannot share equally in 4 parts each.*multiple of 8"):
        module_of(batch_size=12, world_size=2, accumulate_grad_batches=4)
    with pytest.raises(UserError, match=r"only 55 images .*largest legal batch_size is 48"):
        module_of(0.55, batch_size=56, world_size=2, accumulate_grad_batches=4)
    module = module_of(batch_size=8, accumulate_grad_batches=4, world_size=2)
    loader = module.train_dataloader()
    assert len(loader) == 12 * 4
    assert len(loader.batch(0).index) == 1


def test_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(UserError, match=r"batch_size is 9, which 2 processes cannot share.*multiple of 2"):
        module_of(batch_size=9, world_size=2)


@pytest.mark.parametrize(("world_size", "largest"), [(1, 55), (2, 54)])
def test_batch_larger_than_the_subset_is_refused_with_the_largest_legal_one(world_size, largest):
    with pytest.raises(UserError, match=f"only 55 images .*largest legal batch_size is {largest}"):
        module_of(0.55, batch_size=56, world_size=world_size)
    assert len(module_of(0.55, batch_size=largest, world_size=world_size).train_dataloader()) == 1
