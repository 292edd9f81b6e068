"""GeSSL-style meta-updates: exact checks of gradients, buffers and cost."""

import gc
import itertools
from types import SimpleNamespace

import pytest
import torch
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.contrastive import nt_xent, unit
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.losses.matching import matching_kl
from ssl_lightning.methods.gessl import GeSSL
from tests.methods.examples import Queued
from tests.methods.networks import batch_of, gradients, smooth_simclr, smooth_views, tiny_simclr, tiny_views

ALPHA = 0.1


def gradient_of(method, views):
    method.zero_grad()
    objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
    objective.loss.backward()
    return objective, gradients(method)


def meta_only(**settings) -> GeSSL:
    return GeSSL(
        smooth_simclr(),
        **({"tasks": 1, "weight_base": 0.0, "inner_lr": ALPHA, "temperature": 0.5} | settings),
    )


def test_gessl_around_gessl_is_refused():
    with pytest.raises(UserError, match=r"method\.base is GeSSL, whose loss comes with its gradient .* Choose another"):
        GeSSL(meta_only())


def flat(tensors) -> torch.Tensor:
    return torch.cat([t.flatten() for t in tensors])


# The specification once more, as plain functions of a flat parameter vector.


BACKBONE = smooth_simclr().backbone


def at(theta, views):
    """Embeddings of the smooth SimCLR at a flat parameter vector."""
    parameters, offset = {}, 0
    for name, p in BACKBONE.named_parameters():
        parameters[name] = theta[offset : offset + p.numel()].view_as(p)
        offset += p.numel()
    return functional_call(BACKBONE, parameters, (views.flatten(0, 1),)).unflatten(0, views.shape[:2])


def start() -> torch.Tensor:
    return flat(smooth_simclr().parameters()).detach()


def kl(embeddings, target):
    return matching_kl((embeddings, embeddings), (target, target), 0.5)


def loss_gradient(theta, views):
    theta = theta.detach().requires_grad_()
    return torch.autograd.grad(nt_xent(at(theta, views), 0.5), theta)[0]


def adapted(theta, views, steps):
    for _ in range(steps):
        theta = theta - ALPHA * loss_gradient(theta, views)
    return theta


def test_matching_parameters_after_no_inner_step_is_a_gradient_step():
    views = smooth_views(6)
    _, meta = gradient_of(meta_only(match="parameters", inner_steps=0, future_steps=1), views)
    _, base = gradient_of(smooth_simclr(), views)
    assert torch.allclose(flat(meta), ALPHA * flat(base), rtol=1e-10)


@pytest.mark.parametrize("match", ["kl", "parameters"])
def test_no_step_at_all_leaves_nothing_to_match(match):
    objective, meta = gradient_of(meta_only(match=match, inner_steps=0, future_steps=0), smooth_views(6))
    assert objective.scalars["meta_loss"].item() == pytest.approx(0, abs=1e-15)
    assert flat(meta).abs().max() < 1e-14


@pytest.mark.parametrize(("inner", "future"), [(0, 1), (1, 1), (2, 1), (1, 3)])
@pytest.mark.parametrize("match", ["kl", "parameters"])
def test_first_order_gradient_is_that_at_the_adapted_parameters(match, inner, future):
    views = smooth_views(6)
    objective, meta = gradient_of(meta_only(match=match, inner_steps=inner, future_steps=future), views)
    theta = adapted(start(), views, inner).requires_grad_()
    target = adapted(theta.detach(), views, future)
    expected = kl(at(theta, views), at(target, views)) if match == "kl" else ((theta - target) ** 2).sum() / 2
    (gradient,) = torch.autograd.grad(expected, theta)
    assert objective.scalars["meta_loss"].item() == pytest.approx(expected.item(), rel=1e-9)
    assert torch.allclose(flat(meta), gradient, rtol=1e-8, atol=1e-14)


@pytest.mark.parametrize(("inner", "future"), [(1, 1), (2, 2)])
@pytest.mark.parametrize("match", ["kl", "parameters"])
def test_second_order_gradient_is_that_of_finite_differences(match, inner, future):
    views = smooth_views(5)
    _, meta = gradient_of(meta_only(match=match, inner_steps=inner, future_steps=future, order="second"), views)
    target = adapted(adapted(start(), views, inner), views, future)

    def meta_loss(theta):
        moved = adapted(theta, views, inner)
        if match == "kl":
            return kl(at(moved, views), at(target, views))
        return ((moved - target) ** 2).sum() / 2

    theta, step = start(), 1e-5
    numeric = []
    for i in range(len(theta)):
        shift = torch.zeros_like(theta)
        shift[i] = step
        numeric.append((meta_loss(theta + shift) - meta_loss(theta - shift)) / (2 * step))
    assert torch.allclose(flat(meta), torch.stack(numeric), rtol=1e-4, atol=1e-9)
    _, first = gradient_of(meta_only(match=match, inner_steps=inner, future_steps=future), views)
    assert not torch.allclose(flat(meta), flat(first), rtol=1e-3)  # or the check above could not fail


