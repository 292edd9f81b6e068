"""The standard evaluation of a frozen encoder: every metric that each run reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from annotated_types import MinLen
from jaxtyping import Bool
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.features import Features
from ssl_lightning.evaluation.knn import knn
from ssl_lightning.evaluation.linear import PENALTIES, Penalties, exactly, few_label_probe, linear_probe, linear_stage
from ssl_lightning.evaluation.sgd import sgd_probe
from ssl_lightning.evaluation.spectrum import spectrum
from ssl_lightning.progress import Begins, silent
from ssl_lightning.ranges import DISTINCT, Count, Percent, Positive, SeedNumber, Temperature


@dataclass(frozen=True, kw_only=True)
class EvaluationSuite(Evaluator):
    """Linear and few-label probes, k-nearest neighbours, spectra: from features to a flat dict of metrics."""

    k: Count = 20
    """Neighbours that vote."""
    temperature: Temperature = 0.07
    """Of the neighbours' votes."""
    linear: Literal["lbfgs", "sgd"] = "lbfgs"
    """How the linear probe on all labels is trained: to the optimum, with copies of the features in memory
    (metrics `linear/...`), or by SGD, a batch at a time (metrics `linear_sgd/...`)."""
    l2_grid: Penalties = PENALTIES
    """Penalties that `lbfgs` chooses from, on the validation part of the training features."""
    learning_rates: Annotated[Sequence[Positive], MinLen(1), DISTINCT] = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
    """What `sgd` chooses from, likewise."""
    epochs: Count = 20
    """Of `sgd`."""
    probe_batch_size: Count = 256
    """Of `sgd`."""
    few_shots: Annotated[Sequence[Count], DISTINCT] = (5,)
    """Labels a class of the few-label probes."""
    few_percents: Annotated[Sequence[Percent], DISTINCT] = (1.0, 10.0)
    """Percent of every class's labels (at least one) of further few-label probes."""
    draws: Count = 5
    """Random label subsets that a few-label probe averages over."""
    seed: SeedNumber = 0
    """Of these subsets, and of the order of `sgd`. Runs are compared on the same ones, so it does not follow the
    run's seed."""

    ELSEWHERE: ClassVar[Mapping[str, str]] = {
        "datasets": "many datasets are for a finished run: ssl-evaluate run=<folder> evaluation=transfer.",
    }

    @property
    def in_files(self) -> bool:
        """Whether features may be larger than memory, and are kept in files."""
        return self.linear == "sgd"

    def check(self, dataset: ImageDataset) -> None:
        super().check(dataset)
        if not self.needs_labels:
            return
        labels = dataset.labelled().labels
        standard = EvaluationSuite()  # which may ask for more than small data have, and takes what there is
        if self.k > max(standard.k, len(labels)):
            raise UserError(
                f"evaluation.k is {self.k}, but {dataset.name} has {len(labels)} labelled training images. "
                "Choose fewer."
            )
        largest = int(labels.bincount().max())
        if shots := [shots for shots in self.few_shots if shots > max(*standard.few_shots, largest)]:
            raise UserError(
                f"evaluation.few_shots asks for {shots[0]} labels a class, but the largest class of {dataset.name} has "
                f"{largest}. Choose fewer."
            )

    def evaluate(self, subject: Subject) -> Evaluation:
        features = subject.features
        return self(
            features["train"],
            features.get("test", features["train"]),
            subject.splits.validation,
            subject.num_classes,
            subject.device,
            subject.begins,
        )

    def __call__(
        self,
        train: Features,
        test: Features,
        validation: Bool[Tensor, " n"],
        num_classes: int,
        device: torch.device | None = None,
        begins: Begins = silent,
    ) -> Evaluation:
        """`validation` marks the training samples that may choose hyperparameters; accuracies are in [0, 1].

        Classifiers read representations; spectra are those of the training representations and embeddings. All is
        computed on `device`, to which the features are moved; with `sgd`, which is for features larger than memory,
        a batch at a time, and few-label probes and spectra stay where the features are.
        """
        device = device or train.representations.device
        if self.linear == "lbfgs":
            train, test, validation = train.to(device), test.to(device), validation.to(device)
        data = (train.representations, train.labels, test.representations, test.labels, num_classes)
        grid = self.l2_grid if self.linear == "lbfgs" else self.learning_rates
        begins(linear_stage(len(train.labels), grid))
        if self.linear == "lbfgs":
            metrics = linear_probe(*data, validation, self.l2_grid)
        else:
            metrics = sgd_probe(
                *data, validation, self.learning_rates, self.epochs, self.probe_batch_size, self.seed, device=device
            )
        if few := [f"{shots} a class" for shots in self.few_shots] + [f"{exactly(of)} %" for of in self.few_percents]:
            begins(f"probes on few labels: {', '.join(few)}, draws of each: {self.draws}")
        for shots in self.few_shots:
            metrics |= few_label_probe(*data, shots=shots, draws=self.draws, seed=self.seed)
        for percent in self.few_percents:
            metrics |= few_label_probe(*data, percent=percent, draws=self.draws, seed=self.seed)
        queries = test.representations.to(device), test.labels.to(device)
        begins(f"nearest neighbours: {len(test.labels):,} images, among {len(train.labels):,}")
        metrics |= knn(train.representations, train.labels, *queries, num_classes, self.k, self.temperature)
        ranks = ranks_of(train)
        return Evaluation(metrics | ranks.metrics, ranks.spectra)


@dataclass(frozen=True, kw_only=True)
class RanksOnly(EvaluationSuite):
    """Spectra and effective ranks of the training images: what there is to know without labels."""

    needs_labels: ClassVar[bool] = False
    reads: ClassVar[tuple[str, ...]] = ("train",)

    def __call__(
        self,
        train: Features,
        test: Features,
        validation: Bool[Tensor, " n"],
        num_classes: int,
        device: torch.device | None = None,
        begins: Begins = silent,
    ) -> Evaluation:
        """Of the arguments it reads `train` and `device` alone."""
        return ranks_of(train.to(device or train.representations.device))


def ranks_of(train: Features) -> Evaluation:
    """Spectra and effective ranks of representations and embeddings."""
    metrics: dict[str, float] = {}
    spectra: dict[str, list[float]] = {}
    for name, z in (("representation", train.representations), ("embedding", train.embeddings)):
        values, ranks = spectrum(z, name)
        spectra[name] = values.tolist()
        metrics |= ranks
    return Evaluation(metrics, spectra)
