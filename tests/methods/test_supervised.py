"""Supervised training: its loss and gradient, through Lightning, over processes, inside GeSSL, and what it reports."""

import functools
from types import SimpleNamespace

import pytest
import torch
from hydra.core.hydra_config import HydraConfig

from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.data.loading import normalise
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.features import extract
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.evaluation.suite import EvaluationSuite
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.pipeline.measuring import _evaluate
from ssl_lightning.pipeline.parts import subset_of
from tests.callbacks import fitting
from tests.composing import composed
from tests.methods.networks import SmoothBackbone, batch_of, gradients, smooth_views
from tests.pipeline.test_ddp import SmoothBackbone as ResidualBackbone
from tests.pipeline.test_ddp import weights_after_three_steps


def smooth_supervised() -> Supervised:
    torch.manual_seed(0)
    return Supervised(SmoothBackbone(), 3).double()


@pytest.mark.parametrize("num_views", [1, 2, 3])
def test_loss_and_gradient_of_the_head(num_views):
    """ℓ = −mean log p_label, ∂ℓ/∂W = mean (p − onehot) rᵀ, ∂ℓ/∂b = mean (p − onehot)."""
    method, views = smooth_supervised(), smooth_views(7, num_views)
    batch = batch_of(views)
    objective = method.ssl_loss(batch, LOCAL, Draw())
    objective.loss.backward()
    losses, weight, bias = [], torch.zeros(3, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for view in views:
        for image, label in zip(view, batch.label, strict=True):
            r = method.backbone(image[None]).detach()[0]
            p = torch.exp(method.head.weight @ r + method.head.bias).detach()
            p /= p.sum()
            losses.append(-p[label].log())
            p[label] -= 1
            weight += torch.outer(p, r) / (7 * num_views)
            bias += p / (7 * num_views)
    torch.testing.assert_close(objective.loss.detach(), sum(losses) / len(losses))
    torch.testing.assert_close(method.head.weight.grad, weight)
    torch.testing.assert_close(method.head.bias.grad, bias)
    torch.testing.assert_close(objective.embeddings, method.project(method(views.flatten(0, 1))).view(num_views, 7, 3))


HELD_OUT = torch.tensor([True, False, True, False, False, False, True])


@pytest.mark.parametrize("positions", [torch.arange(7), torch.tensor([0, 3, 5, 6])])
def test_labels_of_the_validation_part_are_not_learned_from(positions):
    """The loss is, over all images of the subset, the mean of the losses of those that are not held out."""
    method, views = smooth_supervised(), smooth_views(7, 2)
    batch = batch_of(views)
    every = method.ssl_loss(batch, LOCAL, Draw()).image_losses
    method.choose_images(positions, HELD_OUT)
    chosen = Batch((views[:, positions],), batch.label[positions], positions)
    loss = method.ssl_loss(chosen, LOCAL, Draw()).loss
    torch.testing.assert_close(loss, every[positions][~HELD_OUT[positions]].mean())
    labels = torch.where(HELD_OUT, 2 - batch.label, batch.label)
    assert not torch.equal(labels[positions], chosen.label)
    other = chosen._replace(label=labels[positions])
    assert gradients_of(method, other) == gradients_of(method, chosen)

    method.hold_out = False
    method.choose_images(positions, HELD_OUT)
    torch.testing.assert_close(method.ssl_loss(chosen, LOCAL, Draw()).loss, every[positions].mean())


def gradients_of(method, batch):
    method.zero_grad()
    method.ssl_loss(batch, LOCAL, Draw()).loss.backward()
    return [p.grad.tolist() for p in method.parameters()]


def test_gessl_hands_on_which_images_there_are():
    method = GeSSL(smooth_supervised(), tasks=2)
    method.choose_images(torch.arange(7), HELD_OUT)
    assert method.base._weights.tolist() == (~HELD_OUT * 7 / 4).tolist()


def test_a_subset_of_held_out_images_alone_is_refused():
    with pytest.raises(UserError, match=r"method\.hold_out=false"):
        smooth_supervised().choose_images(torch.tensor([0, 2]), HELD_OUT)


def test_the_classifiers_that_rank_learn_from_all_labels():
    _, proxies = subset_of(resolve(composed("subset=el2n", "method=supervised")), lambda config: None)
    HydraConfig.instance().cfg = None
    assert {proxy.config["method"]["hold_out"] for proxy in proxies} == {False}


def supervised(world_size):
    method = Supervised(ResidualBackbone(), 16)
    method.choose_images(torch.arange(16), torch.arange(16) % 5 == 0)  # other numbers of them on each rank
    return method


def test_two_processes_step_as_one_with_the_whole_batch(pair):
    arguments = supervised, functools.partial(torch.optim.SGD, lr=0.5, momentum=0.9)
    expected, _ = weights_after_three_steps(0, 1, *arguments)
    (first, moved), (second, _) = pair(weights_after_three_steps, 2, *arguments)
    assert moved > 0.1
    for name in expected:
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], expected[name], rtol=1e-9, atol=1e-10)


