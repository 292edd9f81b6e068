import math

import pytest
import torch

from ssl_lightning.evaluation.spectrum import spectrum
from ssl_lightning.metrics.moments import Moments
from ssl_lightning.metrics.ranks import effective_rank, rankme


def _features(n: int, d: int, seed: int = 0, shift: float = 0.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    scales = torch.logspace(0, -2, d, dtype=torch.float64)
    return torch.randn(n, d, generator=generator, dtype=torch.float64) * scales + shift


def _moments(z: torch.Tensor) -> Moments:
    moments = Moments(z.shape[1])
    moments.update(z)
    return moments


@pytest.mark.parametrize(("n", "d"), [(50, 8), (5, 8), (8, 8), (9000, 3)])
@pytest.mark.parametrize("centred", [False, True])
def test_singular_values_are_those_of_the_feature_matrix(n, d, centred):
    z = _features(n, d, shift=1.0)
    matrix = z - z.mean(0) if centred else z
    expected = torch.zeros(d, dtype=torch.float64)
    expected[: min(n, d)] = torch.linalg.svdvals(matrix)
    actual = _moments(z).singular_values(centred)
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=2e-7 * z.norm().item())
    assert (actual.diff() <= 0).all()


def test_moments_of_parts_add_up_to_those_of_the_whole():
    z = _features(100, 6, shift=2.0)
    whole, first, second = _moments(z), Moments(6), _moments(z[63:])
    for batch in z[:63].split(10):
        first.update(batch)
    merged = first + second
    for actual, expected in zip(merged.states(), whole.states(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-14, atol=0)
    assert first.count == 63  # adding changes neither part
    torch.testing.assert_close(merged.mean(), z.mean(0))
    torch.testing.assert_close(merged.covariance(), z.T.cov(correction=0))


def test_states_can_be_reduced_in_place():
    z = _features(20, 4)
    rank0, rank1 = _moments(z[:8]), _moments(z[8:])
    for mine, theirs in zip(rank0.states(), rank1.states(), strict=True):
        mine += theirs
    torch.testing.assert_close(rank0.singular_values(True), _moments(z).singular_values(True))


def test_moments_record_no_gradient_and_accept_any_float_type():
    z = _features(20, 4).bfloat16().requires_grad_()
    moments = _moments(z)
    assert not moments.gram.requires_grad
    torch.testing.assert_close(moments.gram, z.detach().double().T @ z.detach().double())


def test_the_formulas():
    sigma = torch.tensor([4.0, 2.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    # The entropy of (1/2, 1/4, 1/8, 1/8) is 7/4 log 2.
    assert effective_rank(sigma) == pytest.approx(2**1.75, rel=1e-14)
    p = [1 / 2 + 1e-3, 1 / 4 + 1e-3, 1 / 8 + 1e-3, 1 / 8 + 1e-3, 1e-3]
    assert rankme(sigma, eps=1e-3) == pytest.approx(math.exp(-sum(q * math.log(q) for q in p)), rel=1e-14)
    assert rankme(sigma, eps=0.0) == effective_rank(sigma)
    assert effective_rank(17 * sigma) == pytest.approx(effective_rank(sigma), rel=1e-14)


@pytest.mark.parametrize("d", [1, 5, 64])
def test_isotropic_features_have_rank_d(d):
    z = torch.cat([torch.eye(d), -torch.eye(d)])  # centred already
    metrics = spectrum(z, "embedding")[1]
    assert metrics["embedding/effective_rank"] == pytest.approx(d, rel=1e-12)
    assert metrics["embedding/rankme"] == pytest.approx(d, rel=1e-4)


def test_features_on_a_line_have_rank_one():
    z = torch.outer(torch.linspace(-1, 2, 40), torch.linspace(1, 3, 16))
    metrics = spectrum(z, "r")[1]
    assert metrics["r/effective_rank"] == pytest.approx(1, abs=1e-5)
    assert metrics["r/rankme"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("n", "d"), [(4, 16), (30, 5)])
def test_effective_rank_is_at_most_the_centred_rank(n, d):
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(0)) + 100
    singular_values = _moments(z).singular_values(centred=True)
    assert singular_values.count_nonzero() == min(n - 1, d)
    assert 0.7 * min(n - 1, d) < effective_rank(singular_values) <= min(n - 1, d)


@pytest.mark.parametrize(("n", "d"), [(2, 3), (1000, 64), (9000, 50)])
def test_complete_collapse_leaves_no_centred_spectrum(n, d):
    z = (10 * torch.randn(d, generator=torch.Generator().manual_seed(0))).expand(n, d)
    metrics = spectrum(z, "r")[1]
    assert metrics["r/effective_rank"] == 0
    assert metrics["r/rankme"] == pytest.approx(1, abs=1e-3)


def test_rounding_over_many_batches_is_not_taken_for_a_spectrum():
    z = (10 * torch.randn(64, generator=torch.Generator().manual_seed(0))).expand(777, 64)
    moments = Moments(64)
    for _ in range(60):
        moments.update(z)
    assert moments.singular_values(centred=True).tolist() == [0.0] * 64
    assert moments.singular_values(centred=False).count_nonzero() == 1


@pytest.mark.parametrize("n", [1, 100, 10_000, 1_000_000])
@pytest.mark.parametrize("d", [1, 2, 50])
def test_collapse_is_seen_however_badly_sums_are_rounded(n, d):
    """Each state of n equal rows is off by the most that adding them in any order may do."""
    generator = torch.Generator().manual_seed(0)
    row = 10 * torch.randn(d, generator=generator, dtype=torch.float64)

    def rounded(exact: torch.Tensor) -> torch.Tensor:
        sign = torch.randint(2, exact.shape, generator=generator, dtype=torch.float64) * 2 - 1
        return exact * (1 + sign * n * torch.finfo(torch.float64).eps / 2)

    for _ in range(20):
        moments = Moments(d)
        moments.count += n
        moments.total += rounded(n * row)
        moments.gram += rounded(n * torch.outer(row, row)).triu()
        moments.gram += moments.gram.triu(1).T.clone()
        assert moments.singular_values(centred=True).tolist() == [0.0] * d
        assert moments.singular_values(centred=False).count_nonzero() == 1


def test_collapse_is_seen_when_rows_are_added_one_after_the_other():
    row = 10 * torch.randn(1, 8, generator=torch.Generator().manual_seed(0))
    moments = Moments(8)
    for _ in range(5000):
        moments.update(row)
    assert moments.singular_values(centred=True).tolist() == [0.0] * 8
    assert moments.singular_values(centred=False).count_nonzero() == 1


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("rank", [1, 3, 40])
def test_what_is_no_collapse_is_cut_at_the_same_floor_for_any_number_of_rows(rank, centred):
    """Bit for bit, also small values that exact collapse could have left."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(9000, rank, generator=generator) @ torch.randn(rank, 40, generator=generator)
    z = z.double() + 3e-5 * torch.randn(9000, 40, generator=generator, dtype=torch.float64)
    moments = _moments(z + 10)
    gram = moments.covariance() * moments.count if centred else moments.gram
    eigenvalues = torch.linalg.eigvalsh(gram).flip(0)
    floor = 128 * torch.finfo(torch.float64).eps * moments.gram.trace()
    expected = torch.where(eigenvalues > floor, eigenvalues, 0.0).sqrt()
    assert rank == 40 or ((eigenvalues > floor) & (eigenvalues < 9000 / 64 * floor)).any()
    assert torch.equal(moments.singular_values(centred), expected)


def test_features_that_are_all_zero_have_no_rank():
    assert spectrum(torch.zeros(5, 3), "r")[1] == {"r/rankme": 0.0, "r/effective_rank": 0.0}


def test_metrics_are_rankme_uncentred_and_effective_rank_centred():
    z = _features(80, 10, shift=3.0)
    uncentred, centred = torch.linalg.svdvals(z), torch.linalg.svdvals(z - z.mean(0))
    assert spectrum(z, "representation")[1] == pytest.approx(
        {"representation/rankme": rankme(uncentred), "representation/effective_rank": effective_rank(centred)}
    )
    assert effective_rank(centred) > 1.5 * effective_rank(uncentred)
