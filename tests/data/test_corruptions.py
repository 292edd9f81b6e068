"""Corruptions against NumPy, SciPy, Pillow and loops over pixels, and what holds for all of them."""

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch.testing import assert_close

from ssl_lightning.data.corruptions import KINDS, SEVERITIES, STRENGTHS, brightness, corrupt, pixelate
from ssl_lightning.data.jpeg import CHROMINANCE, LUMINANCE, jpeg, steps

CLOSE = {"atol": 2e-6, "rtol": 0}
sizes = pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32), (5, 13, 9), (3, 48, 80)], ids=str)
severities = pytest.mark.parametrize("severity", SEVERITIES)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_bytes(n: int, *shape: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, *shape), dtype=torch.uint8, generator=seeded())


def smooth(n: int, c: int, height: int, width: int) -> torch.Tensor:
    """uint8 images whose neighbouring pixels are alike, as those of photographs, everywhere in the same way."""
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(n, c, height, width)), (0, 0, 1, 1), mode="wrap")
    return torch.from_numpy((127.5 + 50 * noise / noise.std()).clip(0, 255).astype(np.uint8))


def corrupted(images: torch.Tensor, kind: str, severity: int, seed: int = 0) -> torch.Tensor:
    return corrupt(images, kind, severity, seeded(seed))


# One by one


@sizes
@severities
def test_gaussian_noise_is_added(shape, severity):
    x, generator = random_bytes(3, *shape), seeded(4)
    noise = np.stack([torch.randn(shape, generator=generator).numpy() for _ in x])
    expected = (x.numpy() / 255 + STRENGTHS["gaussian_noise"][severity - 1] * noise).clip(0, 1)
    assert_close(corrupted(x, "gaussian_noise", severity, 4), torch.from_numpy(expected).float(), **CLOSE)


@severities
def test_shot_noise_counts_photons(severity):
    photons = STRENGTHS["shot_noise"][severity - 1]
    x = torch.full((4, 3, 64, 64), 51, dtype=torch.uint8)
    counts = corrupted(x, "shot_noise", severity).double() * photons
    assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    mean = 0.2 * photons  # of a Poisson distribution, which is its variance
    assert abs(counts.mean() - mean) < 5 * (mean / x.numel()) ** 0.5
    assert abs(counts.var() / mean - 1) < 0.06
    assert not corrupted(torch.zeros_like(x), "shot_noise", severity).any()


@severities
def test_impulse_noise_replaces_a_share_of_the_values(severity):
    share = STRENGTHS["impulse_noise"][severity - 1]
    x = torch.full((4, 3, 64, 64), 51, dtype=torch.uint8)
    made = corrupted(x, "impulse_noise", severity)
    blacks, whites = (made == 0).double().mean(), (made == 1).double().mean()
    assert ((made == 0) | (made == 1) | (made == 51 / 255)).all()
    for found in (blacks, whites):
        assert abs(found - share / 2) < 5 * (share / 2 / x.numel()) ** 0.5
    assert (made[:, 0] != made[:, 1]).any()  # each channel by itself


@sizes
@severities
def test_blur_equals_scipy(shape, severity):
    x = random_bytes(2, *shape)
    sigma = STRENGTHS["gaussian_blur"][severity - 1] * max(1, min(shape[1:]) / 32)
    expected = gaussian_filter(x.double().numpy() / 255, (0, 0, sigma, sigma), mode="nearest", truncate=4)
    assert_close(corrupted(x, "gaussian_blur", severity), torch.from_numpy(expected).float(), **CLOSE)


@severities
def test_brightness_is_that_of_hsv(severity):
    x, by = random_bytes(2, 3, 7, 9), STRENGTHS["brightness"][severity - 1]
    x[:, :, 0, 0], x[:, :, 0, 1], x[:, :, 0, 2] = 0, 255, 77
    expected = torch.empty(x.shape)
    for n, i, j in np.ndindex(2, 7, 9):
        hue, saturation, value = colorsys.rgb_to_hsv(*(x[n, :, i, j] / 255).tolist())
        expected[n, :, i, j] = torch.tensor(colorsys.hsv_to_rgb(hue, saturation, min(value + by, 1)))
    assert_close(corrupted(x, "brightness", severity), expected, **CLOSE)
    grey = random_bytes(2, 1, 7, 9)
    assert_close(corrupted(grey, "brightness", severity), (grey / 255 + by).clamp(max=1), **CLOSE)


def test_the_least_of_light_keeps_its_colour():
    x = torch.tensor([1e-30, 0.0, 0.0]).view(1, 3, 1, 1)
    assert_close(brightness(x, 0.25).flatten(), torch.tensor([0.25, 0, 0]), **CLOSE)


@sizes
@severities
def test_contrast_is_about_the_mean_of_each_channel(shape, severity):
    x, factor = random_bytes(2, *shape).numpy() / 255, STRENGTHS["contrast"][severity - 1]
    mean = x.mean((2, 3), keepdims=True)
    expected = torch.from_numpy((x - mean) * factor + mean).float()
    assert_close(corrupted(torch.from_numpy(x).float(), "contrast", severity), expected, **CLOSE)


CELLS = {
    8: (7, 7, 6, 6, 5),
    28: (26, 25, 23, 21, 18),
    32: (30, 28, 27, 24, 20),  # of CIFAR-10-C
    64: (57, 52, 47, 38, 30),  # 57, 51, 44, 38 and 32 of Tiny ImageNet-C
    224: (163, 126, 100, 67, 46),  # 134, 112, 89, 67 and 56 of ImageNet-C
}


