"""Features and subjects that tests of evaluators look at."""

import torch
from torch import Tensor, nn

from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.evaluation.evaluator import Subject
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.models.encoder import Encoder


class Linear(nn.Module):
    """Flattened images times a matrix: the plainest encoder."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.weight.T


def features_of(encoder: Encoder, split: Split) -> Features:
    images = split.images[:]
    assert isinstance(images, Tensor)
    with torch.no_grad():
        representations, embeddings = encoder.features(images)
    return Features(representations, embeddings, split.labels)


def subject_of(encoder: Encoder, dataset: ImageDataset) -> Subject:
    """On the CPU, with the features of all splits."""
    splits = splits_of(True, dataset)
    assert splits.test is not None
    features = {"train": features_of(encoder, splits.train), "test": features_of(encoder, splits.test)}
    return Subject(encoder, dataset, splits, features)
