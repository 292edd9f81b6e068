"""Universality of a trained, an untrained and a collapsed encoder."""

import copy
import math

import pytest
import torch
from torch import nn

from ssl_lightning.evaluation.universality import Universality
from ssl_lightning.models.encoder import Encoder
from tests.evaluation.synthetic import subject_of
from tests.evaluation.test_episodes import dataset, encoders

FEW = Universality(
    steps=(1, 3), tasks=6, images=16, ways=3, shots=2, queries=4, l2_grid=(1e-2,), temperature=0.5, lr=0.05
)


def test_encoders_are_ordered():
    found = {name: FEW.evaluate(subject_of(encoder, dataset())) for name, encoder in encoders().items()}
    for name in ("linear/top1", "knn/top1", "episodes/2shot_ridge_top1", "corruptions/top1"):
        trained, untrained, collapsed = (one.metrics[name] for one in found.values())
        assert trained > untrained > collapsed, name
    for step in FEW.steps:
        assert found["collapsed"].metrics[f"sigma_ssl/{step}"] == 0
        for name in ("trained", "untrained"):
            metrics = found[name].metrics
            for kind, classes in (("sigma_ssl", 16), ("sigma_supervised", 3)):
                assert metrics[f"{kind}/{step}"] >= 0
                assert metrics[f"{kind}/{step}_of_log"] == pytest.approx(metrics[f"{kind}/{step}"] / math.log(classes))
    assert found["trained"].metrics["sigma_ssl/3"] > found["trained"].metrics["sigma_ssl/1"] > 0
    assert FEW.columns.keys() <= found["trained"].metrics.keys()
    assert [picture["kind"] for picture in found["trained"].pictures] == ["radar", "curves"]


def test_it_is_the_same_again_and_changes_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    encoder = Encoder(network, [0.5], [0.5])
    state, generator = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
    first = FEW.evaluate(subject_of(encoder, dataset()))
    assert all(torch.equal(value, state[name]) for name, value in encoder.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in encoder.parameters())
    assert torch.equal(torch.get_rng_state(), generator)
    assert not network.training
    assert FEW.evaluate(subject_of(encoder, dataset())) == first


def test_images_of_other_sizes_and_grey_ones_for_a_colour_encoder():
    """The encoder sees 4×4 pixels of three channels."""
    weight = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 5))
    with torch.no_grad():
        network[1].weight.copy_(weight)
    encoder = Encoder(network, [0.5] * 3, [0.5] * 3, size=4)
    metrics = FEW.evaluate(subject_of(encoder, dataset())).metrics
    assert all(math.isfinite(value) for value in metrics.values())
