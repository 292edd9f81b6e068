"""The online probe neither learns from held-out labels nor touches the method; seeds are a function of the step."""

import lightning as L
import numpy as np
import pytest
import torch

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.online_probe import OnlineProbe
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.seeds import StepSeeds
from tests.callbacks.fitting import dataset, fit, relabelled, weights


class Steps(L.Callback):
    """Keeps what each step saw and gave."""

    def __init__(self):
        self.batches, self.outputs, self.gradients, self.random = [], [], [], []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.gradients.append([p.grad.clone() for p in pl_module.parameters()])

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.random.append(torch.rand(()).item())

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batches.append(batch)
        self.outputs.append(outputs)


def assert_equal_state(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_held_out_labels_are_never_learned_from():
    clean = dataset()
    held_out = clean.validation().numpy()
    assert 0 < held_out.sum() < len(held_out)

    def probe_weights(data):
        probe = OnlineProbe()
        fit(probe, data=data)
        return probe.state_dict()["probe"]

    expected = probe_weights(clean)
    assert expected["weight"].abs().sum() > 0
    assert_equal_state(probe_weights(relabelled(clean, np.flatnonzero(held_out))), expected)
    others = probe_weights(relabelled(clean, np.flatnonzero(~held_out)))  # these labels do matter
    assert not torch.equal(others["weight"], expected["weight"])


def test_method_does_not_notice_the_probe():
    with_probe, without = Steps(), Steps()
    watched = fit(OnlineProbe(lr=0.1), with_probe)
    alone = fit(without)
    assert len(without.gradients) == 6
    for a, b in zip(with_probe.gradients, without.gradients, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert_equal_state(weights(watched), weights(alone))
    assert not [name for name in watched.lightning_module.state_dict() if "probe" in name]


def test_accuracy_is_that_of_held_out_images_before_the_step():
    steps = Steps()
    probe = OnlineProbe()
    states = []

    class Before(L.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            states.append({name: value.clone() for name, value in probe.state_dict().get("probe", {}).items()})

    data = dataset()
    held_out = data.validation()
    fit(Before(), probe, steps, data=data)
    measured = 0
    for state, batch, outputs in list(zip(states, steps.batches, steps.outputs, strict=True))[1:]:
        r = outputs["objective"].representations.detach()
        logits = r @ state["weight"].T + state["bias"]
        correct = logits.argmax(-1) == batch.label
        chosen = held_out[batch.index].expand_as(correct)
        sums, counts = outputs["averages"]["online/val_top1"]
        assert (int(sums), int(counts)) == (int((correct & chosen).sum()), int(chosen.sum()))
        measured += int(counts)
        loss, trained_on = outputs["averages"]["online/loss"]
        assert int(trained_on) == correct.numel() - int(chosen.sum())
        labels = batch.label.expand_as(correct)
        losses = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
        expected = losses[~chosen.flatten()].sum()
        torch.testing.assert_close(loss, expected)
    assert measured > 0


def test_probe_learns():
    steps = Steps()
    fit(OnlineProbe(lr=0.05), steps, max_epochs=20)
    sums, counts = zip(*(outputs["averages"]["online/val_top1"] for outputs in steps.outputs[-15:]), strict=True)
    assert sum(sums) / sum(counts) > 0.8  # chance is 1/3


@pytest.mark.parametrize("step", [2, 3])
def test_state_resumes(tmp_path, step):
    whole = OnlineProbe()
    path = tmp_path / "last.ckpt"

    def saved(probe, **options):
        recorder = Recorder()
        last = LastCheckpoint(path, recorder, 60.0, None)
        return fit(probe, recorder, last, plugins=[AtomicCheckpointIO()], **options)

    class Stop(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == step:
                trainer.save_checkpoint(path)

    fit(whole, Stop(), plugins=[AtomicCheckpointIO()])
    resumed = OnlineProbe()
    saved(resumed, ckpt=path)
    a, b = whole.state_dict(), resumed.state_dict()
    assert_equal_state(a["probe"], b["probe"])
    for i in a["optimizer"]["state"]:
        assert_equal_state(a["optimizer"]["state"][i], b["optimizer"]["state"][i])
    assert a["optimizer"]["state"][0]["step"] == 6


def test_state_without_a_step_is_kept():
    probe = OnlineProbe()
    assert probe.state_dict() == {}
    state = {"probe": {"weight": torch.ones(1)}, "optimizer": {}}
    probe.load_state_dict(state)
    assert probe.state_dict() == state  # training was over before it resumed


def test_random_numbers_of_a_step_are_a_function_of_seed_and_step(tmp_path):
    def draws(seed, **options):
        steps = Steps()
        torch.manual_seed(99)
        fit(StepSeeds(seed), steps, **options)
        return steps.random

    first = draws(0)
    assert len(set(first)) == 6
    assert draws(0, max_epochs=1) == first[:3]
    assert not set(draws(1)) & set(first)

    class Save(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "last.ckpt")

    fit(Save())
    assert draws(0, ckpt=tmp_path / "last.ckpt") == first[4:]
