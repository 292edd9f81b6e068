"""What holds for every method with a projector: over processes, in GeSSL, after a resume; and what moves besides
weights."""

import itertools
import math

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO
from ssl_lightning.config.places import CONF
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.models.teacher import growing
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks import fitting
from tests.methods.networks import SMOOTH, TINY, batch_of, gradients, smooth_views, tiny_views

RECIPE = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
every = pytest.mark.parametrize("name", SMOOTH)


def test_every_method_of_the_config_is_tried():
    assert {file.stem for file in (CONF / "method").glob("*.yaml")} == {
        *SMOOTH,
        "directclr",
        "gessl",
        "reptile",
        "supervised",
    }


# One process and two


class Loss(nn.Module):
    """What DistributedDataParallel wraps."""

    def __init__(self, method, gather):
        super().__init__()
        self.method, self.gather = method, gather

    def forward(self, batch, number):
        self.objective = self.method.ssl_loss(batch, self.gather, Draw(batch=number, rank=self.gather.rank))
        return self.objective.loss


def three_steps(rank, world_size, name, gessl):
    """Losses and state of one rank, trained on its share of the same batches."""
    method, gather = SMOOTH[name](), Gather(rank, world_size)
    if gessl:
        method = GeSSL(method, tasks=4 // world_size, inner_lr=0.1)
    loss = Loss(method, gather)
    wrapped = DistributedDataParallel(loss) if world_size > 1 else loss
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.1, momentum=0.9)
    share = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
    values = []
    for step in range(3):
        views, index = smooth_views(16, seed=step)[:, share], torch.arange(16)[share]
        optimizer.zero_grad()
        value = wrapped(Batch((views,), index, index), step)
        value.backward()
        values.append(value.detach())
        optimizer.step()
        with torch.no_grad():
            method.after_step(loss.objective, gather, (step + 1) / 6)
    return torch.stack(values), {name: value.clone() for name, value in method.state_dict().items()}


