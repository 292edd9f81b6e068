"""Spectra during training say what the encoder is, and change nothing of it."""

import copy
import math

import lightning as L
import pytest
import torch
from hydra.core.hydra_config import HydraConfig
from torch import nn

from ssl_lightning.callbacks.checkpoint import AtomicCheckpointIO, LastCheckpoint
from ssl_lightning.callbacks.recorder import Recorder
from ssl_lightning.callbacks.spectrum import Spectra, ranks_of
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.views import Augment, View
from ssl_lightning.loggers.metrics_file import MetricsFile
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.metrics.moments import Moments
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.pipeline.parts import identity_of
from ssl_lightning.runs.metrics import read_metrics
from tests.callbacks.fitting import dataset, fit, method, weights
from tests.composing import composed

RANKS = ("rankme", "effective_rank", "participation_ratio", "stable_rank", "nesum", "collapsed")
OF_VIEWS = ("alignment", "uniformity", "lidar")


class Measured(L.Callback):
    """Keeps by the number of the step what was measured after it."""

    def __init__(self):
        self.values = {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        found = {name: float(s / c) for name, (s, c) in outputs.get("averages", {}).items()}
        if found:
            self.values[pl_module.steps] = found


def directclr(d0=3):
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    return DirectCLR(resnet_tiny(width=4, channels=1), d0, optimizer=recipe)


class Dropping(nn.Module):
    """A projector that draws from the global generator while it trains, and has statistics."""

    def __init__(self, num_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Dropout(0.3), nn.Linear(num_features, 6), nn.BatchNorm1d(6), nn.Dropout(0.3))

    def forward(self, representations):
        return self.layers(representations)


def dropping():
    trained = method()
    trained.projector = Dropping(trained.backbone.num_features)
    trained.projector.layers[3].eval()  # one part stays as a user has put it
    return trained


@pytest.mark.parametrize("trained", [method, dropping, directclr])
def test_training_is_the_same_to_the_last_bit(trained):
    runs = [fit(*callbacks, trained=trained(), max_epochs=3) for callbacks in ((Spectra(),), ())]
    watched, alone = map(weights, runs)
    assert watched.keys() == alone.keys()
    assert all(torch.equal(watched[name], alone[name]) for name in alone)
    states = [run.optimizers[0].state_dict()["state"] for run in runs]
    assert all(torch.equal(a["exp_avg"], b["exp_avg"]) for a, b in zip(*(s.values() for s in states), strict=True))


def test_random_numbers_modes_and_gradients_are_left_alone():
    spectra, trained = Spectra(), dropping()
    fitted = fit(trained=trained, max_epochs=1)
    spectra.on_fit_start(fitted, trained)
    trained.train()
    trained.projector.layers[3].eval()
    modes = [part.training for part in trained.modules()]
    before = torch.get_rng_state(), {name: value.clone() for name, value in trained.state_dict().items()}
    gradients = [p.grad for p in trained.parameters()]
    fitted.fit_loop.epoch_loop.batch_progress.is_last_batch = True
    outputs = {}
    spectra.on_train_batch_end(fitted, trained, outputs, None, 0)
    assert outputs["averages"]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert all(torch.equal(value, before[1][name]) for name, value in trained.state_dict().items())
    assert [part.training for part in trained.modules()] == modes
    assert all(a is b for a, b in zip((p.grad for p in trained.parameters()), gradients, strict=True))


def test_what_is_measured_and_when():
    """Two epochs of three steps, and one that is cut off: every second epoch, and the end."""
    measured = Measured()
    fit(Spectra(every_n_epochs=2), measured, max_epochs=3)
    assert list(measured.values) == [6, 9]
    names = {f"spectrum/{what}/{metric}" for what in ("r", "z") for metric in (*RANKS, *OF_VIEWS)}
    assert {name for name in measured.values[6] if not name.endswith("alpha_req")} == names
    cut = Measured()
    fit(Spectra(every_n_epochs=2), cut, max_epochs=-1, max_steps=4)
    assert list(cut.values) == [4]


def test_ranks_are_those_of_the_validation_images():
    """As the evaluation of a frozen encoder makes them of the same images."""
    spectra, measured, data, trained = Spectra(), Measured(), dataset(), directclr()
    fit(spectra, measured, data=data, trained=trained, max_epochs=1)
    images = data.train().images[data.validation()]
    assert 2 < len(images) < 48
    r, z = Encoder(copy.deepcopy(trained), data.mean, data.std, trained.project).features(images)
    (values,) = measured.values.values()
    for name, features in {"r": r, "z": z, "r_d0": r[:, :3], "r_rest": r[:, 3:]}.items():
        moments = Moments(features.shape[1])
        moments.update(features)
        for metric, value in ranks_of(moments).items():
            if math.isfinite(value):
                assert values[f"spectrum/{name}/{metric}"] == pytest.approx(value, rel=1e-4), (name, metric)
    assert values["spectrum/r/rankme"] != pytest.approx(values["spectrum/r_rest/rankme"], rel=1e-3)


def test_no_more_images_than_asked_for_evenly_spread():
    spectra, trained = Spectra(max_images=5), method()
    data = dataset()
    fit(spectra, trained=trained, data=data, max_epochs=1)
    positions = data.validation().nonzero().flatten()
    chosen = positions[[i * len(positions) // 5 for i in range(5)]]
    assert torch.equal(spectra._images, data.train().images[chosen])


def test_without_labels_any_images_of_train_are_looked_at():
    data = dataset()
    data.labels, data.num_classes = data.labels * 0 - 1, None
    spectra = Spectra()
    fit(spectra, data=data, max_epochs=1)
    assert len(spectra._images) == 48


def test_collapse_is_seen():
    moments = Moments(4)
    moments.update(torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]]))
    assert ranks_of(moments)["collapsed"] == 2
    nothing = Moments(4)
    nothing.update(torch.zeros(3, 4))
    assert ranks_of(nothing)["collapsed"] == 4
    assert ranks_of(nothing)["rankme"] == 0


