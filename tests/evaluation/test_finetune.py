import json
import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ssl_lightning.data.dataset import ImageDataset, Split
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.data.view import View
from ssl_lightning.data.views import Augment
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Subject
from ssl_lightning.evaluation.finetune import FineTune, draws_of
from ssl_lightning.evaluation.protocol import protocol_of
from ssl_lightning.evaluation.splits import splits_of
from ssl_lightning.evaluation.tuning import Classifier, batches, blocks_of, train
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.models.vit import VisionTransformer
from tests.composing import TINY, composed
from tests.data.synthetic import InMemory, synthetic_images, write_image_folder
from tests.evaluation.synthetic import Linear

CPU = torch.device("cpu")
WHOLE = View(crop_ratio=(1.0, 1.0))
QUICK = FineTune(
    percents=(100.0, 10.0), learning_rates=(0.1,), epochs=1, min_steps=6, batch_size=16, augment=View(), seed=3
)


class Apart(InMemory):
    """Whose test images are others of the same classes."""

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        if split == "train":
            return self.images, self.labels
        return synthetic_images(90, self.count_classes(), *self.images.shape[1:3], split=1)


def dataset(num_images: int = 120, num_classes: int = 3, channels: int = 1) -> Apart:
    images, labels = synthetic_images(num_images, num_classes, channels, 8)
    statistics = {"mean": [0.5] * channels, "std": [0.25] * channels}
    shape = {"image_size": 8, "channels": channels, "num_classes": num_classes}
    return Apart(name="tiny", validation_fraction=0.25, images=images, labels=labels, **shape, **statistics)


def subject(encoder: Encoder, data: ImageDataset | None = None) -> Subject:
    """Without features, as fine-tuning reads none."""
    data = data or dataset()
    return Subject(encoder, data, splits_of(True, data), {})


def linear(weight: Tensor | None = None, channels: int = 1) -> Encoder:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(5, 64 * channels, generator=generator) / 8 if weight is None else weight
    return Encoder(Linear(weight), [0.5] * channels, [0.25] * channels)


def convolutional(channels: int = 1) -> Encoder:
    torch.manual_seed(0)
    network = nn.Sequential(resnet_tiny(width=4, channels=channels), nn.Dropout(0.2))
    return Encoder(network, [0.5] * channels, [0.25] * channels)


# Training


def test_a_head_of_zeros_that_is_not_trained_names_the_first_class():
    data = dataset()
    metrics = replace(QUICK, learning_rates=(0.0,)).evaluate(subject(convolutional(), data)).metrics
    share = float((data.test().labels == 0).double().mean())
    assert metrics["finetune_100pct/top1"] == metrics["finetune_10pct/top1"] == pytest.approx(share)
    assert metrics["finetune_10pct/lr"] == 0


