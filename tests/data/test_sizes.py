"""Views of several sizes: a tensor for each, largest first; each view as if it were alone."""

import dataclasses
import itertools

import pytest
import torch
import yaml
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import pil_to_tensor, resized_crop

from ssl_lightning.config.components import make
from ssl_lightning.config.places import CONF
from ssl_lightning.data.batch import Batch, Stored
from ssl_lightning.data.datamodule import check_views
from ssl_lightning.data.resolution import Resolution
from ssl_lightning.data.views import Augment, View, by_size, views_of
from ssl_lightning.errors import UserError
from tests.data.synthetic import in_memory
from tests.data.test_decoding import SIZES, folder_of, write_photographs
from tests.data.test_loading import module_of
from tests.data.test_views import FULL, random_bytes, seeded

MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.25])
LARGE, SMALL = dataclasses.replace(FULL, copies=2), dataclasses.replace(FULL, copies=4, size=6)


def test_a_tensor_for_each_size_largest_first():
    images = random_bytes(5, 3, 12, 12)
    for views in ([LARGE, SMALL], [SMALL, LARGE]):
        augment = Augment(views)
        made = augment(images, MEAN, STD, seeded(0))
        assert [tuple(some.shape) for some in made] == [(2, 5, 3, 12, 12), (4, 5, 3, 6, 6)]
        assert augment.num_views == 6
        assert Batch(made, torch.arange(5), torch.arange(5)).num_views == 6
    three = Augment([SMALL, View(size=20), LARGE])(images, MEAN, STD, seeded(0), 10)
    assert [tuple(some.shape) for some in three] == [(1, 5, 3, 20, 20), (2, 5, 3, 10, 10), (4, 5, 3, 6, 6)]


def test_views_of_one_size_stay_one_tensor_whoever_says_the_size():
    images = random_bytes(5, 3, 12, 12)
    silent, said = (Augment([dataclasses.replace(LARGE, size=size)]) for size in (None, 12))
    ((ours,), (theirs,)) = silent(images, MEAN, STD, seeded(0)), said(images, MEAN, STD, seeded(0), 7)
    assert torch.equal(ours, theirs)
    (mixed,) = Augment([View(), View(size=12)])(images, MEAN, STD, seeded(0))
    assert mixed.shape == (2, 5, 3, 12, 12)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_each_view_is_what_it_would_be_alone(order):
    """Views draw one after another, in their given order, whatever their sizes."""
    kinds = [FULL, dataclasses.replace(FULL, size=6), dataclasses.replace(FULL, size=9)]
    kinds = [kinds[i] for i in order]
    images = random_bytes(7, 3, 12, 12)
    made = Augment(kinds)(images, MEAN, STD, seeded(3))
    generator = seeded(3)
    for view in kinds:
        ((alone,),) = Augment([view])(images, MEAN, STD, generator)
        (ours,) = next(some for some in made if some.shape[-1] == alone.shape[-1])
        assert torch.equal(ours, alone)


def test_sizes_and_their_inverse():
    sizes = [6, 12, 6, 9, 12]
    made = by_size(sizes, lambda number, size: torch.arange(number)[:, None].expand(number, size))
    assert [tuple(some.shape) for some in made] == [(2, 12), (1, 9), (2, 6)]
    assert [(len(view), int(view[0])) for view in views_of(made, sizes)] == [(6, 0), (12, 0), (6, 1), (9, 0), (12, 1)]


WIDE = View(copies=2, crop_scale=(0.3, 1.0), flip_probability=0.5)
NARROW = View(copies=4, size=10, crop_scale=(0.05, 0.3), flip_probability=0.5)
AUGMENT = Augment([WIDE, NARROW])


def test_streamed_crops_are_those_of_torchvision_one_by_one(tmp_path):
    write_photographs(tmp_path, "png", SIZES)
    images, positions = folder_of(tmp_path).train().images, [2, 0, 3]
    made = images.crops(torch.tensor(positions), AUGMENT, seeded(1))
    assert [tuple(some.shape) for some in made] == [(2, 3, 3, 16, 16), (4, 3, 3, 10, 10)]
    opened = [Image.open(images.files.path(position)) for position in positions]
    height, width = (torch.tensor([getattr(image, side) for image in opened]) for side in ("height", "width"))
    windows, flips = AUGMENT.windows(height, width, seeded(1))
    assert flips.any(dim=1).all()
    crops = [*made[0], *made[1]]
    for k, i in itertools.product(range(6), range(3)):
        size = 16 if k < 2 else 10
        window = [int(value) for value in windows[k, :, i]]
        expected = pil_to_tensor(resized_crop(opened[i], *window, [size, size], InterpolationMode.BILINEAR))
        assert torch.equal(crops[k][i], expected.flip(-1) if flips[k, i] else expected)


