"""Looking at a representation: a map of the test images, nearest neighbours, and which classes are confused."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

import torch
from jaxtyping import Float, Int, Int64, UInt8
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_lightning.data.dataset import ImageDataset, Images
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.knn import nearest
from ssl_lightning.evaluation.linear import PENALTIES, Penalties
from ssl_lightning.evaluation.pictures import MAX_POINTS, Picture, bars, image, matrix, points
from ssl_lightning.ranges import Count, Number, SeedNumber

MAX_CLASSES = 100
"""Of a matrix that can be looked at."""
THUMBNAIL = 48
"""Largest side of a neighbour, in pixels."""


@dataclass(frozen=True, kw_only=True)
class Map(Evaluator):
    """Two dimensions of the test representations, the nearest training images of some test images, and of the linear
    probe the confusion matrix and the accuracy of each class."""

    projection: Literal["pca", "umap"] = "pca"
    """`umap` needs the extra of this name."""
    queries: Number = 8
    """Seeded test images whose neighbours are shown."""
    neighbours: Count = 8
    l2_grid: Penalties = PENALTIES
    """Penalties of the probe."""
    seed: SeedNumber = 0
    """Of the images that are shown, and of `umap`."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            "linear/top1": "linear %",
            "map/worst_class_top1": "worst class %",
            "map/neighbours_top1": "neighbours alike %",
            "map/explained": "share of variance",
        }

    @property
    def explanation(self) -> str:
        return (
            "linear, worst class: the linear probe on the full test split, and on the class that it names worst; "
            f"neighbours alike: of the {self.neighbours} training images nearest to a test image, the share with its "
            "label; share of variance: of that of the test images, what two principal axes hold, in [0, 1]."
        )

    def check(self, dataset: ImageDataset) -> None:
        if self.projection == "umap" and find_spec("umap") is None:
            raise UserError("evaluation.projection=umap needs umap: pip install 'ssl-lightning[umap]'")
        super().check(dataset)
        images = len(dataset.labelled().labels)
        if self.neighbours > max(Map().neighbours, images):  # of small data, the default takes what there is
            raise UserError(
                f"evaluation.neighbours is {self.neighbours}, but {dataset.name} has {images} labelled training "
                "images. Choose fewer."
            )

    def evaluate(self, subject: Subject) -> Evaluation:
        train, test = (subject.features[name].to(subject.device) for name in ("train", "test"))
        num_classes, probe = subject.num_classes, subject.probe(self.l2_grid)
        confused = confusion(probe.logits(test.representations).argmax(1), test.labels, num_classes)
        held = torch.nonzero(confused.sum(1)).flatten().tolist()
        by_class = {str(label): float(confused[label, label] / confused[label].sum()) for label in held}
        at, explained = principal_plane(test.representations)
        if self.projection == "umap":
            subject.begins(f"umap of {len(test.labels):,} images")
            at = _umap(test.representations, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        shown = torch.randperm(len(test.labels), generator=generator)[:MAX_POINTS]
        queries = shown[: self.queries]
        subject.begins(f"nearest neighbours: {len(test.labels):,} images, among {len(train.labels):,}")
        _, positions = nearest(test.representations, train.representations, self.neighbours)
        alike = (train.labels[positions] == test.labels[:, None]).double().mean()
        sample = "" if len(shown) == len(test.labels) else f"{len(shown):,} of {len(test.labels):,} test images"
        pictures: list[Picture] = [
            points(f"Map ({self.projection.upper()})", at[shown].tolist(), test.labels.cpu()[shown].tolist(), sample),
            bars("Accuracy by class", "%", {name: 100 * value for name, value in by_class.items()}),
        ]
        if num_classes <= MAX_CLASSES:
            shares = confused / confused.sum(1, keepdim=True).clamp(min=1)
            pictures.append(matrix("Confusion of the linear probe", "label", "named", shares.tolist()))
        if len(queries):
            assert subject.splits.test is not None
            sheet = contact_sheet(
                subject.splits.test.images,
                queries,
                subject.splits.train.images,
                positions[queries.to(positions.device)].cpu(),
            )
            pictures.append(image("Nearest training images", sheet, "left: test images"))
        return Evaluation(
            {
                "linear/top1": probe.accuracy(test.representations, test.labels),
                "map/worst_class_top1": min(by_class.values()),
                "map/neighbours_top1": float(alike),
                "map/explained": explained,
            },
            pictures=pictures,
        )


def confusion(named: Int[Tensor, " m"], labels: Int[Tensor, " m"], num_classes: int) -> Float[Tensor, "c c"]:
    """How often a class (row) was given a name (column)."""
    cells = labels.long() * num_classes + named
    return cells.bincount(minlength=num_classes**2).view(num_classes, num_classes).double()


def principal_plane(z: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "n 2"], float]:
    """Coordinates on the two principal axes, on the CPU, and the share of the variance that they hold. Each axis
    points to where its largest coordinate in magnitude is positive. Of collapsed features all are 0."""
    centred = (z - z.mean(0, dtype=torch.float64)).double()
    covariance = centred.T @ centred / len(z)
    values, axes = torch.linalg.eigh(covariance)
    at = centred @ axes[:, [-1, -2 if z.shape[1] > 1 else -1]]
    at = at * at.gather(0, at.abs().argmax(0, keepdim=True)).sign()
    total = float(values.clamp(min=0).sum())
    return at.cpu(), float(values[-2:].clamp(min=0).sum()) / total if total > 0 else 0.0


def contact_sheet(
    asked: Images, queries: Int64[Tensor, " q"], found: Images, neighbours: Int64[Tensor, "q k"]
) -> bytes:
    """A PNG file: a row for each query, which stands first."""
    from PIL import Image
    from torchvision.utils import make_grid

    tiles = [_thumbnails(asked, queries), _thumbnails(found, neighbours.flatten())]
    rows = torch.cat([tiles[0][:, None], tiles[1].unflatten(0, neighbours.shape)], 1).flatten(0, 1)
    grid = make_grid(rows, nrow=1 + neighbours.shape[1], padding=2, pad_value=255)
    file = io.BytesIO()
    Image.fromarray(grid.permute(1, 2, 0).numpy()).save(file, "png")
    return file.getvalue()


def _thumbnails(images: Images, positions: Int64[Tensor, " n"]) -> UInt8[Tensor, "n 3 s s"]:
    """The first three channels of what a channel is missing for stand for all."""
    held = images[positions]
    held = held[:, :3] if held.shape[1] >= 3 else held[:, :1].expand(-1, 3, -1, -1)
    if held.shape[-1] <= THUMBNAIL:
        return held
    return interpolate(held, (THUMBNAIL, THUMBNAIL), mode="bilinear", antialias=True)


def _umap(z: Float[Tensor, "n d"], seed: int) -> Float[Tensor, "n 2"]:
    from umap import UMAP  # an extra, which takes seconds to import

    return torch.from_numpy(UMAP(random_state=seed).fit_transform(z.cpu().numpy())).double()