@every
def test_two_processes_are_one(pair, name):
    """Losses, and all state after three steps: weights, teachers, queues, centres."""
    losses, expected = three_steps(0, 1, name, False)
    first, second = pair(three_steps, 2, name, False)
    torch.testing.assert_close((first[0] + second[0]) / 2, losses, rtol=1e-9, atol=1e-12)
    for key, value in expected.items():
        assert torch.equal(first[1][key], second[1][key])
        torch.testing.assert_close(first[1][key], value, rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("name", [name for name in SMOOTH if name != "lejepa"])  # whose directions are those of a task
def test_two_processes_are_one_in_gessl(pair, name):
    losses, expected = three_steps(0, 1, name, True)
    first, second = pair(three_steps, 2, name, True)
    torch.testing.assert_close((first[0] + second[0]) / 2, losses, rtol=1e-9, atol=1e-12)
    for key, value in expected.items():
        torch.testing.assert_close(first[1][key], value, rtol=1e-8, atol=1e-11)


# Symmetries


@every
def test_order_of_images_and_views_is_irrelevant(name):
    views = smooth_views(8)
    loss = SMOOTH[name]().ssl_loss(batch_of(views), LOCAL, Draw()).loss
    order = torch.tensor([5, 1, 7, 0, 2, 6, 4, 3])
    for other in (views[:, order], views.flip(0)):
        torch.testing.assert_close(
            SMOOTH[name]().ssl_loss(batch_of(other), LOCAL, Draw()).loss, loss, rtol=1e-9, atol=0
        )


@every
def test_losses_of_images_are_those_of_the_batch(name):
    objective = SMOOTH[name]().ssl_loss(batch_of(smooth_views(8, 3)), LOCAL, Draw())
    if objective.image_losses is not None:
        torch.testing.assert_close(objective.image_losses.mean(), objective.loss)
        assert objective.image_losses.shape == (8,)


@every
def test_more_views_and_a_second_size(name):
    views, small = tiny_views(8, 2), torch.randn(3, 8, 1, 4, 4, generator=torch.Generator().manual_seed(5))
    method = TINY[name]()
    objective = method.ssl_loss(batch_of(views, small), LOCAL, Draw())
    assert objective.representations.shape == (5, 8, 32)
    assert len(objective.embeddings) == 5
    objective.loss.backward()
    assert all(g.isfinite().all() for g in gradients(method))
    assert TINY[name]().ssl_loss(batch_of(tiny_views(8, 4)), LOCAL, Draw()).loss.isfinite()


# GeSSL


@every
def test_gessl_without_meta_loss_and_with_one_task_is_the_method(name):
    views = smooth_views(8)
    base, wrapped = SMOOTH[name](), GeSSL(SMOOTH[name](), tasks=1, weight_meta=0.0)
    expected, ours = (m.ssl_loss(batch_of(views), LOCAL, Draw()) for m in (base, wrapped))
    expected.loss.backward()
    ours.loss.backward()
    torch.testing.assert_close(ours.loss, expected.loss)
    for a, b in zip(gradients(wrapped), gradients(base), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


@every
def test_gessl_that_adapts_nothing_has_nothing_to_match(name):
    wrapped = GeSSL(SMOOTH[name](), tasks=2, inner_steps=0, future_steps=0)
    objective = wrapped.ssl_loss(batch_of(smooth_views(8)), LOCAL, Draw())
    assert objective.scalars["meta_loss"].item() == 0


@every
@pytest.mark.parametrize("order", ["first", "second"])
def test_gessl_around_it(name, order):
    wrapped = GeSSL(SMOOTH[name](), tasks=2, inner_lr=0.05, order=order)
    before = {n: b.clone() for n, b in wrapped.named_buffers()}
    objective = wrapped.ssl_loss(batch_of(smooth_views(8)), LOCAL, Draw())
    objective.loss.backward()
    found = [p.grad for p in wrapped.parameters() if p.requires_grad]
    assert all(g is not None and g.isfinite().all() for g in found)
    assert objective.scalars["meta_loss"] > 0
    assert all(torch.equal(b, before[n]) for n, b in wrapped.named_buffers())


# Resume

EXAMPLES = ("simclr", "byol", "moco", "swav", "dino")
"""One method of weights alone, and those with a teacher, a queue or a centre; others are left to the nightly tests."""


@pytest.mark.parametrize(
    ("name", "gessl"),
    [
        pytest.param(name, gessl, marks=() if name in EXAMPLES and not gessl else pytest.mark.nightly)
        for name, gessl in itertools.product(SMOOTH, (False, True))
    ],
)
def test_a_resume_in_mid_epoch_goes_on_bit_for_bit(tmp_path, name, gessl):
    path = tmp_path / "last.ckpt"

    def make():
        method = GeSSL(TINY[name](), tasks=2, optimizer=RECIPE) if gessl else TINY[name]()
        method.recipe = RECIPE
        return method

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.batches == 2:
                trainer.save_checkpoint(path)

    options = {"plugins": [AtomicCheckpointIO()]}
    whole, resumed = make(), make()
    fitting.fit(Save(), trained=whole, **options)
    fitting.fit(trained=resumed, ckpt=path, **options)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# Teachers, queues, centres


@pytest.mark.parametrize("name", ["byol", "dino"])
def test_a_teacher_is_the_closed_form_of_its_average(name):
    method = SMOOTH[name]()
    networks = (method.backbone, method.projector, *((method.last,) if name == "dino" else ()))
    students = [p for network in networks for p in network.parameters()]
    expected = [p.detach().clone() for p in method.teacher.parameters()]
    assert all(torch.equal(e, s) for e, s in zip(expected, students, strict=True))
    assert not any(p.requires_grad for p in method.teacher.parameters())
    optimizer = torch.optim.SGD(students, lr=0.1)
    for step in range(4):
        objective = method.ssl_loss(batch_of(smooth_views(8, seed=step)), LOCAL, Draw())
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        progress = (step + 1) / 5
        momentum = 1 - (1 - 0.9) * (math.cos(math.pi * progress) + 1) / 2
        expected = [momentum * e + (1 - momentum) * s.detach() for e, s in zip(expected, students, strict=True)]
        with torch.no_grad():
            method.after_step(objective, LOCAL, progress)
    for ours, e in zip(method.teacher.parameters(), expected, strict=True):
        torch.testing.assert_close(ours, e, rtol=1e-12, atol=0)


def test_the_momentum_of_a_teacher_grows_to_one():
    assert [growing(0.996, t) for t in (0, 0.5, 1)] == pytest.approx([0.996, 0.998, 1.0], abs=1e-15)


def test_the_queue_holds_the_last_keys_in_their_order():
    method = SMOOTH["moco"]()
    keys = [method.queue.clone()]
    for step in range(4):
        objective = method.ssl_loss(batch_of(smooth_views(8, seed=step)), LOCAL, Draw())
        r = method.teacher(smooth_views(8, seed=step).flatten(0, 1)).unflatten(0, (2, 8))
        keys.append(normalize(r, dim=-1).transpose(0, 1).flatten(0, 1))  # the views of an image together
        with torch.no_grad():
            method.after_step(objective, LOCAL, 0.1)
        torch.testing.assert_close(method.queue, torch.cat(keys)[-48:])


def test_the_first_loss_of_moco_is_that_of_its_definition():
    """Both encoders are the same: a key of the other view against 48 random ones."""
    method, views = SMOOTH["moco"](), smooth_views(8)
    z = normalize(method.project(method(views.flatten(0, 1))), dim=-1).unflatten(0, (2, 8))
    own = (z[0] * z[1]).sum(-1) / 0.2
    others = [(z[v] @ method.queue.T / 0.2) for v in (0, 1)]
    losses = [torch.cat((own[:, None], o), 1).logsumexp(1) - own for o in others]
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(method.ssl_loss(batch_of(views), LOCAL, Draw()).loss, expected)


@pytest.mark.parametrize(("name", "attribute"), [("swav", "prototypes"), ("dino", "last")])
@pytest.mark.parametrize("algorithm", [torch.optim.AdamW, torch.optim.SGD])
def test_directions_stand_still_at_first(name, attribute, algorithm):
    """Exactly, also where weights decay."""
    method = TINY[name]()
    recipe = OptimizerRecipe(algorithm=algorithm, lr=0.1, weight_decay=0.1, batch_size=8)
    optimizer, _ = recipe.build(method.parameter_groups(), 10, 10)
    weight = getattr(method, attribute).weight
    first = weight.detach().clone()
    for step in range(4):
        objective = method.ssl_loss(batch_of(tiny_views(8, seed=step)), LOCAL, Draw())
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        assert torch.equal(weight, first) == (step < 2)  # frozen=0.2 of 10 steps
        with torch.no_grad():
            method.after_step(objective, LOCAL, (step + 1) / 10)


def test_the_centre_and_the_temperature_of_dinos_teacher():
    method, views = SMOOTH["dino"](), smooth_views(8)
    outputs = method.teacher(views.flatten(0, 1)).unflatten(0, (2, 8))
    method.center.copy_(torch.linspace(-0.1, 0.1, 6))
    for progress, temperature in ((0.0, 0.04), (0.15, 0.055), (0.3, 0.07), (0.9, 0.07)):
        method.progress.fill_(progress)
        z = method.project(method(views.flatten(0, 1)))
        log_p = (method.last(z) / 0.1).log_softmax(-1).unflatten(0, (2, 8))
        q = ((outputs - method.center) / temperature).softmax(-1)
        expected = -(q[0] * log_p[1] + q[1] * log_p[0]).sum(-1).mean() / 2
        objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
        torch.testing.assert_close(objective.loss, expected)
    before = method.center.clone()
    with torch.no_grad():
        method.after_step(objective, LOCAL, 0.5)
    torch.testing.assert_close(method.center, 0.9 * before + 0.1 * outputs.mean((0, 1)))


def test_the_predictor_of_simsiam_keeps_its_learning_rate():
    method = TINY["simsiam"]()
    optimizer, scheduler = RECIPE.build(method.parameter_groups(), 10, 10)
    for _ in range(9):
        optimizer.step()
        scheduler.step()
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    of_predictor = {id(p) for p in method.predictor.parameters()}
    assert all((rate == 1e-2) == (number in of_predictor) for number, rate in rates.items())
    assert len(rates) == len(list(method.parameters()))


# What a step costs


@pytest.mark.parametrize("name", TINY)
def test_gradient_evaluations_are_what_is_said(name):
    """In FLOPs of the backbone, of which SimCLR's step has 1: projectors and losses are small."""
    counts = {}
    for one in ("simclr", name):
        method = TINY[one]()
        with FlopCounterMode(method, display=False) as counter:
            method.ssl_loss(batch_of(tiny_views(8)), LOCAL, Draw()).loss.backward()
        counts[one] = counter.get_total_flops()
    said = TINY[name]().gradient_evaluations
    assert counts[name] / counts["simclr"] == pytest.approx(said, rel=0.1)
