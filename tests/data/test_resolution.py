"""The size of views is a function of the number of the batch: small at first, full at last."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from ssl_lightning.data.batch import Stored
from ssl_lightning.data.datamodule import check_views
from ssl_lightning.data.loading import StreamedLoader
from ssl_lightning.data.resolution import Resolution
from ssl_lightning.data.sampler import BatchSampler, seed_of
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.optim.clock import Clock
from tests.data.synthetic import in_memory, write_image_folder
from tests.data.test_decoding import folder_of
from tests.data.test_loading import module_of

VIEWS = Augment([View(copies=2, crop_scale=(0.3, 1.0), flip_probability=0.5)])
HALF = Resolution(start=0.5, until=0.75, multiple=4)


def sizes(resolution: Resolution, total: int, full: int) -> list[int]:
    return [resolution.size(number, total, full) for number in range(total)]


def test_sizes_of_a_training():
    """Of 32 pixels in 16 batches: from 16 on by 16/12 pixels a batch, full from the 12th on."""
    line = [16 + 16 * (number + 1) / 12 for number in range(11)]
    assert sizes(HALF, 16, 32) == [*(int(side) // 4 * 4 for side in line), *[32] * 5]
    assert sizes(HALF, 16, 32) == [16, 16, 20, 20, 20, 24, 24, 24, 28, 28, 28, 32, 32, 32, 32, 32]
    assert sizes(Resolution(start=128 / 224, until=1.0, multiple=32), 4, 224) == [128, 160, 192, 224]


@pytest.mark.parametrize("start", [0.01, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("until", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("multiple", "full"), [(1, 32), (4, 32), (32, 224), (4, 30), (4, 3)])
def test_views_grow_and_end_full(start, until, multiple, full):
    resolution = Resolution(start=start, until=until, multiple=multiple)
    made = sizes(resolution, 200, full)
    assert made == sorted(made)
    assert made[max(0, round(until * 200) - 1) :] == [full] * (200 - max(0, round(until * 200) - 1))
    assert all(size == full or size % multiple == 0 for size in made)
    assert min(made) >= min(full, max(multiple, start * full - multiple))
    if start < 1 <= until * 2 and multiple < full:
        assert made[0] < full


def test_a_rehearsal_is_at_full_size():
    assert sizes(HALF, 1, 224) == [224]


def progressive(number: int, total: int = 8, accumulate: int = 1):
    """A data module of images of 2 pixels, at one batch."""
    module = module_of(batches=number, augment=VIEWS)
    module.resolution = Resolution(start=0.5, until=0.75, multiple=1)
    module.trainer.lightning_module.clock = Clock(total, total)
    module.trainer.accumulate_grad_batches = accumulate
    return module


@pytest.mark.parametrize(("total", "accumulate"), [(8, 1), (4, 2)])
def test_views_of_resident_images_have_the_size_of_their_batch(total, accumulate):
    images = torch.randint(0, 256, (8, 1, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stored = Stored(images, torch.arange(8), torch.arange(8))
    made = []
    for number in range(8):
        module = progressive(number, total, accumulate)
        (views,) = module.on_after_batch_transfer(stored, 0).views
        generator = torch.Generator().manual_seed(seed_of("views", 0, number, 0))
        size = views.shape[-1]
        (expected,) = VIEWS(images, module.mean, module.std, generator, size)
        assert torch.equal(views, expected)
        made.append(size)
    assert made == [1, 1, 1, 1, 1, 2, 2, 2]


@pytest.mark.one_in(2)
@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_crops_have_the_size_of_their_batch(tmp_path, workers):
    """As a function of its number alone, however far ahead workers are, and wherever one begins."""
    write_image_folder(tmp_path / "data")
    split = folder_of(tmp_path, workers=workers).train()

    def loader() -> StreamedLoader:
        sampler = BatchSampler(torch.arange(40), 8, 5)
        return StreamedLoader(split, sampler, lambda: 0, VIEWS, size=lambda number: HALF.size(number, 10, 16))

    whole, expected = loader(), sizes(HALF, 10, 16)
    batches = [whole.batch(number) for number in range(10)]
    assert [batch.images[0].shape[-1] for batch in batches] == expected == [8, 8, 8, 12, 12, 12, 12, 16, 16, 16]
    for number in (6, 7, 2):  # as after a resume
        assert torch.equal(loader().batch(number).images[0], batches[number].images[0])
    generator = torch.Generator().manual_seed(seed_of("crops", 5, 4, 0))
    (crops,) = split.images.crops(batches[4].index, VIEWS, generator, size=12)
    assert torch.equal(crops, batches[4].images[0])


def test_a_module_hands_its_sizes_to_the_loader_of_streamed_images(tmp_path):
    write_image_folder(tmp_path / "data")
    module = progressive(0)
    module.dataset = folder_of(tmp_path, workers=0)
    module.mean, module.std = torch.tensor(module.dataset.mean), torch.tensor(module.dataset.std)
    module.resolution = HALF
    module.trainer.num_devices = 1
    module.mask = SimpleNamespace(positions=torch.arange(40).numpy())
    loader = module.train_dataloader()
    for number in range(8):
        module.trainer.lightning_module.batches = number
        stored = loader.batch(number)
        (views,) = module.on_after_batch_transfer(stored, 0).views
        assert views.shape[-1] == stored.images[0].shape[-1] == HALF.size(number, 8, 16)
    loader.stop()


def test_views_with_a_size_of_their_own_keep_it():
    own = Augment([View(copies=2), View(copies=4, size=10)])
    assert [own.sizes(HALF.size(number, 8, 32)) for number in (0, 7)] == [
        [*itertools.repeat(16, 2), *itertools.repeat(10, 4)],
        [*itertools.repeat(32, 2), *itertools.repeat(10, 4)],
    ]
    dataset = in_memory([0, 1])
    dataset.image_size = 32
    check_views(own, dataset, HALF)
    check_views(Augment([View(size=10)]), dataset)
    with pytest.raises(UserError, match=r"each of augment\.views has one"):
        check_views(Augment([View(size=10)]), dataset, HALF)
