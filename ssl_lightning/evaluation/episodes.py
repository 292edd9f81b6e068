"""Few-shot episodes: tasks of a few classes with a few labels each, on frozen features of the test images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from annotated_types import Ge, MinLen
from jaxtyping import Float, Int, Int64
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluation, Evaluator, Subject
from ssl_lightning.evaluation.logistic import fit_logistic
from ssl_lightning.evaluation.pictures import bars
from ssl_lightning.ranges import DISTINCT, Count, Positive, SeedNumber

Head = Literal["centroid", "ridge", "logistic"]

_AT_ONCE = 50  # episodes whose features are held together


class Tasks(NamedTuple):
    """Episodes of n classes: positions of k images a class to learn from, and of q to ask about. Labels are those of
    the episode, 0 to n − 1, in the order of the second axis."""

    support: Int64[Tensor, "e n k"]
    queries: Int64[Tensor, "e n q"]


@dataclass(frozen=True, kw_only=True)
class Episodes(Evaluator):
    """Accuracy of `ways`-way tasks with `shots` labels a class, mean over seeded episodes with the half-width of its
    95 % interval. Features are scaled to unit length.

    Heads: `centroid` (prototypes, Snell et al. 2017, arXiv 1703.05175, by cosine); `ridge` (Bertinetto et al. 2019,
    arXiv 1805.08136, with a fixed penalty); `logistic` (Tian et al. 2020, arXiv 2003.11539, scikit-learn's C = 1).
    """

    reads: ClassVar[tuple[str, ...]] = ("test",)

    ways: Annotated[int, Ge(2)] = 5
    """Classes of an episode, drawn among those with enough test images; all of them, where there are fewer."""
    shots: Annotated[Sequence[Count], MinLen(1), DISTINCT] = (1, 5)
    queries: Count = 15
    """Images of each class that are asked about."""
    episodes: Annotated[int, Ge(2)] = 600
    heads: Annotated[Sequence[Head], MinLen(1), DISTINCT] = ("centroid", "ridge", "logistic")
    ridge: Positive = 1.0
    """Its penalty."""
    seed: SeedNumber = 0
    """Of the episodes, which are the same for every encoder."""

    @property
    def columns(self) -> Mapping[str, str]:
        return {
            f"episodes/{shots}shot_{head}_top1": f"{shots}-shot {head} %" for shots in self.shots for head in self.heads
        }

    @property
    def explanation(self) -> str:
        return (
            f"Tasks of at most {self.ways} classes among the test images, with so many labels a class: the share of "
            f"{self.queries} other images a class that are named right, mean over {self.episodes} tasks."
        )

    def check(self, dataset: ImageDataset) -> None:
        super().check(dataset)
        needed = max(self.shots) + self.queries
        largest = sorted(dataset.test().labels.bincount().tolist(), reverse=True)
        if len(largest) < 2 or largest[1] < needed:
            raise UserError(
                f"evaluation.shots + queries ask for {needed} test images a class, but {dataset.name} has not two "
                f"classes with as many: its second largest has {largest[1] if len(largest) > 1 else 0}. Choose fewer "
                "evaluation.queries, or evaluation.shots."
            )

    def evaluate(self, subject: Subject) -> Evaluation:
        test = subject.features["test"]
        features = normalize(test.representations.to(subject.device), dim=1)
        metrics: dict[str, float] = {}
        for shots in self.shots:
            tasks = draw_tasks(test.labels, self.ways, shots, self.queries, self.episodes, self.seed)
            metrics["episodes/ways"] = tasks.support.shape[1]
            for head in self.heads:
                subject.begins(f"few-shot tasks, {head}: {self.episodes:,}, labels a class: {shots}")
                mean, half = interval(accuracies(features, tasks, head, self.ridge))
                name = f"episodes/{shots}shot_{head}"
                metrics |= {f"{name}_top1": mean, f"{name}_ci95": half}
        shown = {heading: 100 * metrics[name] for name, heading in self.columns.items()}
        return Evaluation(metrics, pictures=[bars(f"{int(metrics['episodes/ways'])}-way episodes", "%", shown)])


def draw_tasks(labels: Int[Tensor, " m"], ways: int, shots: int, queries: int, episodes: int, seed: int) -> Tasks:
    """Classes of an episode are drawn without replacement, and so are the images of a class; every class that has
    `shots + queries` images is as likely as another.

    Raises:
        ValueError: fewer than two classes have as many.
    """
    places = [torch.nonzero(labels == label).flatten() for label in labels.unique()]
    places = [place for place in places if len(place) >= shots + queries]
    if len(places) < 2:
        raise ValueError(f"fewer than two classes have {shots + queries} images: ask for fewer shots or queries")
    ways = min(ways, len(places))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.stack(
        [
            torch.stack(
                [
                    places[c][torch.randperm(len(places[c]), generator=generator)[: shots + queries]]
                    for c in torch.randperm(len(places), generator=generator)[:ways].tolist()
                ]
            )
            for _ in range(episodes)
        ]
    )
    return Tasks(drawn[:, :, :shots], drawn[:, :, shots:])


def accuracies(
    features: Float[Tensor, "m d"], tasks: Tasks, head: Literal["centroid", "ridge", "logistic"], ridge: float = 1.0
) -> Float[Tensor, " e"]:
    """The share of queries that each episode gets right, on the CPU."""
    scores = []
    for support, queries in zip(tasks.support.split(_AT_ONCE), tasks.queries.split(_AT_ONCE), strict=True):
        s, q = (features[positions.to(features.device)] for positions in (support, queries))
        logits = {"centroid": _centroid, "ridge": _ridge, "logistic": _logistic}[head](s, q.flatten(1, 2), ridge)
        named = logits.argmax(2).view(q.shape[:3])
        scores.append((named == torch.arange(q.shape[1], device=named.device)[:, None]).double().mean((1, 2)))
    return torch.cat(scores).cpu()


def interval(values: Float[Tensor, " e"]) -> tuple[float, float]:
    """Mean, and the half-width of its 95 % interval: 1.96 standard errors."""
    return float(values.mean()), float(1.96 * values.std() / math.sqrt(len(values)))


def _centroid(s: Float[Tensor, "e n k d"], q: Float[Tensor, "e p d"], _: float) -> Float[Tensor, "e p n"]:
    return q @ normalize(s.mean(2), dim=2).mT


def _ridge(s: Float[Tensor, "e n k d"], q: Float[Tensor, "e p d"], penalty: float) -> Float[Tensor, "e p n"]:
    """Regression on one-hot labels less their mean: min ‖X W − Y‖² + penalty ‖W‖², solved among the samples."""
    e, n, k, _ = s.shape
    x = s.flatten(1, 2).double()
    y = torch.eye(n, dtype=x.dtype, device=x.device).repeat_interleave(k, 0) - 1 / n
    gram = x @ x.mT + penalty * torch.eye(n * k, dtype=x.dtype, device=x.device)
    return q.double() @ (x.mT @ torch.linalg.solve(gram, y.expand(e, -1, -1)))


def _logistic(s: Float[Tensor, "e n k d"], q: Float[Tensor, "e p d"], _: float) -> Float[Tensor, "e p n"]:
    """scikit-learn's C = 1."""
    _, n, k, _ = s.shape
    labels = torch.arange(n, device=s.device).repeat_interleave(k)
    fits = [fit_logistic(one.flatten(0, 1), labels, n, l2=1 / (n * k), tolerance=1e-4) for one in s]
    return torch.stack([weights.logits(of) for weights, of in zip(fits, q, strict=True)])
