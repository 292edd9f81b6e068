"""Losses that draw random numbers are pure: GeSSL's passes, and a resume, see the same ones."""

import pytest
import torch

from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.gessl import GeSSL
from tests.methods.examples import Dropout, Masked, Queued, Small
from tests.methods.networks import batch_of, gradients, tiny_views

VIEWS = tiny_views(8).double()


class MaskedDropout(Masked):
    """Both at once."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone.dropout.p = 0.3


METHODS = {"dropout": Dropout, "masked": Masked, "both": MaskedDropout}
names = pytest.mark.parametrize("name", METHODS)


DRAW = Draw(3, 5, 1)


def outcome(method, draw: Draw = DRAW, views=VIEWS):
    method.zero_grad()
    objective = method.ssl_loss(batch_of(views), LOCAL, draw)
    objective.loss.backward()
    return objective, gradients(method)


def same(one, other) -> bool:
    return torch.equal(one[0].loss, other[0].loss) and all(
        torch.equal(a, b) for a, b in zip(one[1], other[1], strict=True)
    )


@names
@pytest.mark.parametrize("wrapped", [False, True], ids=["alone", "in GeSSL"])
def test_loss_is_pure(name, wrapped):
    """Asked again with the same draw, the same; whatever the global generator does, and without moving it."""
    method = GeSSL(METHODS[name]()) if wrapped else METHODS[name]()
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = outcome(method)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(first, outcome(method))
    for other in (Draw(4, 5, 1), Draw(3, 6, 1), Draw(3, 5, 2)):
        assert not same(first, outcome(method, other))


@names
@pytest.mark.parametrize("match", ["kl", "parameters"])
def test_without_any_step_there_is_nothing_to_match(name, match):
    objective, meta = outcome(
        GeSSL(METHODS[name](), tasks=2, inner_steps=0, future_steps=0, weight_base=0.0, match=match)
    )
    assert objective.scalars["meta_loss"] == 0
    assert max(gradient.abs().max() for gradient in meta) < (1e-15 if match == "kl" else 1e-300)


@names
@pytest.mark.parametrize(("inner", "future"), [(0, 1), (1, 1), (2, 3)])
def test_passes_at_the_same_weights_are_the_same(name, inner, future):
    """With steps of length 0, all passes are at θ; one that drew for itself would differ from the others."""
    settings = {"inner_steps": inner, "future_steps": future, "inner_lr": 0.0, "weight_base": 0.0}
    objective, meta = outcome(GeSSL(METHODS[name](), tasks=2, **settings))
    assert objective.scalars["meta_loss"] == 0
    assert max(gradient.abs().max() for gradient in meta) < 1e-15


@names
def test_without_meta_loss_and_with_one_task_it_is_the_base_method(name):
    assert same(outcome(METHODS[name]()), outcome(GeSSL(METHODS[name](), tasks=1, weight_meta=0.0)))


@names
def test_tasks_draw_for_themselves(name):
    """Two tasks of the same images: equal numbers would make them equal."""
    twice = torch.cat((VIEWS[:, :4], VIEWS[:, :4]), 1)
    objective, _ = outcome(GeSSL(METHODS[name](), tasks=2, weight_meta=0.0), views=twice)
    assert not torch.equal(objective.embeddings[:, :4], objective.embeddings[:, 4:])
    (first, _), (second, _) = (outcome(METHODS[name](), Draw(3, 5, 1).part(i), VIEWS[:, :4]) for i in range(2))
    assert torch.equal(objective.embeddings, torch.cat((first.embeddings, second.embeddings), 1))


def test_masks_are_those_of_the_draw():
    method, draw = Masked(), Draw(3, 5, 1)
    seen = []
    method.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    method.ssl_loss(batch_of(VIEWS), LOCAL, draw)
    hidden = draw.uniform("mask", *VIEWS.shape) < 0.5
    hidden[..., 0, 0] = True
    assert torch.equal(seen[0].view(VIEWS.shape), VIEWS.masked_fill(hidden, 0))


@pytest.mark.parametrize("make", [Dropout, Masked, Queued])
def test_in_evaluation_nothing_is_drawn(make):
    method: Small = make().eval()
    assert torch.equal(method(VIEWS[0]), method(VIEWS[0]))
