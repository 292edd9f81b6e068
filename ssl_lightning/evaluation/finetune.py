"""Fine-tuning: the whole encoder, trained on all or a few of the labels."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Annotated, ClassVar

import torch
from annotated_types import Gt, Le, MinLen
from jaxtyping import Bool, Int64
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset, selected
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.view import View
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.linear import draw_labels, exactly
from ssl_lightning.evaluation.pictures import curves
from ssl_lightning.evaluation.tuning import Classifier, batches, train
from ssl_lightning.progress import track
from ssl_lightning.ranges import DISTINCT, Count, NonNegative, Number, Percent, Positive, SeedNumber

MILD = View(crop_scale=(0.5, 1.0))
"""Suits any images. Flips do not suit digits."""


@dataclass(frozen=True, kw_only=True)
class FineTune(Evaluator):
    """Accuracy of a copy of the encoder that is trained, with a linear head of zeros, on some of the labels.

    Labels are drawn from the training images outside of the validation part. A classifier a learning rate is trained
    on them; the one most accurate on the validation part, the smaller rate on a tie, is the one that is tested. So
    nothing learns from the validation part, whose labels, all of them, choose the learning rate also where few are
    trained on, as is usual. SGD with momentum is what both SimCLR's ResNets (arXiv 2002.05709) and the first vision
    transformers (arXiv 2010.11929) were fine-tuned by.
    """

    reads: ClassVar[tuple[str, ...]] = ()

    percents: Annotated[Sequence[Percent], MinLen(1), DISTINCT] = (100.0, 10.0, 1.0)
    """Of every class's labels outside of the validation part: `round(n_c * percent / 100)`, at least one. Fewer are
    among the more."""
    learning_rates: Annotated[Sequence[Positive], MinLen(1), DISTINCT] = (3e-3, 1e-2, 3e-2, 1e-1, 3e-1)
    """What is chosen from, for each of `percents`."""
    epochs: Count = 20
    """Of the labels drawn."""
    min_steps: Number = 200
    """Steps that are taken where `epochs` are fewer."""
    batch_size: Count = 128
    """Images a step, at most as many as are drawn."""
    weight_decay: NonNegative = 0.0
    """Not of biases and norms."""
    layer_decay: Annotated[float, Gt(0), Le(1)] = 1.0
    """Learning rate of a block of the backbone, as a share of that of the next; that of the head is the chosen one."""
    augment: View = MILD
    """What is seen of an image in training."""
    draws: Count = 1
    """Random label subsets that accuracies are averaged over."""
    seed: SeedNumber = 0
    """Of the subsets, which are the same for every encoder, and of order and views."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            f"{_name(percent)}/top1": "fine-tuned %" if percent == 100 else f"{exactly(percent)} % labels %"
            for percent in self.percents
        }

    @property
    def explanation(self) -> str:
        draws = f", mean over {self.draws} draws of labels" if self.draws > 1 else ""
        return (
            "The whole encoder, trained on all labels outside of the validation part, or on a share of them; the "
            f"learning rate chosen on that part. Accuracy on the full test split{draws}."
        )

    def check(self, dataset: ImageDataset) -> None:
        super().check(dataset)
        augment = Augment([self.augment])
        if augment.turns and isinstance(dataset.train().images, StreamedImages):
            raise UserError(
                "evaluation.augment.rotation_degrees turns views, which is not done for streamed images. Set it to 0, "
                f"or keep {dataset.name} decoded: dataset.storage=resident."
            )
        if dataset.channels not in (1, 3) and (colours := augment.colours()):
            raise UserError(
                f"evaluation.augment.{colours[0]} changes what images of {dataset.channels} channels, as those of "
                f"{dataset.name}, do not have. Set it to 0."
            )

    def evaluate(self, subject: Subject) -> Evaluation:
        metrics: dict[str, float] = {}
        with Draw(self.seed).seeded(subject.encoder.mean.device):  # workers that decode are seeded by the global one
            for percent in self.percents:
                metrics |= {f"{_name(percent)}/{name}": of for name, of in self._at(percent, subject).items()}
        percents = sorted(self.percents)
        lines = {
            name: (percents, [100 * metrics[f"{_name(percent)}/{metric}"] for percent in percents])
            for name, metric in (("test", "top1"), ("validation", "val_top1"))
        }
        return Evaluation(metrics, pictures=[curves("Fine-tuning", "percent of labels", "accuracy, %", lines)])

    def _at(self, percent: float, subject: Subject) -> dict[str, float]:
        """Metrics of a share of the labels."""
        train, test, validation = subject.splits
        assert test is not None
        held_out = selected(train, torch.nonzero(validation).flatten())
        drawn = draws_of(train.labels, validation, percent, self.draws, self.seed)

        def accuracies(lr: float, draw: int) -> list[float]:
            """On the validation part, by which alone a rate is chosen, and on the test split."""
            tuned = self._tuned(subject, drawn[draw], lr, draw, percent)
            return [tuned.accuracy(part, subject.batch_size) for part in (held_out, test)]

        best: tuple[float, float, list[float]] | None = None
        for lr in sorted(self.learning_rates):
            found = [
                subject.kept(f"fine-tuning {percent} {lr} {draw}", partial(accuracies, lr, draw))
                for draw in range(self.draws)
            ]
            right, tested = (list(column) for column in zip(*found, strict=True))
            if best is None or statistics.fmean(right) > best[0]:
                best = statistics.fmean(right), lr, tested
        assert best is not None
        val_top1, lr, tested = best
        spread = {"top1_std": statistics.stdev(tested)} if self.draws > 1 else {}
        return {"top1": statistics.fmean(tested), **spread, "val_top1": val_top1, "lr": float(lr)}

    def _tuned(
        self, subject: Subject, positions: Int64[Tensor, " m"], lr: float, draw: int, percent: float
    ) -> Classifier:
        """Trained on these images. All learning rates see the same views in the same order."""
        encoder, images = subject.encoder, subject.splits.train
        device = encoder.mean.device
        with torch.no_grad():
            num_features = encoder(images.images[:1].to(device)).shape[1]
        classifier = Classifier(encoder, num_features, subject.num_classes)
        seed = seed_of("fine-tuning", self.seed, draw)
        size = min(self.batch_size, len(positions))
        steps = max(self.min_steps, self.epochs * (len(positions) // size))
        with (
            Draw(seed).seeded(device),  # of dropout
            closing(batches(images, positions, Augment([self.augment]), size, seed, device)) as given,
        ):
            subject.begins(f"fine-tuning on {len(positions):,} images, learning rate {lr:g}, steps: {steps:,}")
            bar = f"fine-tuning on {exactly(percent)} %, learning rate {lr:g}"
            train(classifier, track(islice(given, steps), bar, steps), steps, lr, self.weight_decay, self.layer_decay)
        return classifier


def _name(percent: float) -> str:
    """What names of metrics begin with."""
    return f"finetune_{exactly(percent)}pct"


def draws_of(
    labels: Int64[Tensor, " n"], validation: Bool[Tensor, " n"], percent: float, draws: int, seed: int
) -> list[Int64[Tensor, " m"]]:
    """Positions of random parts of each class outside of the validation part. Those of the same seed and fewer percent
    are among them."""
    rest = torch.nonzero(~validation).flatten()
    generator = torch.Generator().manual_seed(seed)
    return [rest[draw_labels(labels[rest], percent, generator)] for _ in range(draws)]
