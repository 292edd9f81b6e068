"""What a dataset's images and its views ask of each other is said before training."""

from dataclasses import replace

import pytest
import torch

from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.random import Random
from tests.subsets.cutting import mask_of

PLAIN = View(copies=2, crop_scale=(0.5, 1.0), flip_probability=0.5, blur_probability=0.5, solarise_probability=0.2)


def data(view: View, channels: int) -> SubsetDataModule:
    dataset = Digits(name="digits", image_size=8, channels=1, num_classes=10, mean=[0.3], std=[0.4])
    mask = mask_of(Random(), dataset, 0.01)
    dataset.channels = channels
    return SubsetDataModule(dataset, mask, augment=Augment([view]), batch_size=8)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"jitter_probability": 0.8, "brightness": 0.4, "hue": 0.1, "grey_probability": 0.2}, "hue, grey_probability"),
        ({"jitter_probability": 0.8, "contrast": 0.4, "saturation": 0.1}, "contrast, saturation"),
    ],
)
def test_colours_of_images_that_have_none(changes, named):
    with pytest.raises(
        UserError, match=rf"augment changes {named} of views, which images of 5 channels.* set each to 0"
    ):
        data(replace(PLAIN, **changes), 5).setup()
    for channels in (1, 3):
        data(replace(PLAIN, **changes), channels).setup()


def test_views_of_images_of_five_channels():
    view = replace(PLAIN, jitter_probability=1.0, brightness=0.4)
    data(view, 5).setup()
    images = torch.randint(0, 256, (6, 5, 8, 8), dtype=torch.uint8)
    (views,) = Augment([view])(images, torch.zeros(5), torch.ones(5), torch.Generator())
    assert views.shape == (2, 6, 5, 8, 8)
    assert not torch.equal(views[0], views[1])