def test_one_view_has_ranks_alone():
    measured = Measured()
    fit(Spectra(), measured, augment=Augment([View(copies=2)]), max_epochs=1)
    (both,) = measured.values.values()
    spectra, trained = Spectra(), method()
    fitted = fit(trained=trained, max_epochs=1)
    spectra.on_fit_start(fitted, trained)
    data = fitted.datamodule
    data.augment = Augment([View(copies=1)])
    one = spectra.measure(trained.eval(), data)
    assert both.keys() - one.keys() == {f"spectrum/{what}/{metric}" for what in ("r", "z") for metric in OF_VIEWS}


def test_a_wrapped_method_is_watched_as_the_base():
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    measured = Measured()
    fit(Spectra(), measured, trained=GeSSL(directclr(), optimizer=recipe), max_epochs=1)
    (values,) = measured.values.values()
    assert {name.split("/")[1] for name in values} == {"r", "z", "r_d0", "r_rest"}
    whole = directclr(d0=directclr().backbone.num_features)
    r = torch.randn(5, whole.backbone.num_features)
    assert "r_rest" not in whole.watched(r, whole.project(r))


def test_its_seconds_are_no_part_of_training(monkeypatch):
    from ssl_lightning.callbacks import spectrum

    class Clock:
        now = 0.0

        @classmethod
        def monotonic(cls):
            return cls.now

    def slow(self, method, data):
        Clock.now += 100.0
        return {}

    class Tick(L.Callback):
        def on_train_batch_start(self, *_):
            Clock.now += 1.0

    monkeypatch.setattr(spectrum.time, "monotonic", Clock.monotonic)
    monkeypatch.setattr(Spectra, "measure", slow)
    recorder = Recorder()
    fit(Tick(), Spectra(), recorder, max_epochs=2)
    assert (recorder.train_seconds, recorder.watching_seconds) == (6.0, 200.0)
    again = Recorder()
    again.load_state_dict(recorder.state_dict())
    assert (again.train_seconds, again.watching_seconds) == (6.0, 200.0)
    assert recorder.images_per_second == 48 / 3 or recorder.images_per_second == 32 / 2


def test_the_option_keeps_the_probe_and_the_name_of_the_run():
    names = {}
    for option in ("default", "spectrum"):
        config = resolve(composed(f"callbacks={option}"))
        names[option] = identity_of(config, {}).run_name
    assert list(config["callbacks"]) == ["online_probe", "spectrum"]
    assert names["default"] == names["spectrum"]
    HydraConfig.instance().cfg = None


@pytest.mark.parametrize("step", [2, 3, 4])
def test_a_resumed_training_has_the_same_rows(tmp_path, step):
    """Saved in an epoch, at its end after the measurement, and in the next one. Each measurement has a row."""

    def rows(file, *callbacks, **options):
        recorder = Recorder()
        last = LastCheckpoint(tmp_path / "last.ckpt", recorder, 60.0, None)
        fit(
            Spectra(),
            recorder,
            *callbacks,
            last,
            trained=directclr(),
            logger=MetricsFile(file),
            log_every_n_steps=4,
            plugins=[AtomicCheckpointIO()],
            **options,
        )
        return read_metrics(file)

    class Keep(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.steps == step:
                trainer.save_checkpoint(tmp_path / "middle.ckpt")

    whole = rows(tmp_path / "whole.csv", Keep())
    (tmp_path / "resumed.csv").write_text((tmp_path / "whole.csv").read_text())
    assert rows(tmp_path / "resumed.csv", ckpt=tmp_path / "middle.ckpt") == whole
    assert [row["step"] for row in whole] == ["3", "4", "6"]
    assert [bool(row["spectrum/r_rest/rankme"]) for row in whole] == [True, False, True]
