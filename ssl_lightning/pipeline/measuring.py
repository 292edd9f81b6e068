"""What the frozen encoder of a run is worth."""

import time
from typing import Any

import lightning as L
import torch

from ssl_lightning.config.components import make
from ssl_lightning.devices import solving_device
from ssl_lightning.evaluation.features import Features, extract
from ssl_lightning.evaluation.suite import Evaluation
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.pipeline.parts import Parts
from ssl_lightning.processes import ProcessGroup, share_buffers

Both = tuple[Features, Features]
"""Of the labelled images of train, and of test."""


def measured(
    config: dict[str, Any], parts: Parts, method: SSLMethod, processes: ProcessGroup, device: torch.device
) -> dict[str, Any]:
    """What the frozen encoder, and where it is asked for the untrained one, is worth; and what it took to know."""
    started = time.monotonic()
    trained, untrained = features_of_encoders(config, parts, method, processes, device)
    metrics, spectra, _ = _evaluate(parts, method, *trained, device)
    results: dict[str, Any] = {
        "protocol": parts.protocol.as_dict(),
        "metrics": metrics,
        "spectra": dict(spectra),
        "evaluation": parts.evaluation,
        **({} if parts.splits.test is None else {"test_images": len(parts.splits.test.labels)}),
    }
    if untrained is not None:
        results["untrained"], *_ = _evaluate(parts, method, *untrained, device)
    return results | {"cost": {"evaluation_seconds": time.monotonic() - started}}


def features_of_encoders(
    config: dict[str, Any], parts: Parts, method: SSLMethod, processes: ProcessGroup, device: torch.device
) -> tuple[Both, Both | None]:
    """Features of the full labelled splits. All processes look at their share of the images."""
    pretrained, suite, splits = parts.dataset, parts.suite, parts.splits
    share_buffers(method, processes)

    def features(method: SSLMethod, kind: str) -> Both:
        encoder = Encoder(method, pretrained.mean, pretrained.std, method.project).to(device)
        # Files, where processes meet or where features may be larger than memory.
        folder = parts.run.folder / "features" / kind if processes.size > 1 or suite.in_files else None
        train = extract(encoder.features, splits.train, processes, folder and folder / "train")
        if splits.test is None:
            return train, train
        return train, extract(encoder.features, splits.test, processes, folder and folder / "test")

    trained = features(method, "trained")
    if not suite.untrained:
        return trained, None
    L.seed_everything(config["seed"], verbose=False)
    return trained, features(make(config["method"]), "untrained")


def _evaluate(parts: Parts, method: SSLMethod, train: Features, test: Features, device: torch.device) -> Evaluation:
    """The suite; of a classifier of this dataset, also its own accuracy, with the labels that training saw."""
    dataset = parts.evaluated
    solving = solving_device(device)
    evaluation = parts.suite(train, test, parts.splits.validation, int(dataset.num_classes or 0), solving)
    if method.classifies and dataset is parts.dataset and parts.suite.needs_labels:
        evaluation.metrics["classifier/top1"] = classifier_accuracy(test)
    return evaluation


def classifier_accuracy(test: Features) -> float:
    """Of a classifier whose logits are its embeddings."""
    return int((test.embeddings.argmax(1) == test.labels).sum()) / len(test.labels)
