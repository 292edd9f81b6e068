"""The probe under corruption: against a loop by hand, and which encoder holds."""

import copy

import pytest
import torch

from ssl_lightning.data.corruptions import corrupt
from ssl_lightning.data.draw import Draw
from ssl_lightning.evaluation.corruptions import Corruptions
from ssl_lightning.evaluation.linear import chosen_probe
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset, encoders

FEW = Corruptions(kinds=("gaussian_noise", "contrast"), l2_grid=(1e-2,))


def test_it_is_the_probe_of_clean_images_on_corrupted_ones():
    subject = subject_of(encoders()["untrained"], dataset())
    metrics = FEW.evaluate(subject).metrics
    train, test = subject.features["train"], subject.splits.test
    probe = chosen_probe(train.representations, train.labels, 4, subject.splits.validation, (1e-2,))
    order = torch.randperm(120, generator=torch.Generator().manual_seed(0))
    pixels = test.images[:][order].float() / 255
    normal = Draw(0, 0).normal("gaussian_noise", *pixels.shape)
    for kind, numbers in (("gaussian_noise", normal), ("contrast", None)):
        for severity in (1, 5):
            logits = probe.logits(subject.encoder(corrupt(pixels, kind, severity, numbers)))
            right = (logits.argmax(1) == test.labels[order]).double().mean()
            assert metrics[f"corruptions/{kind}_{severity}_top1"] == pytest.approx(float(right))
    every = [metrics[f"corruptions/{k}_{s}_top1"] for k in ("gaussian_noise", "contrast") for s in range(1, 6)]
    assert metrics["corruptions/top1"] == pytest.approx(sum(every) / 10)
    assert metrics["corruptions/clean_top1"] == probe.accuracy(subject.features["test"].representations, test.labels)
    drop = 1 - metrics["corruptions/top1"] / metrics["corruptions/clean_top1"]
    assert metrics["corruptions/relative_drop"] == pytest.approx(drop)


def test_encoders_are_ordered():
    found = {name: FEW.evaluate(subject_of(encoder, dataset())).metrics for name, encoder in encoders().items()}
    clean, corrupted, drop = (
        [one[f"corruptions/{name}"] for one in found.values()] for name in ("clean_top1", "top1", "relative_drop")
    )
    assert clean[0] == 1 > clean[1] > clean[2]
    assert corrupted[0] > corrupted[1] > corrupted[2]
    assert drop[2] == pytest.approx(0)  # nothing is seen, whatever is shown
    assert 0 < drop[0] < drop[1]


def test_batches_and_calls_make_no_difference_and_nothing_is_changed():
    encoder = encoders()["trained"]
    state, generator = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    subject = subject_of(encoder, dataset(300))  # more than are drawn together
    first = FEW.evaluate(subject)
    object.__setattr__(subject, "batch_size", 7)
    assert FEW.evaluate(subject) == first
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())


def test_a_sample_is_the_same_for_every_encoder():
    limited = Corruptions(kinds=("contrast",), l2_grid=(1e-2,), limit=30)
    first = limited.evaluate(subject_of(encoders()["trained"], dataset())).metrics
    assert first == limited.evaluate(subject_of(encoders()["trained"], dataset())).metrics
    assert 30 * first["corruptions/clean_top1"] == pytest.approx(round(30 * first["corruptions/clean_top1"]))
