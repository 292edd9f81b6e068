"""What rules choose equals a loop over images, on random, tied and degenerate losses."""

import itertools
import math

import pytest
import torch

from ssl_lightning.selection.coarse_to_fine import CoarseToFine
from ssl_lightning.selection.infobatch import InfoBatch
from ssl_lightning.selection.rule import Moment
from ssl_lightning.selection.scan import Scan

EARLY = Moment(5, 0.25, 0.3)
RULES = {
    "infobatch": InfoBatch(ratio=0.3),
    "scan": Scan(ratio=0.2),
    "scan of all": Scan(ratio=0.5, cycle=4, warmup=0),
    "hardest": CoarseToFine(fraction=0.3),
    "easiest": CoarseToFine(fraction=0.1, until=0.3, keep="easiest"),
    "at once": CoarseToFine(fraction=0.4, until=0.0),
}


def losses() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    every = torch.ones(40, dtype=torch.bool)
    drawn = torch.randn(40, generator=generator)
    unknown = torch.rand(40, generator=generator) < 0.7
    return {
        "random": (drawn, every),
        "partly known": (drawn, unknown),
        "not finite where not known": (torch.where(unknown, drawn, torch.nan), unknown),
        "tied": (torch.randint(0, 3, (40,), generator=generator).float(), every),
        "equal": (torch.full((40,), 0.1), every),
        "none known": (torch.zeros(40), ~every),
        "one image": (drawn[:1], every[:1]),
        "one known": (drawn, torch.arange(40) == 7),
        "empty": (drawn[:0], every[:0]),
    }


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def naive(rule, losses: list[float], seen: list[bool], moment: Moment) -> list[float]:
    """Image by image, in plain numbers."""
    n, weights = len(losses), [1.0] * len(losses)
    known = [i for i in range(n) if seen[i]]
    if isinstance(rule, InfoBatch):
        if moment.ends > rule.until or not known:
            return weights
        mean = math.fsum(losses[i] for i in known) / len(known)
        draws = torch.rand(n, generator=generator(), dtype=torch.float64).tolist()
        for i in known:
            if losses[i] < mean:
                weights[i] = 0.0 if draws[i] < rule.ratio else 1 / (1 - rule.ratio)
        return weights
    order = sorted(known, key=lambda i: (losses[i], i))
    if isinstance(rule, Scan):
        end = int(rule.ratio * len(order))
        candidates = [i for place, i in enumerate(order) if place < end or place >= len(order) - end]
        j = (moment.epoch - rule.warmup) % (rule.cycle + 1)
        share = (1 + math.cos((rule.cycle - j) * math.pi / rule.cycle)) / 2 if moment.epoch >= rule.warmup else 0.0
        number = int(share * len(candidates))
        out = [candidates[i] for i in torch.randperm(len(candidates), generator=generator()).tolist()[:number]]
    else:
        done = min(1.0, moment.begins / rule.until) if rule.until else 1.0
        kept = round((1 - (1 - rule.fraction) * done) * n)
        order = order if rule.keep == "hardest" else order[::-1]
        out = order[: max(0, n - kept)]
    for i in out:
        weights[i] = 0.0
    return weights


@pytest.mark.parametrize("moment", [Moment(0, 0.0, 0.1), Moment(1, 0.1, 0.2), EARLY, Moment(4, 0.5, 0.9)], ids=str)
@pytest.mark.parametrize("given", losses())
@pytest.mark.parametrize("name", RULES)
def test_rules_equal_loops(name, given, moment):
    rule, (values, seen) = RULES[name], losses()[given]
    made = rule.weights(values, seen, moment, generator())
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.tolist(), naive(rule, values.tolist(), seen.tolist(), moment))
    assert (made[~seen] == 1).all()
    assert torch.equal(made, rule.weights(values, seen, moment, generator()))


@pytest.mark.parametrize("ratio", [0.0, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("given", ["random", "tied"])
def test_the_expected_gradient_of_infobatch_is_that_of_all_images(given, ratio):
    """Summed over all ways to leave images out, by their probability. What each way's weights are is what the rule
    gives with some draw."""
    values, seen = (tensor[:7] for tensor in losses()[given])
    gradients = torch.randn(7, 3, generator=generator(), dtype=torch.float64)
    rule = InfoBatch(ratio=ratio)
    below = (values < values.double().mean()).nonzero().flatten().tolist()
    assert below
    expected, total, ways = torch.zeros(3, dtype=torch.float64), 0.0, set()
    for out in itertools.product([True, False], repeat=len(below)):
        weights = torch.ones(7, dtype=torch.float64)
        weights[below] = torch.tensor([0.0 if gone else 1 / (1 - ratio) for gone in out], dtype=torch.float64)
        probability = math.prod(ratio if gone else 1 - ratio for gone in out)
        expected += probability * (weights[:, None] * gradients).sum(0)
        total += probability
        if probability:
            ways.add(tuple(weights.float().tolist()))
    assert total == pytest.approx(1)
    torch.testing.assert_close(expected, gradients.sum(0))
    made = {tuple(rule.weights(values, seen, EARLY, generator(seed)).tolist()) for seed in range(300)}
    assert made <= ways
    assert ratio in (0.25, 0.9) or made == ways  # the rarest of these comes once in thousands


@pytest.mark.parametrize("epochs", [1, 3, 8, 10, 37])
@pytest.mark.parametrize("until", [0.0, 0.5, 0.875, 1.0])
def test_the_last_share_of_training_sees_everything(epochs, until):
    values, seen = losses()["random"]
    rule = InfoBatch(ratio=0.5, until=until)
    for epoch in range(epochs):
        moment = Moment(epoch, epoch / epochs, (epoch + 1) / epochs)
        whole = bool((rule.weights(values, seen, moment, generator(epoch)) == 1).all())
        assert whole == ((epoch + 1) / epochs > until)


def test_a_cycle_of_scan():
    """T = 3: after two epochs of warm-up none, a quarter, three quarters and all of the candidates, and so on."""
    rule = Scan(ratio=0.25, cycle=3, warmup=2)
    assert [rule.share(epoch) for epoch in range(8)] == pytest.approx([0, 0, 0, 0.25, 0.75, 1, 0, 0.25])
    values, seen = losses()["random"]
    kept = [int(rule.weights(values, seen, Moment(e, 0, 0), generator()).sum()) for e in range(6)]
    assert kept == [40, 40, 40, 35, 25, 20]
    last = rule.weights(values, seen, Moment(5, 0, 0), generator())
    assert last[values.argsort()].tolist() == [0.0] * 10 + [1.0] * 20 + [0.0] * 10


def test_coarse_to_fine_shrinks_to_its_fraction():
    values, seen = losses()["random"]
    rule = CoarseToFine(fraction=0.25, until=0.5)
    kept = [rule.weights(values, seen, Moment(e, e / 8, 0), generator()) > 0 for e in range(8)]
    assert [int(some.sum()) for some in kept] == [40, 32, 25, 18, 10, 10, 10, 10]
    for larger, smaller in itertools.pairwise(kept):  # of losses that stay the same
        assert (larger | ~smaller).all()
    assert set(values[kept[-1]].tolist()) == set(values.sort().values[-10:].tolist())


@pytest.mark.parametrize("name", RULES)
def test_an_epoch_sees_the_least_that_a_rule_says(name):
    rule = RULES[name]
    values, seen = torch.randn(2000, generator=generator()), torch.ones(2000, dtype=torch.bool)
    for epoch in range(10):
        kept = (rule.weights(values, seen, Moment(epoch, epoch / 10, 0.5), generator()) > 0).float().mean()
        assert kept >= rule.least - 1e-9
