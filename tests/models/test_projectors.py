"""Heads between representation and loss."""

import pytest
import torch
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.models.projectors import (
    Diagonal,
    FixedLowRank,
    FixedLowRankDiagonal,
    Orthogonal,
    default_rank,
    linear,
    mlp,
    none,
    num_outputs_of,
)


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


def test_mlp_without_layers_is_the_identity():
    head = mlp(8, layers=0)
    x = torch.randn(5, 8)
    assert head(x) is x
    assert num_outputs_of(head, 8) == 8
    normed = mlp(8, layers=0, final_batch_norm=True)
    torch.testing.assert_close(normed(x).mean(0), torch.zeros(8))


def test_mlp_of_one_layer_is_a_linear_map():
    (layer,) = mlp(8, outputs=3, layers=1)
    assert layer.weight.shape == (3, 8)


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


def trained(head: nn.Module, algorithm=torch.optim.SGD, steps: int = 20) -> nn.Module:
    """After steps along gradients of no meaning, large enough to leave any neighbourhood."""
    generator = torch.Generator().manual_seed(0)
    optimizer = algorithm(head.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(steps):
        x, y = torch.randn(2, 16, 8, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (head(x) - y).pow(2).sum().backward()
        optimizer.step()
    return head


def matrix(head: nn.Module, length: int = 8) -> torch.Tensor:
    """W of z = W r."""
    with torch.no_grad():
        return head(torch.eye(length, dtype=torch.float64)).T


@pytest.mark.parametrize("algorithm", [torch.optim.SGD, torch.optim.AdamW])
def test_orthogonal_stays_orthogonal_and_is_trained(algorithm):
    head = Orthogonal(8).double()
    before = matrix(head)
    torch.testing.assert_close(before @ before.T, torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-6)  # of float32
    after = matrix(trained(head, algorithm))
    torch.testing.assert_close(after @ after.T, before @ before.T, rtol=0, atol=1e-12)
    torch.testing.assert_close(torch.linalg.det(after), torch.linalg.det(before))  # a rotation of it
    assert (after - before).norm() > 0.5


def test_orthogonal_fits_any_rotation():
    """All orthogonal maps of its determinant can be learned: that of the data is found."""
    torch.manual_seed(0)
    head = Orthogonal(4).double()
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    target = turn * torch.tensor([torch.linalg.det(turn) * torch.linalg.det(matrix(head, 4)), 1, 1, 1])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(400):
        optimizer.zero_grad()
        (head(torch.eye(4, dtype=torch.float64)).T - target).pow(2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(matrix(head, 4), target, rtol=0, atol=1e-3)


def test_orthogonal_is_not_computed_in_half_precision():
    head = Orthogonal(32)
    nn.init.normal_(head.generator)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weight = head.weight
    torch.testing.assert_close(weight @ weight.T, torch.eye(32), rtol=0, atol=1e-4)


def test_diagonal_stays_diagonal_and_is_trained():
    head = Diagonal(8).double()
    assert torch.equal(matrix(head), torch.eye(8, dtype=torch.float64))
    after = matrix(trained(head, steps=2))
    assert torch.equal(after, after.diag().diag())
    assert (after.diag() != 1).all()


def test_fixed_low_rank_has_singular_values_of_one_and_nothing_to_train():
    head = FixedLowRank(8, 3).double()
    values = torch.linalg.svdvals(matrix(head))
    torch.testing.assert_close(values, torch.tensor([1.0] * 3 + [0.0] * 5).double(), rtol=0, atol=1e-6)
    assert not list(head.parameters())
    assert not torch.equal(matrix(head), matrix(FixedLowRank(8, 3).double()))  # it is drawn
    again = FixedLowRank(8, 3).double()
    again.load_state_dict(head.state_dict())  # and a checkpoint keeps it
    assert torch.equal(matrix(again), matrix(head))


def test_of_full_rank_it_is_orthogonal():
    w = matrix(FixedLowRank(8, 8).double())
    torch.testing.assert_close(w @ w.T, torch.eye(8).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", [FixedLowRank, FixedLowRankDiagonal])
@pytest.mark.parametrize("rank", [0, 9])
def test_an_impossible_rank(kind, rank):
    with pytest.raises(UserError, match=f"method.projector.rank is {rank}, .*between 1 and 8, or to null for 1"):
        kind(8, rank)


@pytest.mark.parametrize("kind", [Orthogonal, Diagonal, FixedLowRank, FixedLowRankDiagonal])
def test_embeddings_are_as_long_as_representations(kind):
    assert num_outputs_of(kind(8), 8) == kind(8)(torch.randn(2, 8)).shape[1] == 8


@pytest.mark.parametrize(("features", "rank"), [(2048, 360), (512, 90), (64, 11), (2, 1)])
def test_default_rank(features, rank):
    assert default_rank(features) == rank