@pytest.mark.parametrize(("weight_decay", "layer_decay"), [(0.0, 1.0), (0.1, 0.5)])
def test_two_steps_are_those_of_the_equations(weight_decay, layer_decay):
    """One step moves the head alone, as its zeros let no gradient through to the backbone; the second moves both."""
    encoder, generator = linear().double(), torch.Generator().manual_seed(2)
    given = [(torch.rand(6, 1, 8, 8, dtype=torch.float64, generator=generator), torch.arange(6) % 3) for _ in range(2)]
    classifier = Classifier(encoder, 5, 3)
    train(classifier, given, 2, 0.3, weight_decay, layer_decay)

    backbone, head, bias = encoder.backbone.weight.clone(), torch.zeros(3, 5).double(), torch.zeros(3).double()
    velocity = [torch.zeros_like(value) for value in (backbone, head, bias)]
    for step, (images, labels) in enumerate(given):
        x = (images.flatten(1) - 0.5) / 0.25
        z = x @ backbone.T
        residuals = ((z @ head.T + bias).softmax(1) - one_hot(labels, 3)) / len(labels)
        gradients = (residuals @ head).T @ x, residuals.T @ z, residuals.sum(0)
        decays = weight_decay * backbone, weight_decay * head, 0
        rate = 0.3 * (1 + math.cos(math.pi * step / 2)) / 2
        velocity = [0.9 * v + g + decay for v, g, decay in zip(velocity, gradients, decays, strict=True)]
        backbone = backbone - rate * layer_decay * velocity[0]
        head, bias = head - rate * velocity[1], bias - rate * velocity[2]
    assert not torch.allclose(backbone, encoder.backbone.weight, rtol=1e-3)
    torch.testing.assert_close(classifier.encoder.backbone.weight.data, backbone, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(classifier.head.weight.data, head, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(classifier.head.bias.data, bias, rtol=1e-10, atol=1e-12)


def test_norms_and_dropout_train_and_are_at_rest_afterwards():
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64, momentum=1.0), nn.Dropout(0.5))
    classifier = Classifier(Encoder(network, [0.0], [1.0]), 64, 3)
    images = torch.rand(16, 1, 8, 8)
    train(classifier, [(images, torch.arange(16) % 3)], 1, 0.1)
    norm, dropout = classifier.encoder.backbone[1:]
    torch.testing.assert_close(norm.running_mean, images.flatten(1).mean(0))
    assert not dropout.training
    assert torch.equal(classifier(images), classifier(images))


def test_layers_learn_the_slower_the_deeper_they_lie():
    backbone = VisionTransformer(image_size=8, channels=1, width=12, depth=2, heads=2)
    classifier = Classifier(Encoder(backbone, [0.5], [0.25]), 12, 3)
    groups = classifier.parameter_groups(lr=2.0, weight_decay=0.1, layer_decay=0.5)
    names = {parameter: name for name, parameter in classifier.named_parameters()}
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates.keys() == set(names.values())
    parts = {"head": 2.0, "norm": 1.0, "blocks.1": 0.5, "blocks.0": 0.25, "patch_embed": 0.125, "pos_embed": 0.125}
    for name, rate in rates.items():
        part = name.removeprefix("encoder.network.")
        assert rate == next(expected for start, expected in parts.items() if part.startswith(start)), name
    decayed = {names[parameter] for group in groups if group["weight_decay"] for parameter in group["params"]}
    assert "encoder.network.blocks.1.mlp.fc1.weight" in decayed
    assert not any("bias" in name or "norm" in name for name in decayed)
    same = classifier.parameter_groups(lr=2.0, weight_decay=0.0, layer_decay=1.0)
    assert {group["lr"] for group in same} == {2.0}


def test_the_blocks_of_a_resnet_are_its_stem_and_its_residual_blocks():
    network = resnet_tiny(width=4, channels=1)
    blocks = [network.conv1, network.bn1, network.layer1[0], network.layer2[0], *network.layer3]
    assert blocks_of(network) == blocks
    assert blocks_of(nn.Sequential(network, nn.Flatten())) == [network]  # a member of a sequence is one block


def test_a_copy_gives_what_the_encoder_gives():
    encoder = Encoder(nn.Sequential(resnet_tiny(width=4, channels=3)), [0.4] * 3, [0.2] * 3, size=12)
    images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)  # grey for colour, resampled
    classifier = Classifier(encoder, 16, 3).eval()
    torch.testing.assert_close(classifier.encoder(images), encoder(images))
    assert all(parameter.requires_grad for parameter in classifier.parameters())


# What is seen


def stored(num_images: int = 10) -> Split:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (num_images, 1, 8, 8), generator=generator).to(torch.uint8)
    return Split(images, torch.arange(num_images) % 3)


def test_batches_hold_each_image_once_an_epoch_with_its_label():
    split, positions = stored(), torch.tensor([1, 2, 5, 6, 8, 9])
    seen = list(islice(batches(split, positions, Augment([WHOLE]), 3, 0, CPU), 4))
    for epoch in (seen[:2], seen[2:]):
        images, labels = (torch.cat(parts) for parts in zip(*epoch, strict=True))
        found = [(torch.round(255 * image) == split.images).flatten(1).all(1).nonzero().item() for image in images]
        assert sorted(found) == positions.tolist()
        assert torch.equal(labels, split.labels[found])