@pytest.mark.parametrize("side", CELLS)
@severities
def test_pixelate_equals_pillow(side, severity):
    x, cells = random_bytes(1, 2, side, side), CELLS[side][severity - 1]
    expected = [
        Image.fromarray(channel.astype(np.float32) / 255)
        .resize((cells, cells), Image.Resampling.BOX)
        .resize((side, side), Image.Resampling.BOX)
        for channel in x[0].numpy()
    ]
    assert_close(corrupted(x, "pixelate", severity)[0], torch.from_numpy(np.stack(expected)), **CLOSE)


def test_cells_are_square_in_any_image():
    image = torch.rand(1, 1, 16, 24, generator=seeded())
    expected = image.view(8, 2, 12, 2).mean((1, 3)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert_close(pixelate(image, 0.5)[0, 0], expected, **CLOSE)
    assert_close(pixelate(image, 0.01), image.mean((2, 3), keepdim=True).expand_as(image), **CLOSE)


# JPEG


def pillow(images: torch.Tensor, quality: int) -> torch.Tensor:
    def read_back(image: np.ndarray) -> np.ndarray:
        content = io.BytesIO()
        Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0)).save(
            content, "JPEG", quality=quality
        )
        return np.asarray(Image.open(content)).reshape(*image.shape[1:], -1).transpose(2, 0, 1)

    return torch.from_numpy(np.stack([read_back(image) for image in images.numpy()]))


@pytest.mark.parametrize("quality", [100, *map(int, STRENGTHS["jpeg_compression"]), 10])
def test_tables_are_those_of_pillow(quality):
    content = io.BytesIO()
    Image.new("RGB", (8, 8)).save(content, "JPEG", quality=quality)
    tables = Image.open(content).quantization
    for number, table in enumerate((LUMINANCE, CHROMINANCE)):
        assert steps(table, quality, torch.device("cpu")).flatten().tolist() == tables[number]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 8, 8), (3, 32, 32), (3, 77, 100)], ids=str)
@severities
def test_jpeg_is_what_pillow_reads_back(shape, severity):
    """But for the whole numbers within libjpeg: on average to less than 0.75 of 255, and a tenth of what is lost."""
    x = smooth(40, *shape)
    expected = pillow(x, int(STRENGTHS["jpeg_compression"][severity - 1])).int()
    made = corrupted(x, "jpeg_compression", severity).mul(255)
    assert_close(made, made.round(), atol=1e-4, rtol=0)
    wrong, lost = (made - expected).abs().mean(), (x.int() - expected).abs().float().mean()
    assert wrong < 0.75
    assert wrong < lost / 10


@pytest.mark.parametrize("c", [1, 3])
@severities
def test_jpeg_of_one_colour_is_that_of_pillow(c, severity):
    """Of black, white and greys exactly."""
    x = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, c, 16, 16).contiguous()
    expected = pillow(x, int(STRENGTHS["jpeg_compression"][severity - 1]))
    assert torch.equal(corrupted(x, "jpeg_compression", severity).mul(255).round().byte(), expected)


def test_channels_of_other_images_are_grey_images():
    x = random_bytes(2, 5, 13, 9).float() / 255
    assert torch.equal(jpeg(x, 50), torch.cat([jpeg(x[:, i : i + 1], 50) for i in range(5)], 1))


# All of them


@pytest.mark.parametrize("side", [8, 32, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_severity_takes_images_further_away(kind, side):
    x = smooth(60, 3, side, side)
    away = [float((corrupted(x, kind, severity) - x / 255).square().mean()) for severity in SEVERITIES]
    if kind == "pixelate" and side == 8:  # to 7, 7, 6, 6 and 5 cells
        assert away[::2] == [away[1], away[3], away[4]]
        away = away[::2]
    assert away == sorted(set(away))
    assert away[0] > 0


@pytest.mark.parametrize("kind", KINDS)
@severities
def test_every_image_stays_an_image(kind, severity):
    for shape in ((1, 8, 8), (3, 8, 8), (16, 9, 13), (2, 1, 1), (3, 5, 40)):
        random = random_bytes(2, *shape)
        for x in (torch.zeros_like(random), torch.full_like(random, 255), random):
            before = x.clone()
            made = corrupted(x, kind, severity)
            assert made.shape == x.shape
            assert made.dtype == torch.float32
            assert (made >= 0).all()  # nor NaN
            assert (made <= 1).all()
            assert torch.equal(x, before)
            values = x.float() / 255
            assert torch.equal(corrupted(values, kind, severity), made)
            assert torch.equal(values, x.float() / 255)


@pytest.mark.parametrize("kind", KINDS)
def test_neither_batches_nor_the_order_in_memory_matter(kind):
    x, generator = random_bytes(10, 3, 5, 7), seeded(3)
    whole = corrupted(x, kind, 3, seed=3)
    parts = torch.cat([corrupt(some, kind, 3, generator) for some in x.split([3, 1, 6])])
    assert_close(parts, whole, **CLOSE)
    assert_close(corrupted(x.contiguous(memory_format=torch.channels_last), kind, 3, seed=3), whole, **CLOSE)


def test_only_noise_draws_and_only_from_its_generator():
    x, before = random_bytes(2, 3, 8, 8), torch.random.get_rng_state()
    for kind in KINDS:
        generator = seeded()
        first = corrupt(x, kind, 2, generator)
        assert torch.equal(generator.get_state(), seeded().get_state()) == (not kind.endswith("noise"))
        assert torch.equal(corrupted(x, kind, 2), first)
        assert torch.equal(corrupted(x, kind, 2, seed=1), first) == (not kind.endswith("noise"))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("severity", [0, 6])
def test_there_are_five_severities(severity):
    with pytest.raises(ValueError, match=f"severity is {severity}; pass one from 1 to 5"):
        corrupted(random_bytes(1, 3, 8, 8), "contrast", severity)
