"""An epoch sees what a rule chose by the losses that images had, in one process and in two, resumed or not."""

import os
import re
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import nn

from ssl_lightning.callbacks.selecting import Selecting
from ssl_lightning.config.components import make
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.sampler import BatchSampler, Round, seed_of
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.method import Objective, SSLMethod, weighted
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.methods.vicreg import VICReg
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.selection.coarse_to_fine import CoarseToFine
from ssl_lightning.selection.infobatch import InfoBatch
from ssl_lightning.selection.rule import Moment, SelectionRule
from ssl_lightning.selection.scan import Scan
from tests.callbacks import fitting
from tests.composing import composed
from tests.config.configs import forget
from tests.methods.examples import Pooled

__all__ = ["forget"]

METHODS = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
WITHOUT_LOSSES = {"barlow_twins", "vicreg", "lejepa"}
ALIKE = Augment([View(copies=2)])
"""Views without anything drawn, which is drawn by each process."""


class Watch(L.Callback):
    """Remembers images and weights of each epoch, and the losses they had."""

    def __init__(self) -> None:
        self.epochs: list[list[tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]]] = []

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append([])

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        losses = outputs["objective"].image_losses.detach().float()
        self.epochs = self.epochs or [[]]  # of one that goes on in an epoch, nobody tells that it starts
        self.epochs[-1].append((batch.index.clone(), batch.weight, losses.clone()))


def smooth() -> SimCLR:
    """In float64 and without statistics of batches."""
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=0.5, batch_size=16)
    return SimCLR(Pooled().double(), lambda _: nn.Identity(), optimizer=recipe)


def fit(rule: SelectionRule, *more: L.Callback, epochs: int = 8, fraction: float = 1.0, **options: Any):
    selecting, watch = Selecting(rule, seed=5), Watch()
    data = fitting.dataset(160)
    fitted = fitting.fit(selecting, watch, *more, data=data, fraction=fraction, max_epochs=epochs, **options)
    return fitted, selecting, watch


@pytest.mark.parametrize("fraction", [1.0, 0.7])
@pytest.mark.parametrize(
    "rule",
    [InfoBatch(ratio=0.4), Scan(ratio=0.3, cycle=2), CoarseToFine(fraction=0.5)],
    ids=lambda rule: rule.name,
)
def test_epochs_see_what_the_rule_chose_by_the_losses_before(rule, fraction):
    """All of it is done again, from the losses alone."""
    fitted, selecting, watch = fit(rule, fraction=fraction, trained=smooth())
    positions = torch.from_numpy(fitted.datamodule.mask.positions)
    losses, seen = torch.zeros(160), torch.zeros(160, dtype=torch.bool)
    assert len(watch.epochs) == 8
    steps = 0
    for epoch, batches in enumerate(watch.epochs):
        weights = torch.zeros(160)
        generator = torch.Generator().manual_seed(seed_of("selection", 5, epoch))
        moment = Moment(epoch, epoch / 8, (epoch + 1) / 8)
        weights[positions] = rule.weights(losses[positions], seen[positions], moment, generator)
        kept = int((weights > 0).sum())
        assert len(batches) == kept // 16
        index = torch.cat([index for index, _, _ in batches])
        assert len(set(index.tolist())) == len(index)
        assert (weights[index] > 0).all()
        for of_batch, weight, values in batches:
            expected = weights[of_batch]
            assert torch.equal(expected if weight is None else weight, expected)
            losses[of_batch], seen[of_batch] = values, True
        steps += len(batches)
    assert selecting.images_left_out == 16 * (8 * (len(positions) // 16) - steps) > 0
    assert fitted.global_step == fitted.lightning_module.clock.planned == steps < 8 * (len(positions) // 16)
    assert selecting.seconds > 0


def test_an_epoch_of_all_images_is_what_it_is_without_selection():
    weights = [
        fitting.weights(fitting.fit(*callbacks, data=fitting.dataset(160), max_epochs=3))
        for callbacks in ([], [Selecting(InfoBatch(until=0.0))])
    ]
    for name in weights[0]:
        assert torch.equal(weights[0][name], weights[1][name])


@pytest.mark.parametrize("at", [11, 20, 24])  # within an epoch, and at the end of the second
def test_a_training_that_goes_on_is_what_it_would_have_been(tmp_path, at):
    class Save(L.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "at.ckpt")

    rule = InfoBatch(ratio=0.6, until=1.0)
    whole, selecting, _ = fit(rule, Save(), epochs=5)
    resumed, again, _ = fit(rule, epochs=5, ckpt=tmp_path / "at.ckpt")
    assert whole.global_step == resumed.global_step > at
    expected = fitting.weights(whole)
    for name, value in fitting.weights(resumed).items():
        assert torch.equal(value, expected[name])
    states = [one.state_dict() for one in (selecting, again)]
    for state in states:
        state.pop("selecting_seconds")
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1][key]))


