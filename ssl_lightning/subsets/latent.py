"""Latent classes: the groups within which a ranking is made."""

import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
from annotated_types import Gt, Le
from jaxtyping import Float, Float32, Int, Int64
from torch import Tensor

from ssl_lightning.config.markers import Content
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.linear import draw_labels
from ssl_lightning.evaluation.logistic import Standardiser, fit_logistic


class Groups(NamedTuple):
    """How images are grouped.

    Args:
        levels: the group of each image, then the groups that contain it, from the finest to the coarsest.
        centroids: of group k, where groups are clusters of the mean embeddings, scaled to unit length.
    """

    levels: Int64[np.ndarray, "n l"]
    centroids: Float32[np.ndarray, "k d"] | None = None


class LatentClasses(ABC):
    """How images are grouped. A dataclass, so that a ranking can say how its classes were made."""

    @abstractmethod
    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        """The group of each image of train, given its mean embedding."""

    def group(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Groups:
        """The same with what is known besides."""
        return Groups(self.assign(dataset, features, seed)[:, None])

    @property
    def depth(self) -> int:
        """How many levels of groups there are: more than one where groups form a tree."""
        return 1

    def number(self, num_classes: int | None) -> int | None:
        """How many groups there are at most, for so many classes of the dataset; None where nobody knows."""
        return num_classes

    def content_digest(self) -> str:
        """Hash of what is read besides dataset and features."""
        return ""

    def check_dataset(self, dataset: ImageDataset) -> None:  # noqa: B027  most kinds read no labels
        """Raises UserError where this dataset cannot be grouped: said before proxies are trained."""


@dataclass(frozen=True, kw_only=True)
class Labels(LatentClasses):
    """The dataset's own labels."""

    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        return self._labels(dataset).numpy()

    def check_dataset(self, dataset: ImageDataset) -> None:
        self._labels(dataset)

    def _labels(self, dataset: ImageDataset) -> Int[Tensor, " n"]:
        advice = "Choose latent classes that need none: subset.latent=kmeans subset.latent.clusters=10."
        if (dataset.train().labels >= 0).any():
            advice = f"{advice.removesuffix('.')}; or that learn from those there are: subset.latent=few_labels."
        return dataset.all_labels("subset.latent=labels", advice)


@dataclass(frozen=True, kw_only=True)
class One(LatentClasses):
    """All images."""

    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        return np.zeros(len(features), np.int64)

    def number(self, num_classes: int | None) -> int | None:
        return 1


@dataclass(frozen=True, kw_only=True)
class _OfFeatures(LatentClasses):
    """Grouping by vectors: the features, or a file of others, such as CLIP's.

    Args:
        file: .npy [n, d] of floats, a row for each image of train in order; None takes the features.
    """

    file: Annotated[str | None, Content] = None

    def content_digest(self) -> str:
        if self.file is None:
            return ""
        if not Path(self.file).is_file():
            raise UserError(f"latent.file: there is no {self.file}. Give a .npy file with a row for each image.")
        with open(self.file, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def check_dataset(self, dataset: ImageDataset) -> None:
        if self.file is not None:
            self._in_file(self.file, len(dataset.train().labels))

    def vectors(self, features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n e"]:
        return features if self.file is None else self._in_file(self.file, len(features))

    def _in_file(self, file: str, n: int) -> Float[np.ndarray, "n e"]:
        try:
            vectors = np.lib.format.open_memmap(file, mode="r")
            if vectors.ndim != 2 or len(vectors) != n or vectors.dtype.kind != "f":
                raise ValueError(f"it holds {vectors.dtype}{list(vectors.shape)}")
            if not np.isfinite(vectors).all():
                raise ValueError("it holds values that are not finite")
        except (OSError, ValueError, EOFError) as error:
            raise UserError(
                f"latent.file={file} is no .npy file of floats [{n}, d], "
                f"a row for each image of train in order ({error})."
            ) from error
        return vectors


@dataclass(frozen=True, kw_only=True)
class KMeans(_OfFeatures):
    """Clusters of unit vectors.

    Args:
        clusters: how many; None takes the number of the dataset's classes.
    """

    clusters: Annotated[int, Gt(0)] | None = None

    def number(self, num_classes: int | None) -> int | None:
        return self.clusters or num_classes

    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        return self.group(dataset, features, seed).levels[:, 0]

    def group(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Groups:
        number = self.clusters or int(dataset.num_classes or 0)
        assigned, centroids = cluster(self.vectors(features), number, seed)
        return Groups(assigned[:, None], centroids if self.file is None else None)

    def check_dataset(self, dataset: ImageDataset) -> None:
        super().check_dataset(dataset)
        check_clusters(dataset, self.clusters)


@dataclass(frozen=True, kw_only=True)
class FewLabels(_OfFeatures):
    """A linear classifier that has seen the labels of a small part of the images. These keep their labels.

    Args:
        percent: of each class's labels, at least one, in (0, 100].
    """

    percent: Annotated[float, Gt(0), Le(100)] = 1.0

    def check_dataset(self, dataset: ImageDataset) -> None:
        super().check_dataset(dataset)
        if not (dataset.train().labels >= 0).any():
            raise UserError(
                f"subset.latent=few_labels learns from labels, but {dataset.name} has none. Choose "
                "subset.latent=kmeans subset.latent.clusters=10."
            )

    def assign(self, dataset: ImageDataset, features: Float[np.ndarray, "n d"], seed: int) -> Int64[np.ndarray, " n"]:
        labels = dataset.train().labels
        vectors = torch.from_numpy(np.array(self.vectors(features), np.float32))
        labelled = torch.nonzero(labels >= 0).flatten()
        known = labelled[draw_labels(labels[labelled], self.percent, torch.Generator().manual_seed(seed))]
        standardise = Standardiser.fit(vectors[known])
        weights = fit_logistic(standardise(vectors[known]), labels[known], int(labels.max()) + 1, l2=1 / len(known))
        assigned = weights.logits(standardise(vectors)).argmax(1)
        assigned[known] = labels[known]
        return assigned.numpy()


def check_clusters(dataset: ImageDataset, clusters: int | None) -> None:
    """Whether the training images can be put into so many clusters; None: as many as the dataset has classes."""
    images = len(dataset.train().labels)
    if clusters is None and not dataset.num_classes:
        raise UserError(
            f"{dataset.name} has no labels, so that the number of clusters is not known. Give it: "
            "subset.latent.clusters=10 (subset=prototypes: subset.clusters=10; subset=elfs: "
            "subset.pseudo_labels.latent.clusters=10)."
        )
    if (asked := clusters or int(dataset.num_classes or 0)) > images:
        raise _too_many(asked, images)


def _too_many(clusters: int, images: int) -> UserError:
    return UserError(
        f"{clusters} clusters are asked for, but there are only {images} images. Set subset.latent.clusters "
        "(subset=prototypes: subset.clusters; subset=elfs: subset.pseudo_labels.latent.clusters) to fewer."
    )


def unit_vectors(vectors: Float[np.ndarray, "n d"]) -> Float32[np.ndarray, "n d"]:
    """A copy, scaled to unit length; zeros stay."""
    unit = np.array(vectors, np.float32)
    unit /= np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-12)
    return unit


def cluster(
    vectors: Float[np.ndarray, "n d"], clusters: int, seed: int
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, "k d"]]:
    """k-means of the vectors scaled to unit length: the cluster of each, and the centroids."""
    from sklearn.cluster import KMeans as ScikitKMeans

    unit = unit_vectors(vectors)
    if clusters > len(unit):
        raise _too_many(clusters, len(unit))
    found = ScikitKMeans(clusters, n_init=1, random_state=seed).fit(unit)
    return found.labels_.astype(np.int64), found.cluster_centers_


def purity(latent_class: Int64[np.ndarray, " n"], labels: Int64[np.ndarray, " n"]) -> float:
    """The share of labelled images whose label is the most frequent one of their group, in (0, 1]; NaN without any."""
    labelled = labels >= 0
    if not labelled.any():
        return float("nan")
    labels = labels[labelled]
    _, group = np.unique(latent_class[labelled], return_inverse=True)
    counts = np.zeros((group.max() + 1, labels.max() + 1), np.int64)
    np.add.at(counts, (group, labels), 1)
    return float(counts.max(1).sum() / len(labels))
