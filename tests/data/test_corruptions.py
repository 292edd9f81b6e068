"""Each corruption against a plain one, and JPEG against Pillow's."""

import io
from typing import get_args

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from torch import Tensor

from ssl_lightning.data.corruptions import NOISY, STRENGTHS, Kind, Severity, corrupt
from ssl_lightning.data.jpeg import jpeg

KINDS: tuple[Kind, ...] = get_args(Kind)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


def images(n: int = 3, c: int = 3, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth ones, as photographs are, with edges, in steps of 1/255."""
    generator = np.random.default_rng(seed)
    coarse = generator.random((n, c, 4, 4))
    fine = np.stack([[zoom(plane, side / 4, order=1) for plane in image] for image in coarse])
    fine[:, :, : side // 2, : side // 3] *= 0.4
    return torch.from_numpy((fine * 255).round() / 255).float()


def numbers(kind: Kind, like: Tensor) -> Tensor | None:
    if kind not in NOISY:
        return None
    generator = torch.Generator().manual_seed(1)
    draw = torch.rand if kind == "impulse_noise" else torch.randn
    return draw(like.shape, generator=generator)


def plain(kind: Kind, x: np.ndarray, strength: float, drawn: np.ndarray | None) -> np.ndarray:
    """Of one channel of one image, by loops and SciPy."""
    side, out = x.shape[0], x.copy()
    if kind == "gaussian_noise":
        out = x + strength * drawn
    elif kind == "shot_noise":
        out = x + np.sqrt(x / strength) * drawn
    elif kind == "impulse_noise":
        assert drawn is not None
        for i, j in np.ndindex(x.shape):
            if drawn[i, j] < strength / 2:
                out[i, j] = 0
            elif drawn[i, j] >= 1 - strength / 2:
                out[i, j] = 1
    elif kind == "blur":
        sigma = strength * side / 32
        out = gaussian_filter(x, sigma, mode="mirror", radius=min(int(np.ceil(4 * sigma)), side - 1))
    elif kind == "brightness":
        out = x + strength
    elif kind == "contrast":
        out = (x - x.mean()) * strength + x.mean()
    elif kind == "pixelation":
        few = round(strength * side)
        coarse = np.empty((few, few))
        for a, b in np.ndindex(few, few):
            rows = slice(a * side // few, -(-(a + 1) * side // few))
            columns = slice(b * side // few, -(-(b + 1) * side // few))
            coarse[a, b] = x[rows, columns].mean()
        for i, j in np.ndindex(x.shape):
            out[i, j] = coarse[int((i + 0.5) * few / side), int((j + 0.5) * few / side)]
    return np.clip(out, 0, 1)


@pytest.mark.parametrize("side", [8, 32, 45])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
def test_each_kind_is_what_its_name_says(kind: Kind, side: int):
    x = images(2, 2, side)
    drawn = numbers(kind, x)
    for severity in SEVERITIES:
        found = corrupt(x, kind, severity, drawn)
        for n, c in np.ndindex(2, 2):
            mine = drawn[n, c].numpy() if drawn is not None else None
            expected = plain(kind, x[n, c].double().numpy(), STRENGTHS[kind][severity - 1], mine)
            np.testing.assert_allclose(found[n, c].numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_severity_grows(kind: Kind):
    x = images(6)
    distances = [float((corrupt(x, kind, severity, numbers(kind, x)) - x).abs().mean()) for severity in SEVERITIES]
    assert distances[0] > 0
    if kind == "pixelation":  # coarser grids meet edges better or worse
        assert distances[4] > distances[0]
    else:
        assert distances == sorted(distances)


@pytest.mark.parametrize("side", [8, 28])
@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_any_kind_stay_images(kind: Kind, channels: int, side: int):
    for value in (0.0, 0.5, 1.0):
        x = torch.full((2, channels, side, side), value)
        found = corrupt(x, kind, 5, numbers(kind, x))
        assert found.shape == x.shape
        assert 0 <= found.min() <= found.max() <= 1
    for severity in SEVERITIES:  # what is of one brightness has nothing to blur, average or compress
        if kind in ("blur", "contrast", "pixelation"):
            torch.testing.assert_close(corrupt(x, kind, severity), x)


def by_pillow(x: Tensor, quality: int) -> tuple[Tensor, Tensor]:
    """What comes back, and what went in."""
    pixels = (x * 255).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels.squeeze()).save(file, "jpeg", quality=quality)
    back = torch.from_numpy(np.asarray(Image.open(file)).reshape(pixels.shape).copy())
    return back.permute(2, 0, 1) / 255, torch.from_numpy(pixels).permute(2, 0, 1) / 255


@pytest.mark.parametrize("quality", [90, 80, 65, 50, 40, 10])
@pytest.mark.parametrize(("channels", "side"), [(1, 32), (1, 45), (3, 32), (3, 45), (1, 8), (3, 8)])
def test_jpeg_is_pillow_s_but_for_rounding(quality: int, channels: int, side: int):
    """Pillow transforms in whole numbers, which now and then rounds a coefficient to the other side."""
    x = images(4, channels, side)
    found = jpeg(x, quality)
    reference = torch.stack([by_pillow(one, quality)[0] for one in x])
    off, change = (found - reference).abs().mean(), (reference - x).abs().mean()
    assert off < 2.5 / 255
    assert off < 0.35 * change


def test_jpeg_of_other_channels_is_that_of_each():
    x = images(2, 5)
    alone = torch.cat([jpeg(x[:, c : c + 1], 50) for c in range(5)], 1)
    assert torch.equal(jpeg(x, 50), alone)