def test_views_are_new_in_every_batch_and_the_same_under_a_seed():
    def seen(seed: int) -> list[Tensor]:
        given = batches(stored(1), torch.tensor([0]), Augment([View(crop_scale=(0.2, 0.5))]), 1, seed, CPU)
        return [images for images, _ in islice(given, 3)]

    views = [*seen(0), *seen(1)]
    assert all(not torch.equal(views[i], views[j]) for i in range(6) for j in range(i))
    assert all(map(torch.equal, views[:3], seen(0)))


def test_copies_follow_one_another_and_flips_alternate():
    split = stored()
    view = View(copies=2, flip_probability=0.5, flip_alternates=True, crop_ratio=(1.0, 1.0))
    first, second = islice(batches(split, torch.arange(10), Augment([view]), 10, 0, CPU), 2)
    for images, labels in (first, second):
        assert len(images) == 20
        assert torch.equal(labels[:10], labels[10:])
    for label in range(3):  # in two epochs both ways of each image, of either copy
        kept = [images[:10][labels[:10] == label] for images, labels in (first, second)]
        ways = torch.cat(kept).mul(255).round().to(torch.uint8)
        own = split.images[split.labels == label]
        assert sorted(ways.flatten(1).tolist()) == sorted(torch.cat([own, own.flip(-1)]).flatten(1).tolist())


def folders(root: Path, **settings) -> list[ImageFolder]:
    """The same colour images in memory, and decoded at every step."""
    write_image_folder(root / "images", num_train=12, num_test=6, num_classes=3, size=8)
    common = {"root": str(root / "images"), "name": "f", "image_size": 8, "channels": 3, "num_classes": 3}
    common |= {"mean": [0.5] * 3, "std": [0.25] * 3, "cache": str(root / "cache")} | settings
    return [ImageFolder(**common, storage=storage) for storage in ("resident", "streamed")]


def test_streamed_images_are_seen_as_stored_ones_are(tmp_path):
    splits = [folder.train() for folder in folders(tmp_path, workers=0)]
    assert not isinstance(splits[1].images, Tensor)
    one, other = (list(islice(batches(split, torch.arange(12), Augment([WHOLE]), 5, 0, CPU), 3)) for split in splits)
    for (images, labels), (others, their_labels) in zip(one, other, strict=True):
        torch.testing.assert_close(images, others, rtol=0, atol=1e-6)
        assert torch.equal(labels, their_labels)


def test_workers_decode_and_leave_the_global_generators_alone(tmp_path):
    resident, streamed = folders(tmp_path, workers=1, validation_fraction=0.25)
    state = torch.get_rng_state()
    one, other = (QUICK.evaluate(subject(linear(channels=3), folder)).metrics for folder in (resident, streamed))
    assert torch.equal(torch.get_rng_state(), state)
    assert other["finetune_100pct/val_top1"] == one["finetune_100pct/val_top1"]


@pytest.mark.parametrize(("percent", "counts"), [(100, [30, 14, 1]), (10, [3, 1, 1]), (50, [15, 7, 1])])
def test_draws_are_shares_of_each_class_outside_of_the_validation_part(percent, counts):
    labels = torch.tensor([0] * 40 + [1] * 18 + [2] * 2)[torch.randperm(60, generator=torch.Generator().manual_seed(0))]
    validation = torch.zeros(60, dtype=torch.bool)
    for label, held_out in enumerate((10, 4, 1)):
        validation[torch.nonzero(labels == label).flatten()[:held_out]] = True
    first, second = draws_of(labels, validation, percent, draws=2, seed=5)
    assert labels[first].bincount().tolist() == labels[second].bincount().tolist() == counts
    assert not validation[first].any()
    assert (set(first.tolist()) != set(second.tolist())) == (percent < 100)
    more, _ = draws_of(labels, validation, 60, draws=2, seed=5)
    assert percent == 100 or set(first.tolist()) <= set(more.tolist())


