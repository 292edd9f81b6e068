"""Features are those of all images in order, whoever makes them, and wherever they are kept."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_lightning.data.dataset import Split
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import Features, cached, extract
from ssl_lightning.processes import ALONE
from tests.processes import group


def split_of(length: int = 70) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (length, 1, 2, 2), dtype=torch.uint8, generator=generator)
    return Split(images, torch.arange(length) % 7)


def encode(images: Tensor, kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    values = images.flatten(1).to(kind)
    return values, 2 * values[:, :3]


def assert_features(features: Features, split: Split) -> None:
    expected = split.images.flatten(1).float()
    assert torch.equal(features.representations, expected)
    assert torch.equal(features.embeddings, 2 * expected[:, :3])
    assert torch.equal(features.labels, split.labels)


@pytest.mark.parametrize("batch_size", [1, 8, 70, 512])
def test_features_of_all_images_in_order(batch_size):
    assert_features(extract(encode, split_of(), batch_size=batch_size), split_of())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_features_are_float32(kind):
    features = extract(partial(encode, kind=kind), split_of())
    assert features.representations.dtype == features.embeddings.dtype == torch.float32
    assert_features(features, split_of())


def test_features_can_live_in_files(tmp_path):
    assert_features(extract(encode, split_of(), folder=tmp_path / "new"), split_of())
    stored = np.load(tmp_path / "new" / "representations.npy")
    assert torch.equal(torch.from_numpy(stored), split_of().images.flatten(1).float())


def test_autograd_takes_features_as_inputs():
    network = torch.nn.Linear(4, 3)
    features = extract(lambda images: (x := images.flatten(1).float(), network(x)), split_of())
    torch.nn.Linear(3, 1)(features.embeddings).sum().backward()  # tensors of inference mode would be refused


def together(rank: int, folder: str) -> list[Tensor]:
    seen = []

    def watched(images: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(len(images))
        return encode(images)

    features = extract(watched, split_of(), group(rank), Path(folder), batch_size=16)
    assert sum(seen[1:]) == 35  # after the two that tell the lengths
    return list(features)


def test_two_processes_share_the_images(pair, tmp_path):
    for features in pair(together, str(tmp_path)):
        assert_features(Features(*features), split_of())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value):
    def broken(images: Tensor) -> tuple[Tensor, Tensor]:
        representations, embeddings = encode(images)
        return representations, torch.where(images[:, 0, 0, :1] == split_of().images[40, 0, 0, 0], value, embeddings)

    with pytest.raises(UserError, match=r"gives embeddings that are not finite \(of images \d+ to \d+\)"):
        extract(broken, split_of(), batch_size=16)


def cut(folder: Path) -> None:
    file = folder / "representations.npy"
    file.write_bytes(file.read_bytes()[:-4])


def empty(folder: Path) -> None:
    (folder / "embeddings.npy").write_bytes(b"")


def one_gone(folder: Path) -> None:
    (folder / "embeddings.npy").unlink()


def of_others(folder: Path) -> None:
    np.save(folder / "representations.npy", np.zeros((3, 4), np.float32))


@pytest.mark.parametrize("damage", [cut, empty, one_gone, of_others])
def test_damaged_features_are_made_again(tmp_path, capsys, damage: Callable[[Path], None]):
    begun: list[str] = []

    def made() -> Features:
        return cached(encode, split_of(), tmp_path, ALONE, 16, "features of train", begun.append)

    first = made()
    assert_features(first, split_of())
    assert_features(made(), split_of())
    assert begun == ["features of train: 70 images"]
    damage(tmp_path)
    assert_features(made(), split_of())
    assert len(begun) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"Warning: the features in {tmp_path} are damaged (")
    assert error.endswith("). They are made again.\n")
    assert error.count("\n") == 1


def test_features_that_were_not_finished_are_made_again(tmp_path):
    """As a killed process leaves them, also where it was making damaged ones again."""
    calls = []

    def stops(images: Tensor) -> tuple[Tensor, Tensor]:
        calls.append(len(images))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return encode(images)

    cached(encode, split_of(), tmp_path, ALONE, 16, "", begun := lambda _: None)
    cut(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cached(stops, split_of(), tmp_path, ALONE, 16, "", begun)
    assert_features(cached(encode, split_of(), tmp_path, ALONE, 16, "", begun), split_of())


def test_features_of_former_versions_are_read(tmp_path):
    extract(encode, split_of(), folder=tmp_path)
    (tmp_path / "DONE").touch()
    assert_features(cached(extract, split_of(), tmp_path, ALONE, 16, "", print), split_of())  # which makes none
