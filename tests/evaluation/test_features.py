"""Features are those of all images in order, whoever makes them, and wherever they are kept."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_lightning.data.dataset import Split
from ssl_lightning.evaluation.features import Features, extract
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
