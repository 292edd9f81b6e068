"""Calibration of the linear probe: whether its probabilities are as often right as they say."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.linear import PENALTIES, Penalties
from ssl_lightning.evaluation.pictures import curves
from ssl_lightning.ranges import Count


@dataclass(frozen=True, kw_only=True)
class Calibration(Evaluator):
    """Expected calibration error (Guo et al. 2017, arXiv 1706.04599), Brier score and log loss of the linear probe on
    the test images, its penalty chosen as by the standard evaluation."""

    bins: Count = 15
    """Of equal width, over the probability of the class that the probe names."""
    l2_grid: Penalties = PENALTIES
    """Penalties that are chosen from, on the validation part of the training features."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            "linear/top1": "linear %",
            "calibration/ece": "ECE %",
            "calibration/brier": "Brier",
            "calibration/nll": "log loss",
        }

    @property
    def explanation(self) -> str:
        return (
            f"Of the linear probe, on the full test split. ECE: expected calibration error in {self.bins} bins; Brier: "
            "squared distance of the probabilities from the label, in [0, 2]; log loss in nats. The lower, the better."
        )

    def evaluate(self, subject: Subject) -> Evaluation:
        test, probe = subject.features["test"].to(subject.device), subject.probe(self.l2_grid)
        probabilities = probe.logits(test.representations).double().softmax(1)
        x, y = reliability(probabilities, test.labels, self.bins)
        metrics = {
            "linear/top1": probe.accuracy(test.representations, test.labels),
            **{
                f"calibration/{name}": value
                for name, value in calibration(probabilities, test.labels, self.bins).items()
            },
        }
        return Evaluation(
            metrics,
            pictures=[
                curves(
                    "Reliability of the linear probe", "probability", "share that is right", {"": (x, y)}, diagonal=True
                )
            ],
        )


def calibration(probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"], bins: int = 15) -> dict[str, float]:
    """`ece`: mean distance, over `bins` of equal width, between the mean probability of the class that is named and
    the share that is right; `brier`: mean over images of the squared distance from the one-hot label, in [0, 2];
    `nll`: mean of −log of the label's probability, natural."""
    labels = labels.long()
    right = probabilities.gather(1, labels[:, None])[:, 0]
    brier = probabilities.square().sum(1) - 2 * right + 1
    ece = multiclass_calibration_error(probabilities, labels, probabilities.shape[1], bins, validate_args=False)
    return {
        "ece": float(ece),
        "brier": float(brier.mean()),
        "nll": float(-right.clamp(min=torch.finfo(right.dtype).tiny).log().mean()),
    }


def reliability(
    probabilities: Float[Tensor, "n c"], labels: Int[Tensor, " n"], bins: int
) -> tuple[list[float], list[float]]:
    """Of each bin that is not empty, the mean probability of the class that is named, and the share that is right."""
    confidence, named = probabilities.max(1)
    right = (named == labels).to(confidence.dtype)
    bin_of = (confidence * bins).long().clamp(max=bins - 1)
    counts: Int[Tensor, " b"] = bin_of.bincount(minlength=bins)
    held: Bool[Tensor, " b"] = counts > 0
    means = [
        torch.zeros(bins, dtype=confidence.dtype, device=confidence.device).index_add_(0, bin_of, of)[held]
        / counts[held]
        for of in (confidence, right)
    ]
    return means[0].tolist(), means[1].tolist()
