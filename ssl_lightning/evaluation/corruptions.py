"""How the linear probe on a frozen encoder holds where test images are corrupted."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, get_args

import torch
from annotated_types import MinLen
from jaxtyping import Float, Float32, Int, UInt8
from torch import Tensor

from ssl_lightning.data.corruptions import NOISY, Kind, Severity, corrupt
from ssl_lightning.data.dataset import Images
from ssl_lightning.data.draw import Draw
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.linear import Probe, chosen_probe
from ssl_lightning.evaluation.pictures import curves
from ssl_lightning.metrics.accuracy import accuracy
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.progress import track
from ssl_lightning.ranges import Count, Positive, SeedNumber

SEVERITIES: tuple[Severity, ...] = get_args(Severity)
AT_ONCE = 256
"""Images whose random numbers are drawn together: the same whatever the batch size."""


@dataclass(frozen=True, kw_only=True)
class Corruptions(Evaluator):
    """Accuracy of the linear probe under each kind of corruption at severities 1 to 5 (Hendrycks and Dietterich 2019,
    arXiv 1903.12261). The probe learns from clean images; test images are corrupted as they are stored, before the
    encoder resamples them."""

    kinds: Annotated[Sequence[Kind], MinLen(1)] = get_args(Kind)
    limit: Count | None = 2000
    """Test images at most, a seeded sample; None: all."""
    l2_grid: Annotated[Sequence[Positive], MinLen(1)] = (1.0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
    """Penalties that the probe chooses from, on the validation part of the training features."""
    seed: SeedNumber = 0
    """Of the sample and of the noise, which are the same for every encoder."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            "corruptions/clean_top1": "clean %",
            "corruptions/top1": "corrupted %",
            "corruptions/relative_drop": "relative drop %",
        } | {f"corruptions/{kind}_top1": f"{kind.replace('_', ' ')} %" for kind in self.kinds}

    def evaluate(self, subject: Subject) -> Evaluation:
        train, test = subject.features["train"].to(subject.device), subject.splits.test
        assert test is not None
        validation = subject.splits.validation.to(subject.device)
        probe = chosen_probe(train.representations, train.labels, subject.num_classes, validation, self.l2_grid)
        chosen = torch.randperm(len(test.labels), generator=torch.Generator().manual_seed(self.seed))[: self.limit]
        labels = test.labels[chosen].to(subject.device)
        clean = probe.accuracy(subject.features["test"].representations[chosen].to(subject.device), labels)
        lines: dict[str, list[float]] = {}
        for kind in track(self.kinds, "corruptions", len(self.kinds)):
            by_severity = self._scores(subject, probe, test.images, chosen, kind)
            lines[kind] = [accuracy(scores, labels) for scores in by_severity]
        mean = statistics.fmean(value for values in lines.values() for value in values)
        metrics = {
            "corruptions/clean_top1": clean,
            "corruptions/top1": mean,
            "corruptions/relative_drop": 1 - mean / clean if clean else 0.0,
        }
        for name, values in lines.items():
            metrics[f"corruptions/{name}_top1"] = statistics.fmean(values)
            metrics |= {f"corruptions/{name}_{s}_top1": value for s, value in zip(SEVERITIES, values, strict=True)}
        shown = {
            name.replace("_", " "): ([0, *SEVERITIES], [100 * value for value in (clean, *values)])
            for name, values in lines.items()
        }
        picture = curves("Accuracy under corruption", "severity", "linear probe, %", shown)
        return Evaluation(metrics, pictures=[picture])

    def _scores(
        self, subject: Subject, probe: Probe, images: Images, chosen: Int[Tensor, " m"], kind: Kind
    ) -> list[Float[Tensor, "m c"]]:
        """The probe's logits at each severity."""
        encoder = subject.encoder
        found: list[list[Tensor]] = [[] for _ in SEVERITIES]
        for values, numbers in self._parts(encoder, images, chosen, kind):
            for scores, severity in zip(found, SEVERITIES, strict=True):
                corrupted = corrupt(values, kind, severity, numbers)
                with torch.inference_mode():
                    made = [encoder(some) for some in corrupted.split(subject.batch_size)]
                scores.append(probe.logits(torch.cat(made).float().to(subject.device)))
        return [torch.cat(scores) for scores in found]

    def _parts(
        self, encoder: Encoder, images: Images, chosen: Int[Tensor, " m"], kind: Kind
    ) -> Iterator[tuple[Float32[Tensor, "b c h w"], Float32[Tensor, "b c h w"] | None]]:
        """On the encoder's device: images in [0, 1], and the random numbers of the kinds that need them."""
        for number, positions in enumerate(chosen.split(AT_ONCE)):
            some: UInt8[Tensor, "b c h w"] = images[positions]
            values = some.to(encoder.mean.device).float() / 255
            draw = Draw(self.seed, number)
            numbers = None
            if kind in NOISY:
                made = draw.uniform if kind == "impulse_noise" else draw.normal
                numbers = made(kind, *values.shape, device=values.device)
            yield values, numbers