def test_the_labels_drawn_do_not_depend_on_the_encoder(monkeypatch):
    drawn: list[list[int]] = []

    def remembered(split, positions, *more):
        drawn.append(positions.tolist())
        return batches(split, positions, *more)

    monkeypatch.setattr("ssl_lightning.evaluation.finetune.batches", remembered)
    for encoder in (linear(), convolutional()):
        QUICK.evaluate(subject(encoder))
    assert drawn[:2] == drawn[2:]
    assert [len(one) for one in drawn[:2]] == [90, 9]


# What is chosen, and what is left alone


RATES = (1e-4, 1e-2, 3.0)


def test_the_rate_that_is_best_on_the_validation_part_is_chosen():
    encoder = linear()
    alone = [replace(QUICK, learning_rates=(rate,)).evaluate(subject(encoder)).metrics for rate in RATES]
    together = replace(QUICK, learning_rates=RATES[::-1]).evaluate(subject(encoder)).metrics
    for name in ("finetune_100pct", "finetune_10pct"):
        right = [metrics[f"{name}/val_top1"] for metrics in alone]
        assert len(set(right)) > 1
        best = alone[right.index(max(right))]  # the smaller rate on a tie
        for metric in ("lr", "val_top1", "top1"):
            assert together[f"{name}/{metric}"] == best[f"{name}/{metric}"]


def test_test_labels_choose_nothing():
    made, evaluator = subject(linear()), replace(QUICK, learning_rates=RATES)
    assert made.splits.test is not None
    poisoned = Split(made.splits.test.images, (made.splits.test.labels + 1) % 3)
    honest = evaluator.evaluate(made).metrics
    other = evaluator.evaluate(replace(made, splits=made.splits._replace(test=poisoned))).metrics
    for name, value in honest.items():
        assert (other[name] == value) != name.endswith("/top1"), name


def test_nothing_is_learned_from_the_validation_part():
    """Its labels turned about change what is chosen, and not what one rate learns."""
    made = subject(linear())
    labels = torch.where(made.splits.validation, (made.splits.train.labels + 1) % 3, made.splits.train.labels)
    poisoned = replace(made, splits=made.splits._replace(train=Split(made.splits.train.images, labels)))
    honest, other = (QUICK.evaluate(one).metrics for one in (made, poisoned))
    assert other["finetune_100pct/top1"] == honest["finetune_100pct/top1"] > 0.5
    assert other["finetune_100pct/val_top1"] < honest["finetune_100pct/val_top1"]


def test_the_encoder_and_the_global_generators_are_as_before():
    encoder = convolutional()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    state = torch.get_rng_state()
    QUICK.evaluate(subject(encoder))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in encoder.parameters())
    assert not any(module.training for module in encoder.modules())


def test_it_is_deterministic_under_its_seed():
    """Dropout, views and order included, whatever the state of the global generators, and the other rates."""
    made = subject(convolutional())
    evaluator = replace(QUICK, augment=View(crop_scale=(0.3, 1.0)), draws=2)
    weights = []
    for _ in range(2):
        torch.rand(7)
        drawn = draws_of(made.splits.train.labels, made.splits.validation, 10, 1, 3)[0]
        weights.append(evaluator._tuned(made, drawn, 0.1, 0, 10).head.weight)
    assert torch.equal(*weights)
    first = evaluator.evaluate(made).metrics
    assert evaluator.evaluate(made).metrics == first
    assert set(first) == {
        f"finetune_{percent}pct/{name}" for percent in (100, 10) for name in ("top1", "top1_std", "val_top1", "lr")
    }
    other = replace(evaluator, seed=4)._tuned(made, drawn, 0.1, 0, 10).head.weight
    assert not torch.equal(other, weights[0])