def test_streamed_crops_of_two_sizes_are_those_of_each_size_alone(tmp_path):
    write_photographs(tmp_path, "png", SIZES)
    images, positions = folder_of(tmp_path).train().images, torch.arange(4)
    large, small = images.crops(positions, AUGMENT, seeded(1))
    generator = seeded(1)
    (alone,) = images.crops(positions, Augment([WIDE]), generator)
    assert torch.equal(large, alone)
    (alone,) = images.crops(positions, Augment([NARROW]), generator)
    assert torch.equal(small, alone)


@pytest.mark.parametrize("views", [[LARGE, SMALL], [SMALL, LARGE]])
def test_colours_of_crops_are_those_of_whole_views(views):
    """Where nothing is cut, both ways are the same to the last bit."""
    uncut = [
        dataclasses.replace(view, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip_probability=0.0) for view in views
    ]
    images, small = random_bytes(7, 3, 12, 12), random_bytes(7, 3, 6, 6, seed=1)
    coloured = Augment(uncut).colour(
        (images.expand(2, -1, -1, -1, -1), small.expand(4, -1, -1, -1, -1)), MEAN, STD, seeded(3), 12
    )
    generator, made = seeded(3), {12: [], 6: []}
    for view in (dataclasses.replace(kind, copies=1) for kind in uncut for _ in range(kind.copies)):
        ((alone,),) = Augment([view])(small if view.size else images, MEAN, STD, generator)
        made[alone.shape[-1]].append(alone)
    assert torch.equal(coloured[0], torch.stack(made[12]))
    assert torch.equal(coloured[1], torch.stack(made[6]))


def test_a_batch_holds_all_sizes_and_a_part_of_it_some_images_of_each():
    module = module_of(augment=Augment([View(copies=4, size=1), View(copies=2)]))
    image = random_bytes(8, 1, 2, 2)
    batch = module.on_after_batch_transfer(Stored(image, torch.arange(8), torch.arange(8) + 50), 0)
    assert [tuple(some.shape) for some in batch.views] == [(2, 8, 1, 2, 2), (4, 8, 1, 1, 1)]
    part = batch.part(slice(2, 5))
    assert [tuple(some.shape) for some in part.views] == [(2, 3, 1, 2, 2), (4, 3, 1, 1, 1)]
    assert all(torch.equal(a, b[:, 2:5]) for a, b in zip(part.views, batch.views, strict=True))
    assert (part.label.tolist(), part.index.tolist()) == ([2, 3, 4], [52, 53, 54])
    assert part.num_views == batch.num_views == 6


@pytest.mark.parametrize("size", [0, 0.0, -1, 1.5])
def test_a_size_is_a_number_of_pixels_or_a_share(size):
    with pytest.raises(ValueError, match=rf"^size is {size}; pass"):
        View(size=size)


def test_a_share_follows_the_side_of_the_images():
    augment = Augment([View(copies=2), View(size=0.5), View(size=0.1)])
    assert [augment.sizes(side) for side in (32, 7, 1)] == [[32, 32, 16, 3], [7, 7, 4, 1], [1, 1, 1, 1]]


@pytest.mark.parametrize(
    ("size", "resolution", "said"),
    [
        (31, None, None),
        (32, None, "views of size 32 beside views of the images' side, which is 32 pixels. "),
        (40, None, "views of size 40 beside"),
        (15, Resolution(), None),
        (16, Resolution(), r"views of size 16 .* which is 16 pixels when training begins \(resolution\)"),
        (0.5, Resolution(), None),
    ],
)
def test_local_views_are_smaller_than_global_ones(size, resolution, said):
    """Else a teacher would look at the local ones, or at all."""
    dataset = in_memory([0, 1])
    dataset.image_size = 32
    augment = Augment([View(copies=2), View(copies=4, size=size)])
    if said is None:
        check_views(augment, dataset, resolution)
        return
    with pytest.raises(UserError, match=said):
        check_views(augment, dataset, resolution)


@pytest.mark.parametrize("side", [8, 28, 32, 96])
def test_multi_crop_has_two_global_views_at_every_size(side):
    augment = make(yaml.safe_load((CONF / "augment" / "multi_crop.yaml").read_text()))
    for side_now in (side, side // 2):  # also while the resolution grows
        assert augment.sizes(side_now) == [side_now] * 2 + [side_now // 2] * 4


def test_the_record_of_an_augmentation_names_sizes_where_there_are_any():
    described = AUGMENT.describe()
    assert ["size" in view for view in described] == [False, False, True, True, True, True]
    assert described[2]["size"] == 10