def test_as_many_steps_as_were_asked_for():
    fitted, _, watch = fit(InfoBatch(), epochs=-1, max_steps=37)
    assert fitted.global_step == fitted.lightning_module.clock.planned == 37
    assert len(watch.epochs) > 4
    assert fitted.lightning_module.clock.progress(37) == 1


def test_losses_that_are_not_finite_are_not_known():
    fitted, selecting, _ = fit(InfoBatch(), epochs=1)
    selecting._new.zero_()
    for value in (torch.nan, torch.inf):
        losses = torch.tensor([1.0, value])
        outputs = {"objective": Objective(losses.mean(), losses, losses, image_losses=losses)}
        selecting.on_train_batch_end(fitted, fitted.lightning_module, outputs, Batch((), None, torch.tensor([3, 4])), 0)
        state = selecting.state_dict()
        assert state["seen"][[3, 4]].tolist() == [True, False]
        assert state["losses"].isfinite().all()


class Few(InfoBatch):
    """Leaves hardly anything."""

    def weights(self, losses, seen, moment, generator):
        return (torch.arange(len(losses)) < 15).float()


def test_an_epoch_with_too_few_images_for_a_batch_sees_all():
    _, selecting, watch = fit(Few(), epochs=3)
    assert [len(epoch) for epoch in watch.epochs] == [10, 10, 10]
    assert selecting.images_left_out == 0


# The gradient


@pytest.mark.parametrize("name", [name for name in METHODS if name not in {*WITHOUT_LOSSES, "gessl", "reptile"}])
def test_the_gradient_of_the_losses_of_images_is_that_of_the_loss(name):
    """So that weights of 1 change nothing, and others count as they say."""
    torch.manual_seed(0)
    method = make(resolve(composed(f"method={name}", "backbone.width=4"))["method"]).double()
    assert method.has_image_losses
    assert method.weighs_images
    views = torch.randn(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    index = torch.arange(6)
    parameters = [p for p in method.parameters() if p.requires_grad]

    def gradient(of):
        objective = method.ssl_loss(Batch((views,), index, index), LOCAL, Draw())
        found = torch.autograd.grad(of(objective), parameters, allow_unused=True)
        return torch.cat([g.flatten() for g in found if g is not None])

    close = {"rtol": 1e-5, "atol": 1e-7}
    whole = gradient(lambda objective: objective.loss)
    assert whole.abs().max() > 1e-6
    torch.testing.assert_close(gradient(lambda o: weighted(o, torch.ones(6)).loss), whole, **close)


# What is refused


@pytest.mark.parametrize("name", METHODS)
def test_methods_are_refused_or_accepted_before_anything_is_done(forget, name):
    method = make(resolve(composed(f"method={name}", "backbone.width=4"))["method"])
    for rule in (InfoBatch(), Scan(), CoarseToFine()):
        if name in WITHOUT_LOSSES:
            words = rf"selection={rule.name} reads the loss of each image, but .*selection=none"
        elif isinstance(method, GeSSL) and rule.weighs:
            words = r"infobatch weighs .*Choose selection=scan or coarse_to_fine"
        else:
            Selecting(rule).check(method)
            continue
        with pytest.raises(UserError, match=words):
            Selecting(rule).check(method)


def test_what_wraps_a_method_has_the_losses_that_it_has():
    wrapped = GeSSL(VICReg(Pooled(), lambda d: nn.Linear(d, 2)))
    with pytest.raises(UserError, match="but GeSSL has only one of a whole batch"):
        Selecting(Scan()).check(wrapped)


class Silent(SimCLR):
    """Says that it has losses of images, and gives none."""

    def ssl_loss(self, *arguments):
        return super().ssl_loss(*arguments)._replace(image_losses=None)


def test_a_method_of_ones_own_without_losses_is_told_at_the_first_step():
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=0.1, batch_size=16)
    silent = Silent(Pooled(), lambda _: nn.Identity(), optimizer=recipe)
    with pytest.raises(UserError, match=r"objectives of Silent have no image_losses. Return Objective"):
        fitting.fit(Selecting(Scan()), data=fitting.dataset(160), trained=silent)


