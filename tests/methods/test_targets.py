"""An EMA teacher and a queue: what after_step is given, alone, in GeSSL, over processes, and after a resume."""

import functools

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL, Gather
from ssl_lightning.losses.matching import matching_kl
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.callbacks import fitting
from tests.methods.examples import Queued
from tests.methods.networks import batch_of, tiny_views

RECIPE = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
MAKE = {
    "alone": lambda recipe=RECIPE: Queued(recipe),
    "in GeSSL": lambda recipe=RECIPE: GeSSL(Queued(), tasks=4, optimizer=recipe),
}
makers = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)


def base_of(method) -> Queued:
    return method.base if isinstance(method, GeSSL) else method


class Watch(L.Callback):
    """Keeps the keys of each optimizer step and the weights after it, and what after_step was given."""

    def __init__(self, method) -> None:
        self.progress, self.keys, self.weights, self.teachers, self.queues = [], [], [], [], []
        base = base_of(method)
        real = base.after_step

        def after_step(objective, gather, progress):
            assert not torch.is_grad_enabled()
            assert not any(t.requires_grad for t in (objective.loss, objective.representations, objective.embeddings))
            assert not any(t.requires_grad for t in objective.carry.values())
            real(objective, gather, progress)
            self.progress.append(progress)
            self.keys.append(objective.carry["keys"][0].clone())
            self.weights.append([p.clone() for p in base.backbone.parameters()])
            self.teachers.append([p.clone() for p in base.teacher.parameters()])
            self.queues.append(base.queue.clone())

        base.after_step = after_step


@makers
@pytest.mark.parametrize("batches_a_step", [1, 4])
def test_teacher_and_queue_follow_their_closed_forms(make, batches_a_step):
    """t_k = Π m_i · t_0 + Σ_j (1 − m_j) Π_{i>j} m_i · w_j; the queue holds the last keys in their order."""
    if batches_a_step > 1 and make is MAKE["in GeSSL"]:
        make = functools.partial(lambda: GeSSL(Queued(), tasks=2, optimizer=RECIPE))
    method = make()
    base, watch = base_of(method), Watch(method)
    first = [p.clone() for p in base.teacher.parameters()]
    start = base.queue.clone()
    fitting.fit(trained=method, accumulate_grad_batches=batches_a_step)
    steps = 6
    assert watch.progress == [(step + 1) / steps for step in range(steps)]
    assert [len(keys) for keys in watch.keys] == [16] * steps  # of all tasks and of all batches of the step
    momenta = [base.momentum_at(progress) for progress in watch.progress]
    assert momenta[-1] == 1
    for k in range(steps):
        assert torch.equal(watch.queues[k], torch.cat((start, *watch.keys[: k + 1]))[-48:])
        for i, begun in enumerate(first):
            kept = torch.tensor(momenta[: k + 1], dtype=torch.float64)
            expected = kept.prod() * begun
            for j in range(k + 1):
                expected = expected + (1 - kept[j]) * kept[j + 1 :].prod() * watch.weights[j][i]
            torch.testing.assert_close(watch.teachers[k][i], expected, rtol=1e-12, atol=1e-15)
    assert not torch.equal(watch.teachers[0][0], first[0])
    assert all(torch.equal(p, q) for p, q in zip(base.teacher.parameters(), watch.teachers[-1], strict=True))


def test_gessl_gives_the_keys_of_all_tasks_in_the_order_of_the_images():
    wrapped, views = GeSSL(Queued(), tasks=4), tiny_views(8).double()
    objective = wrapped.ssl_loss(batch_of(views), LOCAL, Draw())
    keys = wrapped.base.teacher(views.flatten(0, 1)).unflatten(0, (2, 8))
    torch.testing.assert_close(objective.carry["keys"], keys)
    assert objective.carry["predictions"].shape == (2, 8, 6)
    assert objective.image_losses.shape == (8,)
    alone = Queued().ssl_loss(batch_of(views), LOCAL, Draw())
    torch.testing.assert_close(objective.image_losses, alone.image_losses)


def test_gessl_compares_predictions_with_targets():
    wrapped, views = GeSSL(Queued(), tasks=1, inner_steps=0, inner_lr=0.1), tiny_views(8).double()
    objective = wrapped.ssl_loss(batch_of(views), LOCAL, Draw())
    base = Queued()
    now = base.ssl_loss(batch_of(views), LOCAL, Draw())
    now.loss.backward()
    with torch.no_grad():
        for p in base.parameters():
            p.sub_(0 if p.grad is None else 0.1 * p.grad)
        ahead = base.ssl_loss(batch_of(views), LOCAL, Draw())
    expected = matching_kl(base.predictions(now), base.predictions(ahead), 0.2)
    torch.testing.assert_close(objective.scalars["meta_loss"], expected.detach())
    assert expected > 0
    assert not any(p.requires_grad for p in wrapped.base.teacher.parameters())


@makers
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.one_in(2)
@pytest.mark.parametrize("step", [4, 2])
def test_a_resume_in_mid_epoch_goes_on_bit_for_bit(tmp_path, make, accumulate, step):
    path = tmp_path / "last.ckpt"

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.batches == step * accumulate:
                trainer.save_checkpoint(path)

    options = {"plugins": [AtomicCheckpointIO()], "accumulate_grad_batches": accumulate}
    whole = make()
    fitting.fit(Save(), trained=whole, **options)
    resumed = make()
    watch = Watch(resumed)
    fitting.fit(trained=resumed, ckpt=path, **options)
    assert watch.progress == [(k + 1) / 6 for k in range(step, 6)]
    assert (resumed.steps, resumed.batches) == (6, 6 * accumulate)
    assert {"queue", "teacher.first.weight"} <= set(base_of(resumed).state_dict())
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class Loss(nn.Module):
    """What DistributedDataParallel wraps."""

    def __init__(self, method, gather):
        super().__init__()
        self.method, self.gather = method, gather

    def forward(self, batch):
        self.objective = self.method.ssl_loss(batch, self.gather, Draw())
        return self.objective.loss


def state_after_three_steps(rank, world_size, make):
    """Of one rank, trained on its share of the same batches."""
    method, gather = make(world_size), Gather(rank, world_size)
    loss = Loss(method, gather)
    wrapped = DistributedDataParallel(loss) if world_size > 1 else loss
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
    share = slice(rank * 16 // world_size, (rank + 1) * 16 // world_size)
    for step in range(3):
        views, index = tiny_views(16, seed=step).double()[:, share], torch.arange(16)[share]
        optimizer.zero_grad()
        wrapped(Batch((views,), index, index)).backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step(loss.objective, gather, (step + 1) / 6)
    return {name: value.clone() for name, value in method.state_dict().items()}


def alone(world_size):
    return Queued()


def in_gessl(world_size):
    return GeSSL(Queued(), tasks=4 // world_size, inner_lr=0.1)


@pytest.mark.parametrize("make", [alone, in_gessl])
def test_two_processes_have_the_teacher_and_the_queue_of_one(pair, make):
    expected = state_after_three_steps(0, 1, make)
    first, second = pair(state_after_three_steps, 2, make)
    for name in expected:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=1e-9, atol=1e-12)
