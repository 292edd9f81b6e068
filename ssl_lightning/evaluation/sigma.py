"""σ: how far a model is from the one that a few gradient steps on a task make of it (after GeSSL, arXiv 2405.01053 v4,
whose definition is in words; the equations here are our reading of it).

σ_T(θ) is the mean over tasks of KL(π of θ after T steps of SGD on the task ‖ π of θ), in nats. 0 for T = 0, never
negative. A low σ is no merit by itself: where gradients vanish, as in a collapsed encoder, it is low too.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy, log_softmax

from ssl_lightning.evaluation.logistic import Standardiser, fit_logistic
from ssl_lightning.losses.contrastive import nt_xent
from ssl_lightning.losses.matching import matching_kl

Parameters = dict[str, Tensor]

HALVINGS = 20


class Sigma(NamedTuple):
    """σ_T over tasks.

    Args:
        mean: in nats.
        sem: standard error of the mean, from the spread over tasks.
        of_log: mean / log N, where N is the number of classes of a task: in [0, 1] where no class is less likely
            than by chance.
    """

    mean: float
    sem: float
    of_log: float


def summary(values: Float[Tensor, " tasks"], classes: int) -> Sigma:
    """Of one value a task."""
    mean = float(values.mean())
    return Sigma(mean, float(values.std() / math.sqrt(len(values))), mean / math.log(classes))


def trajectory(
    parameters: Parameters, loss: Callable[[Parameters], Tensor], lr: float, steps: Sequence[int]
) -> Iterator[tuple[int, Parameters]]:
    """Parameters after each of these numbers of steps of plain SGD, the fewest first; none of them has a gradient.

    A step that raises the loss is halved until it does not, at most `HALVINGS` times, and then not taken: features of
    encoders differ in scale by orders of magnitude, and one learning rate would let some diverge.
    """
    current = {name: value.detach() for name, value in parameters.items()}
    for step in range(max(steps) + 1):
        if step in steps:
            yield step, current
        if step < max(steps):
            current = _descended(current, loss, lr)


def _descended(current: Parameters, loss: Callable[[Parameters], Tensor], lr: float) -> Parameters:
    leaves = {name: value.requires_grad_() for name, value in current.items()}
    with torch.enable_grad():
        before = loss(leaves)
        gradients = torch.autograd.grad(before, list(leaves.values()), allow_unused=True)
    slopes = dict(zip(leaves, gradients, strict=True))
    start = {name: value.detach() for name, value in leaves.items()}
    for halvings in range(HALVINGS + 1):
        tried = {
            name: value if (slope := slopes[name]) is None else value - lr / 2**halvings * slope
            for name, value in start.items()
        }
        with torch.no_grad():
            if loss(tried) <= before:
                return tried
    return start


ViewsOfTask = tuple[Float[Tensor, "v n c s s"], Float[Tensor, "v n c s s"]]
"""Views that are adapted on, and fresh views of the same images that π is asked about."""

Episode = tuple[Float[Tensor, "s c h w"], Int[Tensor, " s"], Float[Tensor, "q c h w"], Int[Tensor, " q"]]
"""Normalised support images and their labels, 0 to N − 1; queries and theirs."""


def sigma_ssl(
    backbone: nn.Module, tasks: Iterable[ViewsOfTask], lr: float, steps: Sequence[int], temperature: float
) -> Float[Tensor, "tasks steps"]:
    """Label-free: a task is a mini-batch of n images, π its n-way classification by cosine similarity of
    representations, the loss NT-Xent of representations. KL in nats, a row a task, a column a number of steps in
    ascending order.

    Args:
        backbone: normalised images to representations; in evaluation mode, which it is left in.
    """
    return torch.stack([_of_views(backbone, task, lr, steps, temperature) for task in tasks]).double().cpu()


def _of_views(
    backbone: nn.Module, task: ViewsOfTask, lr: float, steps: Sequence[int], temperature: float
) -> Float[Tensor, " steps"]:
    support, queries = task

    def represent(weights: Parameters, views: Float[Tensor, "v n c s s"]) -> Float[Tensor, "v n d"]:
        return functional_call(backbone, weights, (views.flatten(0, 1),)).unflatten(0, views.shape[:2])

    def loss(weights: Parameters) -> Tensor:
        return nt_xent(represent(weights, support), temperature)

    start = _parameters(backbone)
    with torch.no_grad():
        before = represent(start, queries)
    found = []
    for _, weights in trajectory(start, loss, lr, steps):
        with torch.no_grad():
            after = represent(weights, queries)
            found.append(matching_kl((before, before), (after, after), temperature))
    return torch.stack(found)


class Supervised(NamedTuple):
    """By task (row) and number of steps (column).

    Args:
        kl: mean over queries, in nats.
        gain: accuracy of the adapted encoder less that of the frozen one.
    """

    kl: Float[Tensor, "tasks steps"]
    gain: Float[Tensor, "tasks steps"]


def sigma_supervised(backbone: nn.Module, episodes: Iterable[Episode], lr: float, steps: Sequence[int]) -> Supervised:
    """With labels: logistic regression on the frozen, standardised representations of an episode's support
    (scikit-learn's C = 1), against the same head with the encoder trained further, T steps on the support's
    cross-entropy.

    Args:
        backbone: as of `sigma_ssl`.
    """
    rows = [_of_labels(backbone, episode, lr, steps) for episode in episodes]
    return Supervised(torch.stack([kl for kl, _ in rows]).cpu(), torch.stack([gain for _, gain in rows]).cpu())


def _of_labels(backbone: nn.Module, episode: Episode, lr: float, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
    images, labels, queries, answers = episode
    start = _parameters(backbone)
    with torch.no_grad():
        frozen = functional_call(backbone, start, (images,))
    standardise = Standardiser.fit(frozen)
    head = fit_logistic(standardise(frozen), labels, int(labels.max()) + 1, l2=1 / len(labels), tolerance=1e-4)

    def logits(weights: Parameters, of: Tensor) -> Float[Tensor, "q n"]:
        return head.logits(standardise(functional_call(backbone, weights, (of,))))

    def loss(weights: Parameters) -> Tensor:
        return cross_entropy(logits(weights, images), labels.long())

    with torch.no_grad():
        before = log_softmax(logits(start, queries).double(), 1)
    kl, gain = [], []
    for _, weights in trajectory(start, loss, lr, steps):
        with torch.no_grad():
            after = log_softmax(logits(weights, queries).double(), 1)
        kl.append((after.exp() * (after - before)).sum(1).mean())
        gain.append(_accuracy(after, answers) - _accuracy(before, answers))
    return torch.stack(kl), torch.stack(gain)


def _parameters(backbone: nn.Module) -> Parameters:
    return {name: value.detach() for name, value in backbone.named_parameters()}


def _accuracy(scores: Float[Tensor, "q n"], answers: Int[Tensor, " q"]) -> Float[Tensor, ""]:
    return (scores.argmax(1) == answers).double().mean()
