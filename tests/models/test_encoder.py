"""What a frozen encoder takes."""

import pytest
import torch
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.models.encoder import Encoder


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(nn.Flatten(), mean=[0.5], std=[0.25], image_size=4)


def test_floats_and_stored_images_are_the_same(encoder):
    images = torch.arange(32, dtype=torch.uint8).reshape(2, 1, 4, 4) * 8
    torch.testing.assert_close(encoder(images), encoder(images / 255))
    torch.testing.assert_close(encoder(images), (images / 255 - 0.5).flatten(1) / 0.25)


@pytest.mark.parametrize("values", [(0.0, 255.0), (-1.0, 1.0), (0.0, torch.nan)], ids=str)
def test_floats_of_another_range_are_refused(encoder, values):
    images = torch.tensor(values).repeat(8).reshape(1, 1, 4, 4)
    with pytest.raises(UserError, match=r"takes them in \[0, 1\], or uint8"):
        encoder(images)


def test_what_resampling_leaves_outside_is_taken(encoder):
    assert encoder(torch.full((1, 1, 4, 4), 1.05)).shape == (1, 16)
