"""What an evaluation is given, and what it gives."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated, ClassVar, NamedTuple

import torch

from ssl_lightning.config.markers import Place
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.kept import Kept
from ssl_lightning.evaluation.linear import Probe, chosen_probe, linear_stage
from ssl_lightning.evaluation.pictures import Picture
from ssl_lightning.evaluation.splits import Splits
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.progress import Begins, silent

OTHERWISE = "Choose evaluation=none, or evaluate on other data: evaluation.dataset=cifar10."


class Evaluation(NamedTuple):
    """What is known of an encoder."""

    metrics: dict[str, float]
    spectra: Mapping[str, list[float]] = MappingProxyType({})
    """Singular values, descending, of the training representations and embeddings."""
    pictures: Sequence[Picture] = ()
    """What a report draws of it."""


@dataclass(frozen=True)
class Subject:
    """A frozen encoder, and what it looks at.

    Args:
        encoder: on its device.
        dataset: what is evaluated on.
        splits: its images and labels.
        features: of `splits`, by name: those that the evaluation asks for.
        device: where classifiers are solved.
        batch_size: images that the encoder looks at at a time.
        begins: told of each stage that takes long on many images.
        kept: keeps what a part of the evaluation has given, for one that goes on after it was killed.
    """

    encoder: Encoder
    dataset: ImageDataset
    splits: Splits
    features: Mapping[str, Features]
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    batch_size: int = 512
    begins: Begins = silent
    kept: Kept = field(default_factory=Kept)

    _probes: dict[tuple[float, ...], Probe] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def num_classes(self) -> int:
        return int(self.dataset.num_classes or 0)

    def probe(self, l2_grid: Sequence[float]) -> Probe:
        """The linear probe of the training features, as the standard evaluation chooses it; solved once."""
        if (grid := tuple(l2_grid)) not in self._probes:
            train, validation = self.features["train"].to(self.device), self.splits.validation.to(self.device)
            data = train.representations, train.labels, self.num_classes
            self.begins(linear_stage(len(train.labels), grid))
            self._probes[grid] = chosen_probe(*data, validation, grid)
        return self._probes[grid]


@dataclass(frozen=True, kw_only=True)
class Evaluator(ABC):
    """One way to say what a frozen encoder is worth. Its settings are its protocol: numbers of two are never mixed."""

    needs_labels: ClassVar[bool] = True
    """Whether it reads labels, and test images."""
    reads: ClassVar[tuple[str, ...]] = ("train", "test")
    """Features of which splits it is given."""

    untrained: Annotated[bool, Place] = False
    """Whether the caller is to evaluate the untrained encoder too, as the baseline."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Which metrics a report's table shows, with their headings; accuracies and other shares end in %."""
        return {}

    @property
    def explanation(self) -> str:
        """What these columns are, in a sentence or two below that table: of which images, over what, in which units."""
        return ""

    @abstractmethod
    def evaluate(self, subject: Subject) -> Evaluation:
        """All that is measured. A pure function of the subject and the settings: the encoder's parameters and buffers,
        and the global random generators, are as before."""

    def check(self, dataset: ImageDataset) -> None:
        """Raises UserError where the dataset has not the labels that are read."""
        if not self.needs_labels:
            return
        dataset.prepare()
        if not dataset.has_labels:
            raise UserError(
                f"{dataset.name} has no labelled train and test images, which the evaluation needs. {OTHERWISE}"
            )
        if (labels := dataset.labelled().labels).min() == labels.max():
            raise UserError(
                f"{dataset.name}: all labelled images are of one class, so that probes have nothing to tell apart. "
                f"{OTHERWISE}"
            )
        if not dataset.validation_part().any():
            raise UserError(
                f"{dataset.name}: no class has two labelled training images, so that probes have nothing to "
                "choose their settings on. Add images."
            )
        dataset.test()  # whose files are whole
