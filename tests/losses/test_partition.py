"""Tiles give what the whole matrix gives: values, gradients, gradients of gradients; losses made of them too."""

import math

import pytest
import torch
import torch.nn.functional as F

from ssl_lightning.losses import partition
from ssl_lightning.losses.contrastive import info_nce, nt_xent
from ssl_lightning.losses.partition import log_partition, log_partitions
from tests.losses.test_contrastive import LOSSES, embeddings
from tests.losses.test_contrastive import _loss_of_rank as loss_of_rank

SIDES = (1, 4, 7, 64)
"""Of tiles: smaller than the matrix, no divisor of its sides, larger than it."""


@pytest.fixture
def tiles(monkeypatch):
    """A call makes matrices of any size use tiles of this side; without a side, none does."""

    def use(side: int | None) -> None:
        monkeypatch.setattr(partition, "LARGE", math.inf if side is None else 0)
        monkeypatch.setattr(partition, "TILE", {"cpu": side})

    return use


def unit_vectors(n: int, seed: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(x, dim=1).to(dtype).requires_grad_()


def made(what: str, temperature: float, dtype: torch.dtype = torch.float64) -> tuple[list[torch.Tensor], ...]:
    """Values and gradients of both inputs, under gradients that differ from row to row."""
    rows, columns = unit_vectors(17, 0, dtype), unit_vectors(23, 1, dtype)
    if what == "symmetric":
        values, inputs = [log_partition(rows, rows, temperature, skipped=0)], [rows]
    elif what == "both":
        values, inputs = list(log_partitions(rows, columns, temperature)), [rows, columns]
    else:
        skipped = {"rows": None, "without a diagonal": 6}[what]
        values, inputs = [log_partition(rows, columns, temperature, skipped)], [rows, columns]
    weights = [torch.linspace(-1, 2, len(value), dtype=dtype) for value in values]
    return [value.detach() for value in values], list(torch.autograd.grad(values, inputs, weights))


KINDS = ("symmetric", "rows", "without a diagonal", "both")


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.005])
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("what", KINDS)
def test_tiles_are_the_whole_matrix(tiles, what, side, temperature):
    tiles(None)
    values, gradients = made(what, temperature)
    tiles(side)
    found, found_gradients = made(what, temperature)
    for one, other in zip(found, values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-13, atol=0)
    for one, other in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11 / temperature)


@pytest.mark.parametrize("temperature", [0.1, 0.005])
@pytest.mark.parametrize("what", KINDS)
def test_float32_is_as_exact_as_it_can_be(tiles, what, temperature):
    """Below 1/40, exponentials leave the range of float32: a row without near columns would sum up to nothing."""
    tiles(None)
    exact = [value.float() for value in made(what, temperature)[0]]
    tiles(7)
    values, gradients = made(what, temperature, torch.float32)
    for one, other in zip(values, exact, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_a_row_that_is_far_from_all_columns(tiles):
    row = torch.tensor([[1.0, 0.0]], requires_grad=True)
    columns = torch.tensor([[-1.0, 0.0], [-0.96, 0.28]])
    tiles(1)
    value = log_partition(row, columns, 0.01)
    assert value.item() == pytest.approx(-96.0 + math.log1p(math.exp(-4.0)), rel=1e-6)
    (gradient,) = torch.autograd.grad(value.sum(), row)
    assert gradient[0, 0].item() == pytest.approx(-96.0, rel=1e-3)


@pytest.mark.parametrize("what", KINDS)
def test_gradients_of_gradients(tiles, what):
    tiles(4)
    skipped = {"symmetric": 0, "without a diagonal": 2}.get(what)

    def scalar(*inputs):
        z = [F.normalize(x, dim=1) for x in inputs]
        if what == "both":
            return torch.cat(log_partitions(*z, 0.3))
        return log_partition(z[0], z[-1], 0.3, skipped)

    inputs = [torch.randn(n, 3, generator=torch.Generator().manual_seed(n), dtype=torch.float64) for n in (5, 7)]
    inputs = [x.requires_grad_() for x in inputs[: 1 if what == "symmetric" else 2]]
    assert torch.autograd.gradcheck(scalar, inputs)
    assert torch.autograd.gradgradcheck(scalar, inputs)


def test_only_what_is_asked_for_has_a_gradient_of_a_gradient(tiles):
    """As a teacher's embeddings, which are constants."""
    tiles(4)
    rows, columns = unit_vectors(5, 0), unit_vectors(7, 1).detach()
    (once,) = torch.autograd.grad(log_partition(rows, columns, 0.3).sum(), rows, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), rows)
    assert twice.isfinite().all()
    assert twice.abs().sum() > 0


def test_a_symmetric_matrix_leaves_out_its_diagonal_alone():
    rows = unit_vectors(5, 0)
    with pytest.raises(ValueError, match="leaves out its diagonal, not that from column 2"):
        log_partition(rows, rows, 0.3, skipped=2)


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("loss", LOSSES)
def test_losses_are_the_same_in_tiles(tiles, loss, num_views):
    z = embeddings(num_views, 9).requires_grad_()
    tiles(None)
    value = loss(z, 0.2)
    (gradient,) = torch.autograd.grad(value, z)
    tiles(4)
    torch.testing.assert_close(loss(z, 0.2), value, rtol=1e-13, atol=0)
    torch.testing.assert_close(torch.autograd.grad(loss(z, 0.2), z)[0], gradient, rtol=1e-11, atol=1e-14)


def _in_tiles(rank, *arguments):
    partition.LARGE, partition.TILE = 0, {"cpu": 2}
    return loss_of_rank(rank, *arguments)


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_in_tiles_equal_one_with_the_whole_matrix(pair, tiles, loss):
    z = embeddings(3, 6)
    weight = torch.eye(4, dtype=torch.float64).requires_grad_()
    tiles(None)
    value = loss(z @ weight, 0.2)
    value.backward()
    for total, gradient in pair(_in_tiles, {nt_xent: "nt_xent", info_nce: "info_nce"}[loss], z, 0.2):
        assert torch.allclose(total, value.detach(), rtol=1e-12)
        assert torch.allclose(gradient, weight.grad, rtol=1e-10, atol=1e-14)


def test_no_matrix_is_held():
    """Of tensors that autograd keeps for the backward pass, none is larger than the embeddings."""
    z = torch.randn(2, 600, 8, requires_grad=True)
    assert z[0].shape[0] ** 2 >= partition.LARGE
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    for loss in LOSSES:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss(z, 0.2)
    assert max(kept) <= z.numel()
