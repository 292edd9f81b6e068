"""Lookahead against its definition, around SGD and AdamW."""

import io

import pytest
import torch
from torch import nn

from ssl_lightning.optim.lookahead import Lookahead
from tests.optim.test_muon import parameters, train


@pytest.mark.parametrize("steps", [2, 3, 7])
def test_it_is_the_definition(steps):
    """By hand: SGD with momentum, whose velocity goes on when fast weights are put back."""
    ours, fast = parameters(), [p.detach().clone() for p in parameters()]
    slow, velocity = [p.clone() for p in fast], [torch.zeros_like(p) for p in fast]
    optimizer = Lookahead(ours, torch.optim.SGD, every=3, share=0.4, lr=0.1, momentum=0.9)
    for step in range(steps):
        train(optimizer, ours, range(step, step + 1))
        for i, p in enumerate(ours):
            assert p.grad is not None
            velocity[i] = p.grad if step == 0 else 0.9 * velocity[i] + p.grad
            fast[i] = fast[i] - 0.1 * velocity[i]
            if (step + 1) % 3 == 0:
                slow[i] = slow[i] + 0.4 * (fast[i] - slow[i])
                fast[i] = slow[i].clone()
    torch.testing.assert_close([p.detach() for p in ours], fast)


def test_with_a_whole_share_it_is_the_fast_optimizer():
    ours, reference = parameters(), parameters()
    train(Lookahead(ours, torch.optim.AdamW, every=2, share=1.0, lr=0.1), ours, range(7))
    train(torch.optim.AdamW(reference, lr=0.1), reference, range(7))
    torch.testing.assert_close(ours, reference)


def test_a_schedule_sets_the_rate_of_the_fast_optimizer():
    ours = parameters()
    before = [p.detach().clone() for p in ours]
    optimizer = Lookahead([{"params": ours, "weight_decay": 0.0}], torch.optim.SGD, every=5, lr=0.1)
    optimizer.param_groups[0]["lr"] = 0.0
    train(optimizer, ours, range(1))
    torch.testing.assert_close([p.detach() for p in ours], before)


def test_its_state_goes_on():
    whole, first = parameters(), parameters()
    train(Lookahead(whole, torch.optim.AdamW, every=3, lr=0.1), whole, range(8))
    optimizer = Lookahead(first, torch.optim.AdamW, every=3, lr=0.1)
    train(optimizer, first, range(4))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second = [nn.Parameter(p.detach().clone()) for p in first]
    resumed = Lookahead(second, torch.optim.AdamW, every=3, lr=0.7)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.param_groups[0]["lr"] == 0.1
    train(resumed, second, range(4, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))