def test_inside_gessl_each_task_has_its_own_labels():
    batch = Batch((smooth_views(8),), torch.tensor([0, 1, 2, 2, 1, 1, 0, 2]), torch.arange(8))
    alone, wrapped = smooth_supervised(), GeSSL(smooth_supervised(), tasks=2, weight_meta=0.0)
    assert wrapped.classifies
    results = [method.ssl_loss(batch, LOCAL, Draw()) for method in (alone, wrapped)]
    for result in results:
        result.loss.backward()
    torch.testing.assert_close(results[0].loss, results[1].loss)
    torch.testing.assert_close(results[0].embeddings, results[1].embeddings)
    for a, b in zip(gradients(alone), gradients(wrapped), strict=True):
        torch.testing.assert_close(a, b)


def test_gessl_takes_its_temperature_from_the_base_that_has_one():
    configs = {base: resolve(composed("method=gessl", f"method.base={base}")) for base in ("supervised", "directclr")}
    HydraConfig.instance().cfg = None
    assert {base: config["method"]["temperature"] for base, config in configs.items()} == {
        "supervised": 0.2,
        "directclr": 0.1,
    }


def test_classes_that_nobody_counted():
    with pytest.raises(UserError, match=r"Set dataset\.num_classes"):
        Supervised(SmoothBackbone(), None)


@pytest.fixture(scope="module")
def trained():
    """Fitted to one view of each image, and its data."""
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.AdamW, lr=1e-2, batch_size=16)
    method = Supervised(resnet_tiny(width=4, channels=1), 3, recipe)
    data = fitting.module(Augment([View(crop_scale=(0.5, 1.0))]))
    fitting.trainer(max_epochs=12).fit(method, data)
    return method, data


SUITE = EvaluationSuite(few_shots=(), few_percents=(), l2_grid=(0.1,))
CPU = torch.device("cpu")


def evaluated(method, dataset):
    encoder = Encoder(method, dataset.mean, dataset.std, method.project)
    train, test = (extract(encoder.features, split) for split in (dataset.labelled(), dataset.test()))
    splits = splits_of(SUITE.needs_labels, dataset)
    parts = SimpleNamespace(dataset=dataset, evaluated=dataset, suite=SUITE, splits=splits)
    return _evaluate.__wrapped__(parts, method, train, test, CPU).metrics


def test_accuracy_of_the_classifier_is_a_count(trained):
    method, data = trained
    images, labels = data.dataset.test()
    correct = 0
    method.eval()
    for image, label in zip(images, labels, strict=True):
        with torch.no_grad():
            logits = method.project(method(normalise(image[None], data.mean, data.std)))[0].tolist()
        correct += logits.index(max(logits)) == label
    assert evaluated(method, data.dataset)["classifier/top1"] == correct / 48
    assert correct / 48 > 0.9  # the classes can be told apart; chance is 1/3


def test_a_method_without_a_classifier_has_no_such_accuracy(trained):
    _, data = trained
    metrics = evaluated(fitting.method(), data.dataset)
    assert "linear/top1" in metrics
    assert "classifier/top1" not in metrics
