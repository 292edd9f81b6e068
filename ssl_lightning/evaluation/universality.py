"""Universality of a representation (GeSSL, arXiv 2405.01053 v4): does it discriminate, does it transfer, and how far
is it from what a few gradient steps on a task would make of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Ge, MinLen
from jaxtyping import Float, UInt8
from torch import Tensor

from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.view import View
from ssl_lightning.data.views import Augment
from ssl_lightning.evaluation.corruptions import Corruptions
from ssl_lightning.evaluation.episodes import Episodes, draw_tasks
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.knn import knn
from ssl_lightning.evaluation.linear import PENALTIES, Penalties, probe_metrics
from ssl_lightning.evaluation.pictures import Picture, curves, radar
from ssl_lightning.evaluation.sigma import Episode, Sigma, ViewsOfTask, sigma_ssl, sigma_supervised, summary
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.progress import track
from ssl_lightning.ranges import DISTINCT, Count, Positive, SeedNumber, Temperature

SHOWN = 5
"""Steps after which σ has a column, where it is measured after them."""
GENTLE = View(copies=2, crop_scale=(0.4, 1.0), jitter_probability=0.8, brightness=0.4)
"""Views that leave an image what it is, digits and images of any number of channels too."""


@dataclass(frozen=True, kw_only=True)
class Universality(Evaluator):
    """Discriminability: linear probe and k-NN. Transferability: few-shot episodes, and the probe on corrupted images.
    σ, with and without labels (`evaluation.sigma`), after each of `steps`. Generalisation is what the same encoder's
    evaluations on other data say (`evaluation=transfer`)."""

    steps: Annotated[Sequence[Count], MinLen(1), DISTINCT] = (1, 5, 20)
    """T, of plain SGD."""
    tasks: Annotated[int, Ge(2)] = 100
    """Seeded; the same for every encoder."""
    images: Annotated[int, Ge(2)] = 64
    """N of a task without labels, from the test images."""
    lr: Positive = 0.05
    """Of both; steps that would raise the loss are halved."""
    temperature: Temperature = 0.5
    """Of its loss and of its π."""
    augment: Augment | None = None
    """Two views of an image, of one size; None: crops of 40 % of the area and more, and brightness."""
    ways: Annotated[int, Ge(2)] = 5
    """Of tasks with labels, at most."""
    shots: Count = 5
    queries: Count = 15
    """A class."""
    episodes: Annotated[int, Ge(2)] = 600
    """Few-shot tasks of the ridge regression."""
    corrupted: Count | None = 2000
    """Test images that are corrupted; None: all."""
    seed: SeedNumber = 0
    l2_grid: Penalties = PENALTIES
    """Of the linear probe."""

    @property
    def columns(self) -> Mapping[str, str]:
        steps = SHOWN if SHOWN in self.steps else max(self.steps)
        return {
            "linear/top1": "linear %",
            "knn/top1": "k-NN %",
            f"episodes/{self.shots}shot_ridge_top1": f"{self.shots}-shot %",
            "corruptions/top1": "corrupted %",
            f"sigma_ssl/{steps}": f"σ, T={steps}",
            f"sigma_supervised/{steps}": f"σ labels, T={steps}",
            f"sigma_supervised/{steps}_gain": f"gain at T={steps} %",
        }

    @property
    def explanation(self) -> str:
        corrupted = "all test images" if self.corrupted is None else f"{self.corrupted:,} test images at most"
        return (
            f"linear, k-NN: on the full test split; {self.shots}-shot: ridge regression, {self.ways} classes at most, "
            f"mean over {self.episodes} tasks; corrupted: the linear probe, mean over corruptions of {corrupted}. "
            "σ: KL divergence in nats after T steps of SGD on a task, without labels and with them, mean over "
            f"{self.tasks} tasks; gain: percentage points of accuracy that these steps add."
        )

    def check(self, dataset: ImageDataset) -> None:
        super().check(dataset)
        self._episodes.check(dataset)

    @property
    def _episodes(self) -> Episodes:
        return Episodes(
            ways=self.ways,
            shots=(self.shots,),
            queries=self.queries,
            episodes=self.episodes,
            heads=("ridge",),
            seed=self.seed,
        )

    def evaluate(self, subject: Subject) -> Evaluation:
        assert subject.splits.test is not None
        device, num_classes = subject.device, subject.num_classes
        train, test = (subject.features[name].to(device) for name in ("train", "test"))
        data = (train.representations, train.labels, test.representations, test.labels, num_classes)
        images = min(self.images, len(subject.splits.test.labels))

        def probes() -> dict[str, float]:
            subject.begins(f"nearest neighbours: {len(test.labels):,} images, among {len(train.labels):,}")
            return probe_metrics(subject.probe(self.l2_grid), *data[2:]) | knn(*data)

        def corrupted() -> dict[str, float]:
            found = Corruptions(limit=self.corrupted, l2_grid=self.l2_grid).evaluate(subject).metrics
            return {name: found[name] for name in ("corruptions/top1", "corruptions/relative_drop")}

        metrics = dict(subject.kept("probes", probes))
        metrics |= subject.kept("episodes", lambda: self._episodes.evaluate(subject).metrics)
        metrics |= subject.kept("corruptions", corrupted)
        found: dict[str, dict[int, Sigma]] = {"sigma_ssl": {}, "sigma_supervised": {}}
        values, kl, gain = self._sigmas(subject, subject.splits.test, images)
        ways = int(metrics["episodes/ways"])
        for i, step in enumerate(sorted(self.steps)):
            found["sigma_ssl"][step] = summary(values[:, i], images)
            found["sigma_supervised"][step] = summary(kl[:, i], ways)
            metrics[f"sigma_supervised/{step}_gain"] = float(gain[:, i].mean())
        for name, by_step in found.items():
            for step, sigma in by_step.items():
                metrics |= {
                    f"{name}/{step}": sigma.mean,
                    f"{name}/{step}_sem": sigma.sem,
                    f"{name}/{step}_of_log": sigma.of_log,
                }
        return Evaluation(metrics, pictures=self._pictures(metrics, found))

    def _sigmas(self, subject: Subject, test: Split, images: int) -> list[Float[Tensor, "tasks steps"]]:
        """Of tasks without labels; of those with labels, and their gains."""
        backbone = subject.encoder.backbone

        def of_views() -> list[list[float]]:
            subject.begins(f"σ without labels: {self.tasks} tasks, {images} images each")
            views = self._batches(subject.encoder, test)
            return sigma_ssl(backbone, views, self.lr, self.steps, self.temperature).tolist()

        def of_labels() -> list[list[list[float]]]:
            subject.begins(f"σ with labels: {self.tasks} tasks")
            found = sigma_supervised(backbone, self._tasks(subject.encoder, test), self.lr, self.steps)
            return [found.kl.tolist(), found.gain.tolist()]

        with Draw(self.seed).seeded(subject.encoder.mean.device):
            without = subject.kept("σ without labels", of_views)
        with Draw(self.seed).seeded(subject.encoder.mean.device):
            found = [without, *subject.kept("σ with labels", of_labels)]
        return [torch.tensor(values, dtype=torch.float64) for values in found]

    def _pictures(self, metrics: Mapping[str, float], found: Mapping[str, Mapping[int, Sigma]]) -> list[Picture]:
        shares = {heading: metrics[name] for name, heading in list(self.columns.items())[:4]}
        names = {"sigma_ssl": "views", "sigma_supervised": "labels"}
        lines = {
            names[name]: ([0, *by_step], [0.0, *(sigma.of_log for sigma in by_step.values())])
            for name, by_step in found.items()
        }
        return [
            radar("Universality", {name.removesuffix(" %"): value for name, value in shares.items()}),
            curves("σ / log N over steps on a task", "steps of SGD", "σ / log N", lines),
        ]

    def _batches(self, encoder: Encoder, test: Split) -> Iterator[ViewsOfTask]:
        """Of each task, two draws of views of the same images."""
        augment = self.augment or Augment([GENTLE])
        for task in track(range(self.tasks), "σ of views", self.tasks):
            draw = Draw(self.seed, task)
            images = _colours(test.images[draw.permutation("images", len(test.labels))[: self.images]], encoder)
            drawn = [
                augment(images, encoder.mean.flatten(), encoder.std.flatten(), draw.generator(use), encoder.size)[0]
                for use in ("support", "queries")
            ]
            yield drawn[0], drawn[1]

    def _tasks(self, encoder: Encoder, test: Split) -> Iterator[Episode]:
        tasks = draw_tasks(test.labels, self.ways, self.shots, self.queries, self.tasks, self.seed)
        for support, queries in track(list(zip(*tasks, strict=True)), "σ of labels", self.tasks):
            drawn = []
            for positions in (support, queries):
                images = encoder.normalised(_colours(test.images[positions.flatten()], encoder))
                labels = torch.arange(len(positions), device=images.device).repeat_interleave(positions.shape[1])
                drawn += [images, labels]
            yield drawn[0], drawn[1], drawn[2], drawn[3]


def _colours(images: UInt8[Tensor, "n c h w"], encoder: Encoder) -> UInt8[Tensor, "n k h w"]:
    """On the encoder's device; grey ones stand for colour."""
    return images.to(encoder.mean.device).expand(-1, len(encoder.mean), -1, -1)