def test_a_good_start_is_worth_more_than_a_bad_one_where_labels_and_steps_are_few():
    data = dataset(300, 10)
    images, labels = data.train()
    assert isinstance(images, Tensor)
    x = (images.flatten(1) / 255 - 0.5) / 0.25
    means = torch.stack([x[labels == label].mean(0) for label in range(10)])
    good = (means - means.mean(0)) / 16  # each feature is a class
    bad = 0.1 * torch.rand(10, 64, generator=torch.Generator().manual_seed(0))  # all are about the mean grey
    evaluator = FineTune(percents=(100.0, 1.0), learning_rates=(0.01,), epochs=1, min_steps=4, augment=WHOLE)
    trained, untrained, collapsed = (
        evaluator.evaluate(subject(linear(weight), data)).metrics for weight in (good, bad, torch.zeros(10, 64))
    )
    for name in ("finetune_100pct/top1", "finetune_1pct/top1"):
        assert trained[name] > untrained[name] + 0.1 > collapsed[name] + 0.1
        assert collapsed[name] == pytest.approx(0.1)  # the bias alone can learn, and the classes are equally many


# Settings, and the command


def test_views_that_images_do_not_allow_are_refused(tmp_path):
    _, folder = folders(tmp_path, workers=0)
    turning = FineTune(augment=View(rotation_degrees=10))
    turning.check(dataset())
    with pytest.raises(
        UserError, match=r"evaluation\.augment\.rotation_degrees turns views, which is not done for str"
    ):
        turning.check(folder)
    hued = FineTune(augment=View(jitter_probability=0.5, hue=0.1))
    hued.check(folder)
    with pytest.raises(UserError, match=r"evaluation\.augment\.hue changes what images of 5 channels"):
        hued.check(dataset(channels=5))


def test_the_standard_settings_are_those_of_the_file_and_others_name_a_protocol():
    def settings(*overrides: str) -> dict:
        from ssl_lightning.config.resolve import resolve
        from ssl_lightning.config.schema import EvaluateConfig

        config = composed("run=x", "evaluation=finetune", *overrides, name="evaluate")
        return dict(protocol_of(resolve(config, EvaluateConfig)["evaluation"], "digits", FineTune).settings)

    assert settings() == {"suite": "FineTune"}
    assert settings("evaluation.augment.flip_probability=0.5", "evaluation.epochs=3") == {
        "suite": "FineTune",
        "augment.flip_probability": 0.5,
        "epochs": 3,
    }


@pytest.mark.nightly
def test_the_command_from_end_to_end(command, tmp_path: Path):
    done = command("ssl-train", *TINY, "trainer.limit_train_batches=2", "evaluation.few_shots=[]")
    assert done.code == 0, done.err
    (folder,) = (file.parent for file in tmp_path.glob("runs/*/*/results.json"))
    few = ("evaluation.epochs=1", "evaluation.min_steps=3", "evaluation.learning_rates=[0.01,0.1]")
    done = command(
        "ssl-evaluate", f"run={folder}", "trainer=cpu", "evaluation=finetune", "evaluation.untrained=true", *few
    )
    assert done.code == 0, done.err
    (file,) = folder.glob("evaluations/*.json")
    made = json.loads(file.read_text())
    names = [f"finetune_{percent}pct/{metric}" for percent in (100, 10, 1) for metric in ("top1", "val_top1", "lr")]
    assert list(made["metrics"]) == list(made["untrained"]) == names
    assert made["columns"] == {
        "finetune_100pct/top1": "fine-tuned %",
        "finetune_10pct/top1": "10 % labels %",
        "finetune_1pct/top1": "1 % labels %",
    }
    assert made["spectra"] == {}
    assert made["pictures"][0]["lines"][0]["x"] == [1, 10, 100]
    assert made["cost"]["evaluation_seconds"] > 0
    assert not (tmp_path / "cache" / "features").exists()
    done = command("ssl-report", str(folder.parent))
    assert done.code == 0, done.err
