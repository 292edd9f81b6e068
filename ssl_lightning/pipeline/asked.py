"""What an encoder that is there, of a run or from elsewhere, is asked, and what it is worth by that."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_only

from ssl_lightning.config.identity import digest_of
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.devices import solving_device
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.features import cached
from ssl_lightning.evaluation.kept import Kept
from ssl_lightning.evaluation.pictures import beside
from ssl_lightning.evaluation.protocol import Protocol
from ssl_lightning.evaluation.sources import encoder_digest
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.processes import ProcessGroup
from ssl_lightning.progress import in_log
from ssl_lightning.runs.pictures import drawable

SCHEMA = 2


class Asked(NamedTuple):
    """
    Args:
        what: fingerprints of the splits.
        cache: where features are kept.
        protocol: of the evaluation.
        batch_size: images that an encoder looks at at a time.
    """

    evaluator: Evaluator
    dataset: ImageDataset
    what: list[dict[str, Any]]
    protocol: Protocol
    cache: Path
    batch_size: int

    def identity(self, weights: str) -> str:
        """Of what the encoder of these weights, a digest, is asked."""
        split = self.dataset.validation_fraction
        return digest_of([SCHEMA, self.what, split, self.protocol.as_dict(), weights])


def measure(
    asked: Asked,
    encoder: Encoder,
    baseline: Encoder | None,
    name: str,
    processes: ProcessGroup,
    device: torch.device,
    keep: Callable[[Mapping[str, Any]], None],
    former: Mapping[str, Any] | None,
) -> None:
    """What the encoder, of this name, and the baseline are worth, as a file holds it, to the first process. Of the
    encoder it is measured unless there is a former one."""
    evaluator, dataset = asked.evaluator, asked.dataset
    splits = splits_of(evaluator.needs_labels, dataset)
    named = {"train": splits.train} if splits.test is None else {"train": splits.train, "test": splits.test}
    images = " and ".join(f"{len(split.labels):,}" for split in named.values())
    who = name if former is None else f"{name}, untrained,"
    rank_zero_only(print)(f"{who} looks at {images} images of {dataset.name}", flush=True)

    def subject_of(encoder: Encoder, of: str) -> Subject:
        def begins(stage: str) -> None:
            rank_zero_only(in_log)(f"{of}{stage}")

        digest = encoder_digest(encoder)
        folder = asked.cache / "features" / digest_of([asked.what, digest])[:16]
        encoder = encoder.to(device)
        features = {
            part: cached(
                encoder.features, split, folder / (part if len(named) > 1 else "all"), processes, asked.batch_size,
                f"features of {part}", begins,
            )
            for part, split in named.items()
            if part in evaluator.reads
        }  # fmt: skip
        kept = Kept(asked.cache / "evaluations" / asked.identity(digest)[:16])
        return Subject(encoder, dataset, splits, features, solving_device(device), asked.batch_size, begins, kept)

    started = time.monotonic()
    subject = None if former is not None else subject_of(encoder, "")
    other = None if baseline is None else subject_of(baseline, "untrained: ")

    def ask() -> None:
        found = former if subject is None else _plain(evaluator.evaluate(subject))
        assert found is not None
        untrained = None if other is None else _plain(evaluator.evaluate(other))
        before = [(former or {}).get("cost", {}).get("evaluation_seconds", 0.0)]
        before += [one.kept.seconds for one in (subject, other) if one is not None]
        seconds = time.monotonic() - started + sum(before)
        keep(
            {
                "metrics": found["metrics"],
                **({} if untrained is None else {"untrained": untrained["metrics"]}),
                "spectra": found["spectra"],
                "columns": dict(evaluator.columns),
                "explanation": evaluator.explanation,
                "pictures": beside(
                    drawable(found.get("pictures", [])), drawable([] if untrained is None else untrained["pictures"])
                ),
                "cost": {"evaluation_seconds": seconds},
                **({} if splits.test is None else {"test_images": len(splits.test.labels)}),
            }
        )
        for one in (subject, other):
            if one is not None:
                one.kept.forget()

    processes.by_first(ask)  # others wait for it, however long, and go on to the next dataset together


def _plain(evaluation: Evaluation) -> dict[str, Any]:
    """As a file holds it."""
    metrics, spectra, pictures = evaluation
    return {"metrics": _numbers(metrics), "spectra": dict(spectra), "pictures": pictures}


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Of an evaluator, which may be a user's, and give them as tensors or NumPy's: as what a file holds."""
    return {name: value if type(value) is int else float(value) for name, value in metrics.items()}
