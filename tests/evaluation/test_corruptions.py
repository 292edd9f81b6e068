"""The linear probe on corrupted images: against a loop over all of them, and on encoders whose order is known."""

import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from ssl_lightning.data.corruptions import KINDS, SEVERITIES, corrupt
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.sampler import seed_of
from ssl_lightning.data.sources.digits import Digits
from ssl_lightning.data.sources.listing import image_files
from ssl_lightning.evaluation.corruptions import Corruptions, sample
from ssl_lightning.evaluation.evaluator import Subject
from ssl_lightning.evaluation.linear import chosen_probe
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.runs.run import find_runs
from tests.composing import TINY
from tests.conftest import Outcome
from tests.evaluation.synthetic import Linear, subject_of

GRID = (1e-2, 1e-4)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def linear_encoder(weight: torch.Tensor, size: int | None = None) -> Encoder:
    return Encoder(Linear(weight), (0.0,), (1.0,), size=size)


@pytest.fixture(scope="module")
def trained(digits) -> Subject:
    """Its weights are the mean images of the classes."""
    images, labels = digits.train()
    patterns = torch.stack([images[labels == label].float().mean(0).flatten() / 255 for label in range(10)])
    return subject_of(linear_encoder(patterns - patterns.mean(0)), digits)


def random_weights(rows: int, columns: int = 64) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


# Numbers


def test_they_are_those_of_a_loop_over_all_images(trained):
    kinds = ("shot_noise", "brightness", "jpeg_compression")
    made = Corruptions(kinds=kinds, limit=60, l2_grid=GRID, seed=3).evaluate(trained)
    images, labels = trained.splits.test
    chosen = torch.randperm(len(labels), generator=torch.Generator().manual_seed(3))[:60].sort().values
    train = trained.features["train"]
    probe = chosen_probe(train.representations, train.labels, 10, trained.splits.validation, GRID)

    def accuracy(change: Callable[[torch.Tensor], torch.Tensor]) -> float:
        seen = [trained.encoder(change(images[i : i + 1])) for i in chosen.tolist()]
        named = [int(probe.logits(one).argmax()) for one in seen]
        return sum(name == label for name, label in zip(named, labels[chosen].tolist(), strict=True)) / 60

    clean, means = accuracy(lambda x: x), []
    expected = {"corruptions/clean_top1": clean}
    for kind in kinds:
        by_severity = []
        for severity in SEVERITIES:
            generator = torch.Generator().manual_seed(seed_of(f"corruption {kind}", 3))
            by_severity.append(accuracy(lambda x, k=kind, s=severity, g=generator: corrupt(x, k, s, g)))
            expected[f"corruptions/{kind}_{severity}_top1"] = by_severity[-1]
        means.append(statistics.fmean(by_severity))
        expected[f"corruptions/{kind}_top1"] = means[-1]
    expected |= {"corruptions/top1": statistics.fmean(means), "corruptions/images": 60}
    expected["corruptions/relative_drop"] = 1 - expected["corruptions/top1"] / clean
    assert made.metrics == pytest.approx(expected, rel=1e-12)
    assert 0 < expected["corruptions/relative_drop"] < 1
    assert len(set(expected.values())) > 6

    (picture,) = made.pictures
    assert [line["name"] for line in picture["lines"]] == list(kinds)
    assert all(
        line["x"] == [0, 1, 2, 3, 4, 5] and line["y"][0] == pytest.approx(100 * clean) for line in picture["lines"]
    )
    assert picture["lines"][1]["y"][5] == pytest.approx(100 * expected["corruptions/brightness_5_top1"])


def test_everything_is_measured_by_default_and_the_columns_are(trained):
    evaluator = Corruptions(l2_grid=GRID)
    metrics = evaluator.evaluate(trained).metrics
    assert len(metrics) == 4 + len(KINDS) * 6
    assert set(evaluator.columns) <= set(metrics)
    assert metrics["corruptions/images"] == len(trained.splits.test.labels) == 540
    assert metrics["corruptions/clean_top1"] > 0.85
    for kind in KINDS:
        assert metrics[f"corruptions/{kind}_5_top1"] < metrics["corruptions/clean_top1"]


def test_trained_untrained_and_collapsed_encoders_are_in_order(trained, digits):
    untrained = subject_of(linear_encoder(random_weights(3)), digits)
    collapsed = subject_of(linear_encoder(torch.zeros(3, 64)), digits)
    made = [Corruptions(l2_grid=GRID).evaluate(subject).metrics for subject in (trained, untrained, collapsed)]
    for name in ("clean_top1", "top1"):
        best, middle, worst = (metrics[f"corruptions/{name}"] for metrics in made)
        assert best > middle + 0.1 > worst + 0.2
    assert 0 < made[0]["corruptions/relative_drop"] < 1
    assert made[2]["corruptions/relative_drop"] == 0
    assert len({value for name, value in made[2].items() if name.endswith("top1")}) == 1


def test_nothing_right_is_no_drop(trained):
    images, labels = trained.splits.test
    strange = trained.splits._replace(test=Split(images, torch.full_like(labels, 10)))
    metrics = Corruptions(limit=20, l2_grid=GRID).evaluate(replace(trained, splits=strange)).metrics
    assert metrics["corruptions/clean_top1"] == metrics["corruptions/relative_drop"] == 0


