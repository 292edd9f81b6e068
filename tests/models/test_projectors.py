"""Heads between representation and loss."""

import pytest
import torch
from torch import nn

from ssl_lightning.models.projectors import FixedLowRankDiagonal, default_rank, linear, mlp, none


def test_mlp_layers_and_norms():
    head = mlp(8, hidden=16, outputs=4, layers=3, batch_norm=True, final_batch_norm=True)
    assert [type(m).__name__ for m in head] == [
        "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d",
    ]  # fmt: skip
    assert head[-1].affine is False
    assert all(m.bias is None for m in head if isinstance(m, nn.Linear))
    assert head(torch.randn(5, 8)).shape == (5, 4)


def test_mlp_without_norms_has_biases():
    head = mlp(8, hidden=16, outputs=4, layers=2, batch_norm=False)
    assert [type(m).__name__ for m in head] == ["Linear", "ReLU", "Linear"]
    assert all(m.bias is not None for m in head if isinstance(m, nn.Linear))


def test_mlp_needs_a_layer():
    with pytest.raises(ValueError, match="layers is 0"):
        mlp(8, layers=0)


def test_linear_is_square_by_default_and_none_is_the_identity():
    assert linear(8).weight.shape == (8, 8)
    assert linear(8, 3).weight.shape == (3, 8)
    x = torch.randn(2, 8)
    assert torch.equal(none(8)(x), x)


def test_fixed_low_rank_diagonal_keeps_leading_channels_and_trains_nothing():
    head = FixedLowRankDiagonal(8, 3)
    x = torch.randn(2, 8)
    assert torch.equal(head(x)[:, :3], x[:, :3])
    assert not head(x)[:, 3:].any()
    assert not list(head.parameters())
    assert not head.state_dict()


@pytest.mark.parametrize(("features", "rank"), [(2048, 360), (512, 90), (64, 11), (2, 1)])
def test_default_rank(features, rank):
    assert default_rank(features) == rank
