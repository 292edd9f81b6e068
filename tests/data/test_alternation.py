"""Alternating flips: who is mirrored, in which epoch, however images are stored and whoever makes the batch."""

from collections import defaultdict

import numpy as np
import pytest
import torch

from ssl_lightning.data.alternation import Alternation
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.loading import StreamedLoader
from ssl_lightning.data.sampler import BatchSampler
from ssl_lightning.data.views import Augment, View
from tests.data.synthetic import write_image_folder
from tests.data.test_decoding import folder_of
from tests.data.test_loading import module_of

ALTERNATING = Augment([View(copies=2, flip_probability=0.5, flip_alternates=True), View(flip_probability=0.0)])


def mirrored_in(epochs: int, world_size: int = 1) -> list[dict[int, tuple[bool, ...]]]:
    """Of each epoch, by position: which views of the image were mirrored, as training sees it."""
    seen: list[dict[int, tuple[bool, ...]]] = [{} for _ in range(epochs)]
    for rank in range(world_size):
        module = module_of(length=96, augment=ALTERNATING, global_rank=rank, world_size=world_size)
        images = torch.zeros(96, 1, 2, 2, dtype=torch.uint8)
        images[..., 0] = 255  # bright on the left
        module.dataset.train = lambda images=images: Split(images, torch.zeros(96, dtype=torch.int64))
        loader = module.train_dataloader()
        for number in range(epochs * len(loader)):
            module.trainer.lightning_module.batches = number
            batch = module.on_after_batch_transfer(loader.batch(number), 0)
            on_the_right = batch.views[0][:, :, 0, 0, 1] > batch.views[0][:, :, 0, 0, 0]
            for position, flips in zip(batch.index.tolist(), on_the_right.T.tolist(), strict=True):
                seen[number // len(loader)][position] = tuple(flips)
    return seen


@pytest.mark.parametrize("world_size", [1, 2])
def test_each_image_is_seen_both_ways_in_two_epochs(world_size):
    first, second, third = mirrored_in(3, world_size)
    assert len(first) == 96
    assert third == first
    for position, (a, b, plain) in first.items():
        assert second[position] == (not a, not b, plain)
        assert not plain
    halves = np.array(list(first.values()))[:, :2]
    assert (np.abs(halves.mean(0) - 0.5) < 0.2).all()  # 4 deviations
    assert (halves[:, 0] != halves[:, 1]).any()


def test_ranks_agree_with_one_process():
    assert mirrored_in(2, 2) == mirrored_in(2, 1)


def test_crops_of_files_are_mirrored_alike(tmp_path):
    write_image_folder(tmp_path / "data")
    split = folder_of(tmp_path, workers=0).train()
    sampler = BatchSampler(torch.arange(40), 8, 5)
    alternation = Alternation(3, 40, sampler, seed=5)
    plain = Augment([View(copies=3)])
    whole = StreamedLoader(split, sampler, lambda: 0, plain)
    crops = StreamedLoader(split, sampler, lambda: 0, ALTERNATING, alternation=alternation)
    seen: dict[int, list[bool]] = defaultdict(list)
    for number in range(2 * len(sampler)):
        (images,), (upright,) = crops.batch(number).images, whole.batch(number).images
        for flip, image, straight, position in zip(
            alternation(number)[0], images[0], upright[0], crops.batch(number).index.tolist(), strict=True
        ):
            assert torch.equal(image, straight.flip(-1) if flip else straight)
            seen[position].append(bool(flip))
        assert torch.equal(images[2], upright[2])
    assert all(sorted(flips) == [False, True] for flips in seen.values())


def test_one_in_two_is_the_only_probability():
    with pytest.raises(ValueError, match=r"flip_probability is 0.3; set it to 0.5"):
        View(flip_probability=0.3, flip_alternates=True)


def test_what_is_not_used_is_no_part_of_a_description():
    """Rankings that were made before there was a field keep their digest."""
    assert "flip_alternates" not in Augment([View(flip_probability=0.5)]).describe()[0]
    assert ALTERNATING.describe()[0]["flip_alternates"] is True
