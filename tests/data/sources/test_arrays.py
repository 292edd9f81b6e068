"""Files of NumPy's: what they hold is what is read, and what they are to hold is told."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from ssl_lightning.data.datamodule import check_views
from ssl_lightning.data.sources.arrays import ArrayFile
from ssl_lightning.data.view import View
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.suite import EvaluationSuite
from tests.data.synthetic import synthetic_images


def pixels(n: int = 12, channels: int = 3, size: int = 8) -> np.ndarray:
    """[n, h, w, c]."""
    return synthetic_images(n, 3, channels, size)[0].transpose(0, 2, 3, 1)


LABELS = np.arange(12) % 3
PAIR = {"images": pixels(), "labels": LABELS}


def arrays(path: Path, **changes) -> ArrayFile:
    channels = changes.get("channels", 3)
    values = {"name": "mine", "image_size": 8, "channels": 3, "num_classes": None, "path": str(path)}
    values |= {"mean": [0.5] * channels, "std": [0.2] * channels, "cache": str(path.parent / "cache")}
    return ArrayFile(**{**values, **changes})


def saved(folder: Path, given: dict[str, np.ndarray], **changes) -> ArrayFile:
    np.savez(folder / "x.npz", **given)
    return arrays(folder / "x.npz", **changes)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("X", "Y"), ("train_images", "train_labels")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_images_and_labels(tmp_path, names, save):
    save(tmp_path / "x.npz", **{names[0]: pixels(), names[1]: LABELS[:, None].astype(np.uint8), "about": np.zeros(3)})
    dataset = arrays(tmp_path / "x.npz")
    images, labels = dataset.train()
    np.testing.assert_array_equal(images.numpy(), pixels().transpose(0, 3, 1, 2))
    assert labels.tolist() == LABELS.tolist()
    assert dataset.num_classes == 3
    assert dataset.notice() == "mine: x.npz: 12 images for training in 3 classes."
    assert dataset.unlabelled == "has no test split"


@pytest.mark.parametrize("channels", [1, 2, 4, 16])
def test_any_number_of_channels(tmp_path, channels):
    dataset = saved(tmp_path, {"x": pixels(channels=channels)}, channels=channels)
    assert dataset.train().images.shape == (12, channels, 8, 8)
    assert dataset.train().labels.tolist() == [-1] * 12
    assert dataset.unlabelled == "has no labels"
    check_views(Augment([View(crop_scale=(0.2, 1.0), flip_probability=0.5)]), dataset)
    if channels != 1:
        with pytest.raises(UserError, match=f"images of {channels} channels.*Choose augment=geometric"):
            check_views(Augment([View(jitter_probability=0.8, hue=0.1)]), dataset)


def test_images_of_one_channel_need_no_axis_for_it(tmp_path):
    dataset = saved(tmp_path, {"x": pixels(channels=1)[..., 0]}, channels=1)
    np.testing.assert_array_equal(dataset.train().images[:, 0].numpy(), pixels(channels=1)[..., 0])


def test_images_alone_in_a_file(tmp_path):
    np.save(tmp_path / "x.npy", pixels())
    assert arrays(tmp_path / "x.npy").unlabelled == "has no labels"
    np.save(tmp_path / "y.npy", LABELS)
    dataset = arrays(tmp_path / "x.npy", labels=str(tmp_path / "y.npy"))
    assert dataset.train().labels.tolist() == LABELS.tolist()


def test_splits(tmp_path):
    pair = {"x": pixels(), "y": LABELS}
    given = {f"{kind}_{part}": value for part in ("train", "val", "test") for kind, value in pair.items()}
    dataset = saved(tmp_path, given)
    assert dataset.notice() == "mine: x.npz: 12 images for training in 3 classes, 12 for val, 12 for test."
    assert (dataset.has_test, dataset.has_val, dataset.unlabelled) == (True, True, None)
    EvaluationSuite().check(dataset)
    dataset = saved(tmp_path, {name: array for name, array in given.items() if "test" not in name})
    assert (dataset.has_test, dataset.has_val) == (True, False)
    assert "those for val are the test split" in dataset.notice()
    dataset = saved(
        tmp_path, {name: array for name, array in given.items() if name not in ("y_test", "x_val", "y_val")}
    )
    assert not dataset.has_test
    assert "not read: test, as images in it have no labels" in dataset.notice()


def test_a_share_is_held_out(tmp_path):
    labels = np.where(np.arange(12) < 9, LABELS, -1)
    dataset = saved(tmp_path, {"x": pixels(), "y": labels}, split=0.3)
    assert sorted(dataset.test().labels.tolist()) == [0, 1, 2]
    assert dataset.train().labels.tolist().count(-1) == 3
    together = np.concatenate([dataset.train().images.numpy(), dataset.test().images.numpy()])
    assert {image.tobytes() for image in together} == {image.tobytes() for image in pixels().transpose(0, 3, 1, 2)}
    other = saved(tmp_path, {"x": pixels(), "y": labels}, split=0.3, split_seed=1)
    assert other.content_digest("train") != dataset.content_digest("train")
    with pytest.raises(UserError, match=r"x.npz has one\. Leave it out"):
        saved(tmp_path, {"x": pixels(), "y": labels, "x_test": pixels(), "y_test": LABELS}, split=0.3).prepare()
    with pytest.raises(UserError, match="holds out nothing"):
        saved(tmp_path, {"x": pixels()}, split=0.3).prepare()


def test_16_bits_are_scaled_by_the_largest_value_of_train(tmp_path):
    train = pixels().astype(np.uint16) * 16
    train[0, 0, 0, 0] = 4095
    test = train.copy()
    test[1, 0, 0, 0] = 60_000
    dataset = saved(tmp_path, {"x_train": train, "y_train": LABELS, "x_test": test, "y_test": LABELS})
    expected = np.rint(train.transpose(0, 3, 1, 2) / 4095 * 255)
    np.testing.assert_array_equal(dataset.train().images.numpy(), expected)
    assert dataset.train().images.max() == 255
    assert dataset.test().images[1, 0, 0, 0] == 255
    assert "values of 16 bits, 0 to 4,095 in train, are scaled to 0 to 255." in dataset.notice()
    for order in "<>":
        other = saved(tmp_path, {"x": train.astype(f"{order}u2")})
        np.testing.assert_array_equal(other.train().images.numpy(), expected)


def test_settings_that_do_not_fit_are_given(tmp_path):
    images = pixels(channels=5)
    with pytest.raises(UserError) as caught:
        saved(tmp_path, {"x": images}, image_size=32).prepare()
    mean = ", ".join(f"{value:.3f}" for value in (images / 255).mean((0, 1, 2)))
    assert f"dataset.image_size=8 dataset.channels=5 'dataset.mean=[{mean}]' 'dataset.std=[" in str(caught.value)
    assert str(caught.value).endswith("augment=geometric")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"x": pixels().astype(np.float32)}, r"float32\[12, 8, 8, 3\]: images are of uint8 or uint16\. Convert"),
        ({"x": pixels().transpose(0, 3, 1, 2).repeat(4, 2).repeat(4, 3)}, r"come last: x.transpose\(0, 2, 3, 1\)"),
        ({"x": pixels().transpose(0, 3, 1, 2)}, r"uint8\[12, 3, 8, 8\]: channels come last: x.transpose\(0, 2, 3, 1\)"),
        ({"x": pixels().repeat(6, 3)}, r"uint8\[12, 8, 8, 18\]: images have at most 16 channels\. Choose some"),
        ({"x": pixels()[:, :6]}, r"uint8\[12, 6, 8, 3\]: images are square"),
        ({"x": pixels()[0, 0]}, r"uint8\[8, 3\]: give images \[n, h, w, c\]"),
        ({"x": pixels()[:0]}, r"give images \[n, h, w, c\]"),
        ({"x": pixels(), "y": LABELS[:5]}, r"labels are int64\[5\]\. Give 12 whole numbers"),
        ({"x": pixels(), "y": LABELS.astype(float)}, r"labels are float64\[12\]"),
        ({"x": pixels(), "y": LABELS - 2}, r"labels begin at -2"),
        ({"x": pixels(), "images": pixels()}, r"x and images are both images of train"),
        ({"x_train": pixels(), "x_test": pixels(channels=1)}, r"test is uint8\[12, 8, 8, 1\], but train"),
        ({"x_train": pixels(), "x_test": pixels().astype(np.uint16)}, r"test is uint16.*Give both images of one kind"),
        ({"a": pixels(), "y": LABELS}, r"holds a, y\. Call its arrays images and labels, or x and y"),
        ({"x_test": pixels()}, r"holds x_test\. Call its arrays"),
        ({"x": np.array([{}], object)}, r"cannot be read \(Object arrays cannot be loaded"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, given, message):
    with pytest.raises(UserError, match=f"^mine: .*x.npz.*{message}"):
        saved(tmp_path, given).prepare()
    assert not (tmp_path / "cache" / "datasets").exists()


def test_what_is_no_file_of_arrays(tmp_path):
    with pytest.raises(UserError, match=r"there is no .*gone.npz\. Set dataset.path"):
        arrays(tmp_path / "gone.npz").prepare()
    (tmp_path / "x.npz").write_bytes(pickle.dumps(PAIR))
    with pytest.raises(UserError, match=r"x.npz cannot be read \(.*pickle"):
        arrays(tmp_path / "x.npz").prepare()
    np.savez(tmp_path / "x.npz", **PAIR)
    (tmp_path / "x.npz").write_bytes((tmp_path / "x.npz").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"x.npz cannot be read"):
        arrays(tmp_path / "x.npz").prepare()
    np.savez(tmp_path / "x.npz", **PAIR)
    with pytest.raises(UserError, match=r"dataset.labels is for an .npy"):
        arrays(tmp_path / "x.npz", labels=str(tmp_path / "y.npy")).prepare()


def test_content_counts_and_not_its_place(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    here, there = saved(tmp_path, PAIR), saved(tmp_path / "elsewhere", PAIR)
    assert here.content_digest("train") == there.content_digest("train") != ""
    assert here.content_digest("test") == ""
    assert protocol_of({}, here) == protocol_of({}, there)
    assert here.fingerprint() == there.fingerprint()
    assert saved(tmp_path, {**PAIR, "labels": LABELS[::-1]}).content_digest("train") != here.content_digest("train")
