"""How the linear probe holds on corrupted test images."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch
from annotated_types import MinLen

from ssl_lightning.data.corruptions import KINDS, SEVERITIES, Kind, corrupt
from ssl_lightning.data.dataset import Split, selected
from ssl_lightning.data.loading import in_order
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.linear import PENALTIES, Penalties, Probe
from ssl_lightning.evaluation.pictures import curves
from ssl_lightning.progress import track
from ssl_lightning.ranges import DISTINCT, Count, SeedNumber

State = tuple[Kind, int] | None
"""A corruption and its severity; None: as the images are."""


@dataclass(frozen=True, kw_only=True)
class Corruptions(Evaluator):
    """Accuracy on test images that are corrupted (see `data/corruptions.py`) as they are stored, of the linear probe
    of clean training images, its penalty chosen as by the standard evaluation."""

    reads: ClassVar[tuple[str, ...]] = ("train",)

    kinds: Annotated[Sequence[Kind], MinLen(1), DISTINCT] = KINDS
    limit: Count | None = 2000
    """Seeded test images that are looked at, once for each kind and severity; None: all."""
    l2_grid: Penalties = PENALTIES
    """Penalties that are chosen from, on the validation part of the training features."""
    seed: SeedNumber = 0
    """Of the sample, and of the noise, which are the same for every encoder."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            "corruptions/clean_top1": "clean %",
            "corruptions/top1": "corrupted %",
            "corruptions/relative_drop": "relative drop",
        }

    @property
    def explanation(self) -> str:
        images = "all test images" if self.limit is None else f"{self.limit:,} test images at most"
        return (
            f"The linear probe of clean training images, on {images}. clean: as they are; corrupted: mean over "
            f"{len(set(self.kinds))} kinds of corruption at five severities; relative drop: 1 − corrupted / clean, "
            "the lower, the better."
        )

    def evaluate(self, subject: Subject) -> Evaluation:
        probe = subject.probe(self.l2_grid)
        assert subject.splits.test is not None
        test = sample(subject.splits.test, self.limit, self.seed)
        right, images = hits(subject, probe, test, self.kinds, self.seed), len(test.labels)
        by_kind = {str(kind): [right[kind, severity] for severity in SEVERITIES] for kind in self.kinds}
        clean, mean = right[None], statistics.fmean(itertools.chain(*by_kind.values()))
        lines = {
            kind: ((0, *SEVERITIES), [100 * value / images for value in (clean, *values)])
            for kind, values in by_kind.items()
        }
        return Evaluation(
            {
                "corruptions/clean_top1": clean / images,
                "corruptions/top1": mean / images,
                "corruptions/relative_drop": 1 - mean / clean if clean else 0.0,
                **{f"corruptions/{kind}_top1": statistics.fmean(values) / images for kind, values in by_kind.items()},
                **{
                    f"corruptions/{kind}_{severity}_top1": value / images
                    for kind, values in by_kind.items()
                    for severity, value in zip(SEVERITIES, values, strict=True)
                },
                "corruptions/images": images,
            },
            pictures=[curves("Accuracy on corrupted images", "severity", "%", lines)],
        )


def sample(split: Split, limit: int | None, seed: int) -> Split:
    """At most `limit` images, in the order of the split; the same for every encoder."""
    if limit is None or limit >= len(split.labels):
        return split
    drawn = torch.randperm(len(split.labels), generator=torch.Generator().manual_seed(seed))
    return selected(split, drawn[:limit].sort().values)


@torch.inference_mode()
def hits(subject: Subject, probe: Probe, test: Split, kinds: Sequence[Kind], seed: int) -> dict[State, int]:
    """How many images the probe names right in each state. An image is read once, and the noise of all severities of a
    kind is of the same draws."""
    states: list[State] = [None, *((kind, severity) for kind in dict.fromkeys(kinds) for severity in SEVERITIES)]
    generators = {
        state: torch.Generator().manual_seed(seed_of(f"corruption {state[0]}", seed)) for state in filter(None, states)
    }
    subject.begins(f"corrupted images: {len(test.labels):,}, each in {len(states)} states")
    right = dict.fromkeys(states, 0)
    batches = math.ceil(len(test.labels) / subject.batch_size)
    start = 0
    for images in track(in_order(test.images, None, subject.batch_size), "corrupted images", batches):
        images = images.to(subject.encoder.mean.device)
        labels = test.labels[start : start + len(images)].to(subject.device)
        start += len(images)
        for state in states:
            seen = images if state is None else corrupt(images, *state, generators[state])
            representations = subject.encoder(seen).float().to(subject.device)
            right[state] += int((probe.logits(representations).argmax(1) == labels).sum())
    return right