@pytest.mark.parametrize(
    ("rule", "options", "words"),
    [
        (Scan(ratio=0.46), {}, r"may leave 12 of 160 images to an epoch, but batch_size is 16"),
        (Scan(), {"limit_train_batches": 3}, r"limit_train_batches is 3, but selection=scan says itself"),
    ],
)
def test_what_cannot_be_done_is_refused_before_training(rule, options, words):
    with pytest.raises(UserError, match=words):
        fit(rule, epochs=1, **options)


# Samplers


@pytest.mark.parametrize("a_step", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2])
def test_a_round_leaves_images_out_of_the_order(world_size, a_step):
    positions = torch.arange(10, 60)
    samplers = [BatchSampler(positions, 8, 3, rank, world_size, a_step) for rank in range(world_size)]
    weights = torch.zeros(70)
    weights[positions[::2]] = 2.0
    whole = BatchSampler(positions, 50, 3).batch(4).tolist()
    for sampler in samplers:
        sampler.begin(Round(4, 17, weights))
        assert len(sampler) == 3 * a_step
        assert not sampler.holds(16)
        assert not sampler.holds(17 + len(sampler))
        assert sampler.place(18) == (4, 1)
    steps = [[s.batch(17 + step * a_step + part) for s in samplers for part in range(a_step)] for step in range(3)]
    seen = torch.cat([part for step in steps for part in step]).tolist()
    assert seen == [position for position in whole if weights[position] > 0][:24]
    with pytest.raises(ValueError, match="7 images are no batch of 8"):
        samplers[0].begin(Round(5, 23, (torch.arange(70) < 17).float()))


# Two processes


def rounds(rank: int, world_size: int, folder: str) -> tuple[list[list[float]], list[float]]:
    """Weights of each epoch's images, and losses in a checkpoint that is made within one."""
    if world_size > 1:
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world_size, "LOCAL_WORLD_SIZE": world_size}
        environment |= {"GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": 1, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": 29400}
        os.environ |= {key: str(value) for key, value in environment.items()}
    made: list[list[float]] = []

    class Keep(L.Callback):
        def on_train_epoch_start(self, trainer: Any, *_: Any) -> None:
            made.append(selecting.round.weights.tolist())

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 13:
                trainer.save_checkpoint(Path(folder) / "13.ckpt")

    selecting = Selecting(InfoBatch(ratio=0.5, until=1.0), seed=5)
    options = {"strategy": "ddp", "devices": world_size, "use_distributed_sampler": False} if world_size > 1 else {}
    method: SSLMethod = smooth()
    fitting.fit(selecting, Keep(), data=fitting.dataset(160), max_epochs=4, trained=method, augment=ALIKE, **options)
    state = torch.load(Path(folder) / "13.ckpt", weights_only=True)["callbacks"]
    losses = next(value for key, value in state.items() if re.match("Selecting", key))["losses"]
    return made, losses.tolist()


def test_two_processes_choose_what_one_does(pair, tmp_path):
    (first, losses), (second, _) = pair(rounds, 2, str(tmp_path))
    assert first == second
    assert len(first) == 4
    assert 0.0 in first[1]
    alone = tmp_path / "alone"
    alone.mkdir()
    chosen, lost = rounds(0, 1, str(alone))
    assert chosen == first
    assert lost == pytest.approx(losses, rel=1e-5, abs=1e-6)
    assert sum(loss != 0 for loss in losses) >= 144