# What does not matter, and what does


def test_neither_the_size_of_batches_nor_the_call_matters(trained):
    evaluator = Corruptions(limit=100, l2_grid=GRID)
    metrics = evaluator.evaluate(trained).metrics
    assert evaluator.evaluate(trained).metrics == metrics
    assert evaluator.evaluate(replace(trained, batch_size=7)).metrics == metrics
    assert replace(evaluator, seed=1).evaluate(trained).metrics != metrics


def test_a_sample_is_of_the_seed_alone_and_null_is_all(trained):
    test = trained.splits.test
    few = sample(test, 50, 0)
    assert torch.equal(few.images, sample(test, 50, 0).images)
    assert not torch.equal(few.images, sample(test, 50, 1).images)
    places = [int((test.images == image).flatten(1).all(1).nonzero()[0]) for image in few.images]
    assert torch.equal(test.labels[places], few.labels)
    assert sample(test, None, 0) is sample(test, 540, 0) is test


def test_streamed_images_are_as_those_in_memory(trained, tmp_path):
    (tmp_path / "data" / "test").mkdir(parents=True)
    for i, image in enumerate(trained.splits.test.images[:30].numpy()):
        Image.fromarray(image[0]).save(tmp_path / f"data/test/{i:02d}.png")
    streamed = StreamedImages(image_files(tmp_path / "data", "test", tmp_path / "cache"), 8, 1, workers=1)
    labels = trained.splits.test.labels[:30]
    made = [
        Corruptions(limit=20, l2_grid=GRID)
        .evaluate(replace(trained, splits=trained.splits._replace(test=Split(images, labels)), batch_size=8))
        .metrics
        for images in (streamed, trained.splits.test.images[:30])
    ]
    assert made[0] == made[1]


class Seen(nn.Module):
    """Keeps what it is shown; its features are the means of columns."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shown.append(x)
        return x.mean((1, 2))


def test_images_are_corrupted_as_they_are_stored_and_resampled_then(digits):
    subject = subject_of(Encoder(Seen(), (0.0,), (1.0,), size=16), digits)
    network = subject.encoder.network
    network.shown.clear()
    Corruptions(kinds=("pixelate",), limit=5, l2_grid=GRID).evaluate(subject)
    images = sample(subject.splits.test, 5, 0).images
    expected = [images, *(corrupt(images, "pixelate", severity, torch.Generator()) for severity in SEVERITIES)]
    shown = network.shown.copy()
    for given, seen in zip(expected, shown, strict=True):
        network.shown.clear()
        subject.encoder(given)
        assert torch.equal(network.shown[0], seen)
        assert seen.shape[2:] == (16, 16)


def test_encoder_images_and_random_generators_are_left_as_they_are(trained):
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    subject = subject_of(Encoder(network, (0.3,), (0.4,)), trained.dataset)
    images = subject.splits.test.images
    states = [{name: value.clone() for name, value in subject.encoder.state_dict().items()}, images.clone()]
    drawn = torch.random.get_rng_state()
    metrics = Corruptions(limit=30, l2_grid=GRID).evaluate(subject).metrics
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, states[0][name]) for name, value in subject.encoder.state_dict().items())
    assert torch.equal(images, states[1])
    assert not any(module.training for module in subject.encoder.modules())
    assert Corruptions(limit=30, l2_grid=GRID).evaluate(subject).metrics == metrics  # no dropout


def test_from_the_command_line(command: Callable[..., Outcome], tmp_path: Path):
    short = (*(item for item in TINY if not item.startswith("evaluation.")), "trainer.limit_train_batches=2")
    done = command("ssl-train", *short, "evaluation=none")
    assert done.code == 0, done.err
    (run,) = find_runs([tmp_path / "runs" / "default"])
    few = ("evaluation=corruptions", "evaluation.limit=40", "evaluation.l2_grid=[1.0e-3]")
    few += ("evaluation.kinds=[impulse_noise,contrast]", "evaluation.untrained=true")
    done = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", *few)
    assert done.code == 0, done.err
    (made,) = run.evaluations()
    assert made["protocol"]["settings"] == {
        "suite": "Corruptions",
        "kinds": ["impulse_noise", "contrast"],
        "limit": 40,
        "l2_grid": [1e-3],
    }
    assert len(made["metrics"]) == len(made["untrained"]) == 4 + 2 * 6
    shares = [40 * value for name, value in made["metrics"].items() if name.endswith(("_1_top1", "clean_top1"))]
    assert shares == pytest.approx([round(share) for share in shares])
    assert [picture["title"] for picture in made["pictures"]] == [
        "Accuracy on corrupted images",
        "Accuracy on corrupted images, untrained",
    ]
    refused = command("ssl-evaluate", f"run={run.folder}", "trainer=cpu", *few[:1], "evaluation.kinds=[fog]")
    assert refused.code != 0
    assert "evaluation.kinds" in refused.err
    assert "gaussian_noise" in refused.err
