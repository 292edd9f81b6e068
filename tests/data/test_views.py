"""Augment against torchvision, image by image, and the distributions that they are drawn from."""

import dataclasses
import itertools
import subprocess
import sys

import pytest
import torch
from scipy.stats import ks_2samp, kstest
from torch.testing import assert_close
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms.v2 import functional as tv

from ssl_lightning.config.components import make
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data import painting as module
from ssl_lightning.data import views as views_module
from ssl_lightning.data.choices import choose
from ssl_lightning.data.color import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    blur,
    grey,
    solarise,
)
from ssl_lightning.data.geometry import crop_windows, resample
from ssl_lightning.data.view import View
from ssl_lightning.data.views import Augment
from tests.composing import composed

BILINEAR = InterpolationMode.BILINEAR
CLOSE = {"atol": 1e-5, "rtol": 0}
channels = pytest.mark.parametrize("c", [1, 3])
FULL = View(
    crop_scale=(0.08, 1.0),
    flip_probability=0.5,
    jitter_probability=0.7,
    brightness=0.8,
    contrast=0.8,
    saturation=0.8,
    hue=0.2,
    grey_probability=0.3,
    blur_probability=0.5,
    blur_kernel=5,
    solarise_probability=0.4,
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_images(n: int, c: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Float images with the cases that hue distinguishes: black, white, grey, and equal channels."""
    x = torch.rand(n, c, height, width, generator=seeded(seed))
    x[:, :, 0, 0], x[:, :, 0, 1], x[:, :, 1, 0] = 0.0, 1.0, 0.4
    x[:, -1, 2] = x[:, 0, 2]  # red = blue
    x[:, : max(1, c - 1), 3] = 0.7  # red = green
    x[:, :, 4] = x[:, :, 4].round()  # corners of the colour cube
    return x


def random_bytes(n: int, c: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (n, c, height, width), dtype=torch.uint8, generator=seeded(seed))


def one_by_one(operator, x, values):
    return torch.cat([operator(image[None], value) for image, value in zip(x, values.tolist(), strict=True)])


@channels
@pytest.mark.parametrize(
    ("ours", "theirs", "values"),
    [
        (adjust_brightness, tv.adjust_brightness, [0.0, 0.2, 1.0, 1.8]),
        (adjust_contrast, tv.adjust_contrast, [0.0, 0.2, 1.0, 1.8]),
        (adjust_saturation, tv.adjust_saturation, [0.0, 0.2, 1.0, 1.8]),
        (adjust_hue, tv.adjust_hue, [-0.5, -0.31, -0.1, 0.0, 1 / 6, 0.2, 1 / 3, 0.5]),
        (lambda x, s: blur(x, s, 3), lambda x, s: tv.gaussian_blur(x, 3, s), [0.1, 0.7, 2.0]),
        (lambda x, s: blur(x, s, 7), lambda x, s: tv.gaussian_blur(x, 7, s), [0.1, 0.7, 2.0]),
    ],
    ids=["brightness", "contrast", "saturation", "hue", "blur3", "blur7"],
)
def test_operator_equals_torchvision_for_each_image(ours, theirs, values, c):
    values = torch.tensor(values)
    x = random_images(len(values), c, 14, 11)
    before = x.clone()
    assert_close(ours(x, values), one_by_one(theirs, x, values), **CLOSE)
    assert torch.equal(x, before)


@channels
def test_grey_and_solarise_equal_torchvision(c):
    x = random_images(3, c, 9, 8)
    assert_close(grey(x), tv.rgb_to_grayscale(x, num_output_channels=c), **CLOSE)
    for threshold in (0.0, 0.4, 1.0):
        assert torch.equal(solarise(x, threshold), tv.solarize(x, threshold))


def windows_of(view: View, n: int, height: int, width: int, seed: int) -> torch.Tensor:
    heights, widths = torch.full((n,), height), torch.full((n,), width)
    return crop_windows(view.crop_scale, view.crop_ratio, heights, widths, seeded(seed))


def random_windows(n: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    return windows_of(View(crop_scale=(0.05, 1.0), crop_ratio=(0.5, 2.0)), n, height, width, seed)


@channels
@pytest.mark.parametrize("size", [5, 16, 32])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 13)])
def test_crop_and_flip_equal_torchvision(height, width, size, c):
    n = 24
    x = random_images(n, c, height, width)
    windows = random_windows(n, height, width)
    flip = torch.arange(n) % 2 == 0
    expected = []
    for image, window, mirrored in zip(x, windows.T.int().tolist(), flip.tolist(), strict=True):
        crop = tv.resized_crop(image, *window, [size, size], BILINEAR, antialias=False)
        expected.append(tv.horizontal_flip(crop) if mirrored else crop)
    still = resample(x, *windows, flip, None, size)
    assert_close(still, torch.stack(expected), **CLOSE)
    # An angle of 0 is no rotation, also beside images that turn.
    turned = resample(x, *windows, flip, torch.where(torch.arange(n) < n // 2, 0.0, 20.0), size)
    assert_close(turned[: n // 2], still[: n // 2], **CLOSE)
    assert not torch.isclose(turned[n // 2 :], still[n // 2 :], atol=1e-2).all()


@channels
def test_rotation_of_the_full_image_equals_torchvision(c):
    angles = torch.tensor([-170.0, -90.0, -33.0, 0.0, 10.0, 45.0, 90.0, 180.0])
    x = random_images(len(angles), c, 16, 16)
    zeros, full = torch.zeros(len(angles)), torch.full((len(angles),), 16.0)
    # Without a fill, torchvision's grid is surrounded by zeros, as ours is.
    expected = one_by_one(lambda image, angle: tv.rotate(image, angle, BILINEAR), x, angles)
    turned = resample(x, zeros, zeros, full, full, zeros.bool(), angles, 16)
    assert_close(turned, expected, **CLOSE)
    mirrored = resample(x, zeros, zeros, full, full, ~zeros.bool(), angles, 16)
    assert_close(mirrored, expected.flip(-1), **CLOSE)


@pytest.mark.parametrize("angle", [-90.0, -20.0, 7.0, 60.0])
def test_rotated_window_is_a_crop_of_the_image_rotated_about_its_centre(angle):
    x = random_images(3, 3, 18, 21)
    top, left, side = torch.tensor([0.0, 5.0, 10.0]), torch.tensor([2.0, 0.0, 13.0]), 8
    full = torch.full((3,), float(side))
    ours = resample(x, top, left, full, full, torch.zeros(3).bool(), torch.full((3,), angle), side)
    for k, (i, j) in enumerate(zip(top.int().tolist(), left.int().tolist(), strict=True)):
        rotated = tv.rotate(x[k], angle, BILINEAR, center=[j + side / 2, i + side / 2])
        assert_close(ours[k], tv.crop(rotated, i, j, side, side), **CLOSE)


def expected_view(image, view, drawn, k, size):
    """Image k of a view by torchvision alone, from its drawn parameters."""
    p = drawn.parameters[:, k].tolist()
    jittered, greyed, blurred, solarised = drawn.masks[:, k].tolist()
    x = tv.resized_crop(
        tv.to_dtype(image, torch.float32, scale=True),
        *(int(value) for value in p[:4]),
        [size, size],
        BILINEAR,
        antialias=False,
    )
    x = tv.horizontal_flip(x) if p[4] else x
    factors = dict(zip(("brightness", "contrast", "saturation", "hue"), p[6:10], strict=True))
    if jittered:
        for name in drawn.order:
            x = getattr(tv, f"adjust_{name}")(x, factors[name])
    x = tv.rgb_to_grayscale(x, num_output_channels=len(x)) if greyed else x
    x = tv.gaussian_blur(x, view.blur_kernel, p[10]) if blurred else x
    return tv.solarize(x, view.solarise_threshold) if solarised else x


@channels
@pytest.mark.parametrize("way", [1, 3 * 12 * 12 * 7, 10**6, "masks"], ids=["each", "seven", "all", "masks"])
def test_views_equal_torchvision_given_the_draws(c, way, monkeypatch, request):
    if way == "masks":
        request.getfixturevalue("masks")
    else:
        monkeypatch.setattr(module, "GROUP_FLOATS", way)
    n, size = 20, 12
    images = random_bytes(n, c, 16, 14)
    mean, std = torch.linspace(0.3, 0.5, c), torch.linspace(0.2, 0.4, c)
    kinds = [FULL, dataclasses.replace(FULL, blur_probability=1.0, solarise_probability=0.0)]
    (ours,) = Augment(kinds)(images, mean, std, seeded(1), size)
    generator = seeded(1)
    draws = [choose(view, n, 16, 14, generator) for view in kinds]
    assert ours.dtype == torch.float32
    for v, (view, drawn) in enumerate(zip(kinds, draws, strict=True)):
        for k in range(n):
            expected = expected_view(images[k], view, drawn, k, size)
            expected = tv.normalize(expected, mean.tolist(), std.tolist())
            assert_close(ours[v, k], expected, atol=1e-4, rtol=0)  # 1e-5 over the smallest std


# The two ways


AUGMENTS = sorted(file.stem for file in (CONF / "augment").glob("*.yaml"))
SQUARE = dataclasses.replace(FULL, copies=2, rotation_degrees=20.0)


@pytest.fixture
def masks(monkeypatch) -> None:
    """Views are made as on an accelerator: every operator on all images."""
    monkeypatch.setattr(views_module, "by_subsets", views_module.by_masks)


def augment_of(name: str) -> Augment:
    """An option of conf/augment; `all` has every operator, in two sizes."""
    if name == "all":
        return Augment([SQUARE, dataclasses.replace(SQUARE, size=12, jitter_probability=1.0)])
    return make(resolve(composed(f"augment={name}"))["augment"])


@pytest.mark.one_in(36)
@pytest.mark.parametrize("name", [*AUGMENTS, "all"])
@pytest.mark.parametrize("group_floats", [3 * 16 * 16 * 5, 10**7])
def test_masks_give_the_numbers_of_subsets(name, group_floats, request, monkeypatch):
    monkeypatch.setattr(module, "GROUP_FLOATS", group_floats)
    images, statistics = random_bytes(23, 3, 16, 16), (torch.tensor([0.1, 0.5, 0.3]), torch.tensor([0.2, 0.4, 0.9]))
    subsets = [augment_of(name)(images, *statistics, seeded(seed)) for seed in range(3)]
    request.getfixturevalue("masks")
    for seed, expected in enumerate(subsets):
        for ours, theirs in zip(augment_of(name)(images, *statistics, seeded(seed)), expected, strict=True):
            assert_close(ours, theirs, atol=1e-6, rtol=0)


def compare_compiled(name: str) -> None:
    """Views of 30 batches, of which each has another order of the jitter and touches other images."""
    images, statistics = random_bytes(23, 3, 16, 16), (torch.tensor([0.1, 0.5, 0.3]), torch.tensor([0.2, 0.4, 0.9]))
    compiled = augment_of(name)
    compiled.compiled = True
    compiled(images, *statistics, seeded(0))
    with torch._dynamo.config.patch(error_on_recompile=True):
        for seed in range(30):
            made = compiled(images, *statistics, seeded(seed))
            for ours, theirs in zip(made, augment_of(name)(images, *statistics, seeded(seed)), strict=True):
                assert_close(ours, theirs, atol=3e-5, rtol=0)  # 1e-5 over the smallest std


@pytest.mark.nightly  # half a minute of compiling each
@pytest.mark.parametrize("name", ["all", "asymmetric"])
def test_compiled_views_have_the_numbers_and_make_no_graph_anew(name):
    """In a process whose annotations are not checked, which no graph could hold."""
    command = f"from tests.data.test_views import compare_compiled; compare_compiled({name!r}); print('as they are')"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.stdout == "as they are\n", done.stderr


def test_without_augmentation_a_view_is_the_normalised_image():
    images = random_bytes(4, 3, 8, 8)
    mean, std = torch.tensor([0.1, 0.5, 0.3]), torch.tensor([0.2, 0.4, 0.9])
    ((view,),) = Augment([View()])(images, mean, std, seeded(0))
    expected = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.equal(view, expected)


def test_copies_share_no_pixels_and_leave_the_input():
    images = random_bytes(40, 3, 8, 8)
    before = images.clone()
    (views,) = Augment([View(copies=2, grey_probability=0.5)])(images, torch.zeros(3), torch.ones(3), seeded(0))
    plain = images / 255
    untouched = (views == plain).flatten(2).all(2)
    greyed = torch.isclose(views, grey(plain), atol=1e-6).flatten(2).all(2)
    assert torch.equal(untouched, ~greyed)
    assert (untouched[0] != untouched[1]).any()
    assert torch.equal(images, before)


def test_kinds_follow_one_another_in_the_given_order():
    images = random_bytes(5, 3, 8, 8)
    kinds = [
        View(copies=2),
        View(solarise_probability=1.0, solarise_threshold=0.0),
        View(grey_probability=1.0),
    ]
    pipeline = Augment(kinds)
    (views,) = pipeline(images, torch.zeros(3), torch.ones(3), seeded(0))
    plain = images / 255
    assert pipeline.num_views == len(views) == 4
    assert_close(views, torch.stack((plain, plain, 1 - plain, grey(plain))))


def test_every_copy_and_every_image_is_drawn_for_itself():
    images = random_bytes(1, 3, 16, 16).repeat(6, 1, 1, 1)
    every = dataclasses.replace(FULL, copies=3, jitter_probability=1.0, solarise_probability=0.0)
    (views,) = Augment([every])(images, torch.zeros(3), torch.ones(3), seeded(0))
    assert len(views.flatten(0, 1).flatten(1).unique(dim=0)) == 18


def test_views_are_a_function_of_the_generator():
    images, mean, std = random_bytes(6, 3, 16, 16), torch.zeros(3), torch.ones(3)
    pipeline = Augment([dataclasses.replace(FULL, copies=2)])
    (first,), (again,), (other,) = (pipeline(images, mean, std, seeded(seed)) for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.isclose(first, other).all(-1).all(-1).all(-1).any()
    generator = seeded(3)
    pipeline(images, mean, std, generator)
    assert not torch.equal(pipeline(images, mean, std, generator)[0], first)


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (32, 48, (0.3, 1.0), (3 / 4, 4 / 3)),
        (40, 24, (0.5, 1.0), (0.9, 1.2)),
    ],
)
def test_crops_are_distributed_as_in_torchvision(height, width, scale, ratio):
    num_theirs, num_ours = 4000, 20000
    image = torch.empty(1, height, width)
    torch.manual_seed(0)
    get = RandomResizedCrop.get_params
    theirs = torch.tensor([get(image, list(scale), list(ratio)) for _ in range(num_theirs)])
    ours = windows_of(View(crop_scale=scale, crop_ratio=ratio), num_ours, height, width, 0)
    assert torch.equal(ours, ours.round())
    top, left, crop_height, crop_width = ours
    assert top.min() == 0
    assert left.min() == 0
    assert (top + crop_height).max() == height
    assert (left + crop_width).max() == width
    quantities = {
        "top": lambda t: t[0],
        "left": lambda t: t[1],
        "height": lambda t: t[2],
        "width": lambda t: t[3],
        "area": lambda t: t[2] * t[3],
        "ratio": lambda t: t[3] / t[2],
        "right": lambda t: t[1] + t[3],
        "bottom": lambda t: t[0] + t[2],
    }
    for name, quantity in quantities.items():
        assert ks_2samp(quantity(theirs.T.double()), quantity(ours.double())).pvalue > 1e-3, name


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(32, 64, (3 / 4, 4 / 3)), (61, 20, (3 / 4, 4 / 3)), (30, 30, (2.0, 3.0)), (17, 23, (1.0, 1.0))],
)
def test_impossible_crops_fall_back_to_torchvisions_central_one(height, width, ratio):
    # With almost the full area, no window of these ratios fits.
    windows = windows_of(View(crop_scale=(0.99, 1.0), crop_ratio=ratio), 50, height, width, 0)
    theirs = RandomResizedCrop.get_params(torch.empty(1, height, width), [0.99, 1.0], list(ratio))
    assert torch.equal(windows, torch.tensor(theirs).float()[:, None].expand(4, 50))


def test_full_area_of_a_square_is_the_whole_image():
    windows = windows_of(View(), 1000, 32, 32, 0)
    assert torch.equal(windows, torch.tensor([0.0, 0.0, 32.0, 32.0])[:, None].expand(4, 1000))


def test_draws_have_the_stated_distributions():
    n = 20000
    view = View(
        flip_probability=0.5,
        rotation_degrees=25.0,
        jitter_probability=0.8,
        brightness=0.4,
        contrast=1.5,
        saturation=0.8,
        hue=0.2,
        grey_probability=0.2,
        blur_probability=0.5,
        blur_sigma=(0.3, 1.7),
        solarise_probability=0.1,
    )
    drawn = choose(view, n, 32, 32, seeded(0))
    indicators = torch.cat((drawn.parameters[4:5], drawn.masks.float()))
    probabilities = torch.tensor([0.5, 0.8, 0.2, 0.5, 0.1])
    deviation = (probabilities * (1 - probabilities) / n).sqrt()
    assert ((indicators.mean(1) - probabilities).abs() < 4 * deviation).all()

    intervals = [(-25, 25), (0.6, 1.4), (0, 2.5), (0.2, 1.8), (-0.2, 0.2), (0.3, 1.7)]
    for values, (low, high) in zip(drawn.parameters[5:], intervals, strict=True):
        assert kstest(values.double(), "uniform", args=(low, high - low)).pvalue > 1e-3

    # Independent of one another: all 55 correlations within 4.5 deviations of zero.
    correlations = torch.corrcoef(torch.cat((indicators, drawn.parameters[5:]))).fill_diagonal_(0)
    assert correlations.abs().max() < 4.5 / n**0.5


@pytest.mark.parametrize(("probability", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_certain_events_are_certain(probability, share):
    view = View(flip_probability=probability, grey_probability=probability, solarise_probability=probability)
    drawn = choose(view, 5000, 8, 8, seeded(0))
    assert drawn.parameters[4].mean() == share
    assert drawn.masks[[1, 3]].float().mean() == share


def test_all_orders_of_the_jitter_occur():
    generator = seeded(0)
    orders = [tuple(choose(FULL, 1, 8, 8, generator).order) for _ in range(500)]
    names = ("brightness", "contrast", "saturation", "hue")
    assert set(orders) == set(itertools.permutations(names))
    # χ² with 23 degrees of freedom: mean 23, 99.9 % quantile 49.7.
    counts = torch.tensor([orders.count(order) for order in set(orders)]).double()
    assert ((counts - 500 / 24).square() / (500 / 24)).sum() < 49.7


@pytest.mark.parametrize(
    ("field", "value", "legal"),
    [
        ("copies", 0, "at least 1"),
        ("crop_scale", (0.0, 1.0), "high <= 1"),
        ("crop_scale", (0.5, 1.1), "high <= 1"),
        ("crop_scale", (0.9, 0.5), "low <= high"),
        ("crop_scale", (0.9,), "two numbers"),
        ("crop_ratio", (0.0, 1.0), "0 < low"),
        ("crop_ratio", (2.0, 1.0), "low <= high"),
        ("flip_probability", -0.1, r"in \[0, 1\]"),
        ("rotation_degrees", -5.0, r"in \[0, 180\]"),
        ("jitter_probability", 1.1, r"in \[0, 1\]"),
        ("brightness", -0.1, "of at least 0"),
        ("contrast", float("inf"), "of at least 0"),
        ("saturation", float("nan"), "of at least 0"),
        ("hue", 0.6, r"in \[0, 0.5\]"),
        ("grey_probability", 2.0, r"in \[0, 1\]"),
        ("blur_probability", 1.01, r"in \[0, 1\]"),
        ("blur_kernel", 4, "odd"),
        ("blur_kernel", -1, "odd"),
        ("blur_sigma", (0.0, 1.0), "0 < low"),
        ("solarise_probability", -1.0, r"in \[0, 1\]"),
        ("solarise_threshold", 1.5, r"in \[0, 1\]"),
    ],
)
def test_a_wrong_field_is_named_with_its_range(field, value, legal):
    with pytest.raises(ValueError, match=rf"^{field} is .*{legal}"):
        View(**{field: value})


def test_no_views_and_no_size_are_refused():
    with pytest.raises(ValueError, match="at least one View"):
        Augment([])
    with pytest.raises(ValueError, match=r"8x9 pixels.*pass the views' size"):
        Augment([View()])(random_bytes(2, 3, 8, 9), torch.zeros(3), torch.ones(3), seeded(0))