@pytest.mark.parametrize("future", [1, 2])
def test_small_inner_steps_give_the_gauss_newton_direction(future):
    """gradient → λ α F ∇ℓ, F the Gauss-Newton matrix of π, with an error in proportion to α."""
    views = smooth_views(5)

    def logits(theta):
        z = unit(at(theta, views))
        return torch.stack([z[0] @ z[1].T, z[1] @ z[0].T]) / 0.5

    theta = start()
    jacobian = torch.func.jacrev(logits)(theta).flatten(0, 1)  # [2·N, N, P]
    pi = logits(theta).softmax(-1).flatten(0, 1)
    hessian = torch.diag_embed(pi) - pi[:, :, None] * pi[:, None, :]
    fisher = torch.einsum("imp,imn,inq->pq", jacobian, hessian, jacobian) / len(pi)
    limit = future * fisher @ loss_gradient(theta, views)
    errors = []
    for alpha in (1e-3, 5e-4, 2.5e-4):
        _, meta = gradient_of(meta_only(inner_lr=alpha, future_steps=future), views)
        errors.append((flat(meta) / alpha - limit).norm().item())
    assert errors[0] < 0.2 * limit.norm()
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.1)


def test_without_meta_loss_and_with_one_task_it_is_the_base_method():
    views = tiny_views(8)
    base, wrapped = tiny_simclr(), GeSSL(tiny_simclr(), tasks=1, weight_meta=0.0)
    (theirs, base_gradients), (ours, wrapped_gradients) = (
        gradient_of(base, views),
        gradient_of(wrapped, views),
    )
    assert torch.equal(ours.loss, theirs.loss)
    assert all(torch.equal(a, b) for a, b in zip(wrapped_gradients, base_gradients, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(wrapped.buffers(), base.buffers(), strict=True))


def test_base_term_is_the_mean_over_tasks():
    views = smooth_views(8)
    _, both = gradient_of(GeSSL(smooth_simclr(), tasks=2, weight_meta=0.0), views)
    _, first = gradient_of(smooth_simclr(), views[:, :4])
    _, second = gradient_of(smooth_simclr(), views[:, 4:])
    assert torch.allclose(flat(both), (flat(first) + flat(second)) / 2, rtol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"inner_steps": 3, "future_steps": 2}, {"order": "second"}])
