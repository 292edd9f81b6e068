"""The contract of methods."""

import functools

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from ssl_lightning.data.draw import Draw
from ssl_lightning.errors import UserError
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.directclr import DirectCLR
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.of_timm import timm_network
from ssl_lightning.models.vit import VisionTransformer
from ssl_lightning.models.wide_resnet import WideResNet
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.methods.networks import TINY, batch_of, gradients, tiny_simclr, tiny_views


def directclr() -> DirectCLR:
    torch.manual_seed(0)
    return DirectCLR(resnet_tiny(channels=1, width=8))


def supervised() -> Supervised:
    torch.manual_seed(0)
    return Supervised(resnet_tiny(channels=1, width=8), 3)


METHODS = {
    "simclr": tiny_simclr,
    "directclr": directclr,
    "gessl": lambda: GeSSL(tiny_simclr()),
    "supervised": supervised,
} | {name: make for name, make in TINY.items() if name != "simclr"}


@pytest.mark.parametrize("name", METHODS)
def test_objective_is_consistent_with_the_encoder(name):
    method, views = METHODS[name](), tiny_views(8)
    objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
    assert objective.loss.shape == ()
    assert objective.representations.shape == (2, 8, 32)
    assert objective.embeddings.shape[:2] == (2, 8)
    again = METHODS[name]()
    representations, embeddings = again.encode((views,), Draw())
    if name != "gessl":  # whose tasks have batch statistics of their own
        assert torch.equal(representations, objective.representations)
        assert torch.equal(embeddings, objective.embeddings)


@pytest.mark.parametrize("name", METHODS)
def test_loss_is_pure(name):
    """Same input, same loss and gradient, and nothing but BatchNorm's buffers has changed."""
    method, views = METHODS[name](), tiny_views(8)
    before = {n: p.clone() for n, p in method.named_parameters()}
    results = []
    for _ in range(2):
        method.zero_grad()
        loss = method.ssl_loss(batch_of(views), LOCAL, Draw()).loss
        loss.backward()
        results.append((loss.detach(), gradients(method)))
    assert torch.equal(results[0][0], results[1][0])
    assert all(torch.equal(a, b) for a, b in zip(results[0][1], results[1][1], strict=True))
    assert all(torch.equal(p, before[n]) for n, p in method.named_parameters())
    changed = {
        n.rpartition(".")[2]
        for n, b in method.named_buffers()
        if not torch.equal(b, dict(METHODS[name]().named_buffers())[n])
    }
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("name", METHODS)
def test_a_few_steps_lower_the_loss_without_collapse(name):
    method, views = METHODS[name](), tiny_views(16)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(15):
        objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
        optimizer.zero_grad()
        objective.loss.backward()
        optimizer.step()
        losses.append(objective.loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert torch.linalg.matrix_rank(objective.embeddings[0].detach()) > 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: resnet_tiny(width=8),
        lambda: WideResNet(10, 1),
        lambda: VisionTransformer(width=12, depth=2),
        *(
            functools.partial(timm_network, name, 32, 3, {"depth": 1, "patch_size": 8})
            for name in ("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224")
        ),
    ],
    ids=["resnet", "wide_resnet", "vit", "timm", "timm_with_tokens"],
)
def test_only_weights_of_layers_decay(make):
    """Not biases, norms, tokens, positions."""
    if getattr(make, "func", None) is timm_network:
        pytest.importorskip("timm")
    method = SimCLR(make())
    decayed, others = ({id(p) for p in group["params"]} for group in method.parameter_groups())
    layers = [m for m in method.modules() if isinstance(m, torch.nn.Linear | torch.nn.Conv2d)]
    assert decayed == {id(layer.weight) for layer in layers}
    assert others == {id(p) for p in method.parameters()} - decayed


def test_one_view_is_refused():
    method = tiny_simclr()
    views = tiny_views(8, num_views=1)
    with pytest.raises(UserError, match="copies: 2"):
        method.training_step(batch_of(views), 0)


def test_training_without_an_optimizer_says_what_to_pass():
    with pytest.raises(UserError, match="optimizer=OptimizerRecipe"):
        tiny_simclr().configure_optimizers()


def test_after_step_comes_once_a_step_before_any_callback(tmp_path):
    """A checkpoint saved by a callback after a step holds that step's EMA targets, queues and centres."""
    events = []

    class Watched(SimCLR):
        def after_step(self, objective, gather, progress):
            events.append(("after_step", self.steps, objective.loss.item()))

    class Watcher(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            events.append(("callback", pl_module.steps, outputs["loss"].item()))

    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=0.1, batch_size=4)
    method = Watched(resnet_tiny(channels=1, width=8), torch.nn.Identity, optimizer=recipe)
    loader = DataLoader([batch_of(tiny_views(4, seed=i)) for i in range(3)], batch_size=None)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    L.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=3, default_root_dir=tmp_path, callbacks=[Watcher()], **quiet
    ).fit(method, loader)
    assert [(name, step) for name, step, _ in events] == [
        (name, step) for step in (1, 2, 3) for name in ("after_step", "callback")
    ]
    assert method.trainer.global_step == method.steps == method.batches == 3
    assert all(a[2] == b[2] for a, b in zip(events[::2], events[1::2], strict=True))


@pytest.mark.parametrize("name", METHODS)
def test_compiled_networks_keep_the_names_of_their_weights(name, monkeypatch):
    compiled = []

    def compile(function, mode, **_):  # what a compiler does takes a minute, and is PyTorch's affair
        def call(*arguments, **settings):
            compiled.append((mode, function.__self__))
            return function(*arguments, **settings)

        return call

    monkeypatch.setattr(torch, "compile", compile)
    method, views = METHODS[name](), tiny_views(8)
    if name == "gessl":
        method.compile_networks(None)
        with pytest.raises(UserError, match=r"compile is default, but inner steps of method=gessl.*compile=null"):
            method.compile_networks("default")
        return
    names = list(method.state_dict())
    method.compile_networks("max-autotune")
    assert list(method.state_dict()) == names
    objective = method.ssl_loss(batch_of(views), LOCAL, Draw())
    assert compiled[0][1] is method.backbone
    assert sorted(map(id, (network for _, network in compiled))) == sorted(map(id, method.children()))
    assert {mode for mode, _ in compiled} == {"max-autotune"}
    assert torch.equal(objective.loss, METHODS[name]().ssl_loss(batch_of(views), LOCAL, Draw()).loss)
    method.compile_networks(None)
    method.ssl_loss(batch_of(views), LOCAL, Draw())
    assert len(compiled) == len(list(method.children()))