def test_inner_steps_leave_buffers_and_parameters_alone(settings):
    """Running statistics move once, by the mean over tasks of what the passes at θ do, however far tasks adapt."""
    views = tiny_views(8)
    adapting, plain = GeSSL(tiny_simclr(), **settings), GeSSL(tiny_simclr(), weight_meta=0.0)
    before = [p.clone() for p in adapting.parameters()]
    gradient_of(adapting, views)
    gradient_of(plain, views)
    assert all(torch.equal(a, b) for a, b in zip(adapting.buffers(), plain.buffers(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(adapting.parameters(), before, strict=True))
    assert adapting.base.backbone.bn1.num_batches_tracked == 1
    singles = [tiny_simclr(), tiny_simclr()]
    for single, part in zip(singles, views.chunk(2, 1), strict=True):
        gradient_of(single, part)
    mean = torch.stack([s.backbone.bn1.running_mean for s in singles]).mean(0)
    assert torch.allclose(adapting.base.backbone.bn1.running_mean, mean, rtol=1e-6)


def test_reported_loss_is_the_true_one_and_gradients_add_up():
    views = smooth_views(8)
    settings = {"inner_lr": ALPHA, "temperature": 0.5}
    objective, total = gradient_of(GeSSL(smooth_simclr(), weight_base=0.7, weight_meta=3.0, **settings), views)
    scalars = objective.scalars
    assert objective.loss.item() == pytest.approx(0.7 * scalars["base_loss"].item() + 3.0 * scalars["meta_loss"].item())
    _, base = gradient_of(GeSSL(smooth_simclr(), weight_meta=0.0, **settings), views)
    _, meta = gradient_of(GeSSL(smooth_simclr(), weight_base=0.0, **settings), views)
    assert torch.allclose(flat(total), 0.7 * flat(base) + 3.0 * flat(meta), rtol=1e-10)


def test_fresh_views_are_for_matching_alone():
    views, other = smooth_views(6, 4), smooth_views(6, 4).clone()
    other[2:] += 1
    fresh = [gradient_of(meta_only(match_views="fresh"), v)[0].scalars for v in (views, other)]
    assert fresh[0]["base_loss"] == fresh[1]["base_loss"]
    assert fresh[0]["meta_loss"] != fresh[1]["meta_loss"]
    with pytest.raises(UserError, match="copies: 4"):
        gradient_of(meta_only(match_views="fresh"), smooth_views(6, 2))


@pytest.mark.parametrize(("tasks", "advice"), [(3, "choose a multiple of 3"), (8, "Choose 16 or more")])
def test_a_batch_that_does_not_divide_into_tasks_is_refused(tasks, advice):
    with pytest.raises(UserError, match=rf"{tasks} tasks \(method.tasks\).*{advice}"):
        gradient_of(GeSSL(smooth_simclr(), tasks=tasks), smooth_views(8))


def flops(method, views) -> int:
    with FlopCounterMode(display=False) as counter:
        gradient_of(method, views)
    return counter.get_total_flops()


def _costs():
    """Fresh views add a pass of their own, whatever the steps: most of these are left to the nightly tests."""
    orders, matches = ("first", "second"), ("kl", "parameters")
    for how in itertools.product(orders, matches, ("same", "fresh"), range(3), range(3)):
        plain = how[2] == "same" or how[3:] in ((0, 0), (1, 1), (2, 1))
        yield pytest.param(*how, marks=() if plain else pytest.mark.nightly)


@pytest.mark.one_in(6)
@pytest.mark.parametrize(("order", "match", "views", "inner", "future"), list(_costs()))
def test_cost_is_what_is_said(order, match, views, inner, future):
    """In FLOPs, in steps of the base method on the same views."""
    four = torch.cat([tiny_views(8), tiny_views(8)])
    step = flops(tiny_simclr(), four)
    settings = {"inner_steps": inner, "future_steps": future, "match": match, "match_views": views, "order": order}
    method = GeSSL(tiny_simclr(), tasks=1, **settings)
    assert flops(method, four) / step == pytest.approx(method.gradient_evaluations, rel=0.02)


@pytest.mark.parametrize("views", ["same", "fresh"])
def test_cost_does_not_depend_on_the_number_of_tasks_and_is_that_of_the_base_without_meta_loss(views):
    four = torch.cat([tiny_views(16), tiny_views(16)])
    step = flops(tiny_simclr(), four)
    for settings in ({"tasks": 2}, {"tasks": 4}, {"tasks": 2, "weight_meta": 0.0}):
        method = GeSSL(tiny_simclr(), match_views=views, **settings)
        assert flops(method, four) / step == pytest.approx(method.gradient_evaluations, rel=0.02)
    assert method.gradient_evaluations == (1.0 if views == "same" else 0.5)


def tensors_held(make, tasks: int, **settings) -> int:
    """How many tensors of the shape of a parameter or of the queue live, at most, at any pass through the backbone.
    A task has two images, so that its activations do not depend on the number of tasks."""
    method = GeSSL(make(), tasks=tasks, **settings)
    shapes = {p.shape for p in method.parameters() if p.ndim > 1} | {b.shape for b in method.buffers() if b.ndim > 1}
    counts = []

    def count(*_):
        gc.collect()
        counts.append(sum(type(o) is torch.Tensor and o.shape in shapes for o in gc.get_objects()))

    method.base.backbone.register_forward_pre_hook(count)
    gc.collect()
    gc.freeze()  # only what is made from here on is looked at
    method.ssl_loss(batch_of(tiny_views(2 * tasks)), LOCAL, Draw()).loss.backward()
    return max(counts)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("settings", [{}, {"inner_steps": 2, "future_steps": 2}, {"order": "second"}])
@pytest.mark.parametrize("make", [tiny_simclr, Queued])
def test_memory_does_not_grow_with_the_number_of_tasks(make, settings):
    """Between tasks, only the sum of their gradients is held."""
    assert tensors_held(make, 8, **settings) == tensors_held(make, 2, **settings) > 0


def test_half_precision_without_scaled_inner_gradients_is_refused():
    method = GeSSL(tiny_simclr())
    method._trainer = SimpleNamespace(precision="16-mixed", callbacks=[], accumulate_grad_batches=1)
    with pytest.raises(UserError, match="16-mixed, in which gradients of inner steps fall below"):
        method.setup("fit")
    method._trainer.precision = "bf16-mixed"
    method.setup("fit")
