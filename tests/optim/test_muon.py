"""Muon against torch's on matrices, against singular values, and AdamW for what is no matrix."""

import copy
import io

import pytest
import torch
from torch import Tensor, nn

from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.optim.muon import STEPS, A, B, C, Muon, orthogonalised
from ssl_lightning.optim.recipe import OptimizerRecipe
from tests.optim.test_recipe import Tokens, groups, names

SHAPES = [(6, 4), (4, 6), (5, 5), (6, 4), (1, 7)]
SETTINGS = {"lr": 0.1, "weight_decay": 0.2}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parameters(shapes=SHAPES) -> list[nn.Parameter]:
    generator = seeded()
    return [nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64)) for shape in shapes]


def train(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: range, scale: float = 1.0) -> None:
    """The gradients depend on the number of the step alone."""
    for step in steps:
        generator = seeded(step)
        for p in params:
            gradient = torch.randn(p.numel(), generator=generator, dtype=p.dtype).view(p.shape)
            p.grad = (scale * gradient).contiguous(memory_format=_format(p))
        optimizer.step()


def _format(p: Tensor) -> torch.memory_format:
    last = p.ndim == 4 and p.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def assert_close(ours, theirs, tolerance: float = 1e-11) -> None:
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p.detach(), q.detach(), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("shape", [(3, 16, 40), (3, 40, 16), (2, 12, 12), (1, 1, 9)])
def test_singular_vectors_stay_and_values_go_through_the_polynomial(shape):
    matrices = torch.randn(shape, generator=seeded(), dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.square().sum(-1, keepdim=True).sqrt()
    for _ in range(STEPS):
        s = A * s + B * s**3 + C * s**5
    torch.testing.assert_close(orthogonalised(matrices), u * s[:, None] @ vh, rtol=1e-9, atol=1e-9)


def test_singular_values_become_about_one():
    for ratio in (1.0, 0.3, 0.1, 0.01):  # of the smallest and the largest
        u, _, vh = torch.linalg.svd(torch.randn(1, 16, 24, generator=seeded(), dtype=torch.float64), False)
        made = orthogonalised(u * torch.logspace(0, torch.log10(torch.tensor(ratio)), 16, dtype=torch.float64) @ vh)
        values = torch.linalg.svdvals(made)
        assert values.min() > 0.65
        assert values.max() < 1.21


def test_steps_on_matrices_are_those_of_torchs(monkeypatch):
    """Which orthogonalises in bfloat16, but for this test."""
    monkeypatch.setattr(Tensor, "bfloat16", lambda tensor: tensor.clone())
    ours, theirs = parameters(), parameters()
    train(Muon(ours, **SETTINGS), ours, range(4))
    train(torch.optim.Muon(theirs, **SETTINGS, adjust_lr_fn="match_rms_adamw"), theirs, range(4))
    assert_close(ours, theirs)
    assert not torch.allclose(ours[0], parameters()[0], atol=0.1)


def test_steps_in_bfloat16_are_those_of_torchs_up_to_rounding():
    ours = [nn.Parameter(p.detach().bfloat16()) for p in parameters()]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    train(Muon(ours, lr=0.1), ours, range(3))
    train(torch.optim.Muon(theirs, lr=0.1, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"), theirs, range(3))
    assert_close(ours, theirs, 0.03)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_convolution_is_the_matrix_of_its_output_channels(memory_format):
    kernel = torch.randn(8, 3, 3, 3, generator=seeded(), dtype=torch.float64)
    convolution = nn.Parameter(kernel.clone(memory_format=memory_format))
    matrix = nn.Parameter(kernel.flatten(1))
    train(Muon([convolution], **SETTINGS), [convolution], range(3))
    train(Muon([matrix], **SETTINGS), [matrix], range(3))
    assert convolution.is_contiguous(memory_format=memory_format)
    assert_close([convolution.flatten(1)], [matrix])


def test_scaling_all_gradients_changes_nothing():
    ours, scaled = parameters(), parameters()
    train(Muon(ours, **SETTINGS), ours, range(3))
    train(Muon(scaled, **SETTINGS), scaled, range(3), scale=1e4)
    assert_close(ours, scaled)


def test_a_step_turns_with_the_gradient():
    """Muon knows no coordinates: of QG it makes Q times the step of G."""
    q = torch.linalg.qr(torch.randn(6, 6, generator=seeded(1), dtype=torch.float64)).Q
    plain, turned = (nn.Parameter(torch.zeros(6, 4, dtype=torch.float64)) for _ in range(2))
    plain.grad = torch.randn(6, 4, generator=seeded(), dtype=torch.float64)
    turned.grad = q @ plain.grad
    for p in (plain, turned):
        Muon([p], lr=0.1).step()
    assert_close([turned], [q @ plain])


def test_weights_do_not_know_one_another():
    """Those of one shape are computed together."""
    together, alone = parameters(), parameters()
    for p in together:
        p.grad = torch.ones_like(p)
    Muon(together[::-1], **SETTINGS).step()
    for p in alone:
        p.grad = torch.ones_like(p)
        Muon([p], **SETTINGS).step()
    assert_close(together, alone)


def test_a_step_has_the_root_mean_square_of_adamws():
    """About 0.2 (arXiv 2502.16982, section 2.2), whatever the shape."""
    for shape in ((64, 16), (16, 64), (32, 32), (16, 8, 3, 3)):
        p = nn.Parameter(torch.zeros(shape))
        p.grad = torch.randn(shape, generator=seeded())
        Muon([p], lr=1.0).step()
        assert p.detach().square().mean().sqrt() == pytest.approx(0.2, rel=0.2)


def test_all_else_is_adamws_bit_for_bit():
    shapes = [(5,), (3, 4), ()]
    ours, theirs = parameters(shapes), parameters(shapes)
    train(Muon([{"params": ours, "adapt": False}], betas=(0.8, 0.99), **SETTINGS), ours, range(4))
    train(torch.optim.AdamW(theirs, betas=(0.8, 0.99), **SETTINGS), theirs, range(4))
    assert all(torch.equal(p, q) for p, q in zip(ours, theirs, strict=True))


def test_matrices_of_a_vision_transformer():
    """Tokens and positions have more than one dimension, but are no matrices."""
    module = Tokens()
    optimizer, _ = OptimizerRecipe(algorithm=Muon, lr=0.1, batch_size=8).build(groups(module), 10, 100)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    momenta = {p for p, state in optimizer.state.items() if set(state) == {"momentum"}}
    others = {p for p, state in optimizer.state.items() if set(state) == {"exp_avg", "exp_avg_sq", "step"}}
    assert names(module, {"params": momenta}) == {"patches.weight", "attention.weight"}
    assert momenta | others == set(module.parameters())


def test_weights_without_a_gradient():
    """None: left alone. Zero, as before a BatchNorm that starts at 0: no step."""
    zero, none = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3, 4))
    zero.grad = torch.zeros(3, 4)
    Muon([zero, none], lr=0.1).step()
    assert torch.equal(zero, torch.ones(3, 4))
    assert torch.equal(none, torch.ones(3, 4))


def test_state_survives_a_checkpoint_bit_for_bit():
    def started() -> tuple[list[nn.Parameter], torch.optim.Optimizer]:
        torch.manual_seed(0)
        network = resnet_tiny(channels=1, width=4).to(memory_format=torch.channels_last)
        made, _ = OptimizerRecipe(algorithm=Muon, lr=0.1, batch_size=8, weight_decay=0.1).build(groups(network), 10, 40)
        return list(network.parameters()), made

    (first, a), (second, b) = started(), started()
    train(a, first, range(3))
    file = io.BytesIO()
    torch.save(a.state_dict(), file)
    file.seek(0)
    b.load_state_dict(torch.load(file, weights_only=True))
    for p, q in zip(first, second, strict=True):
        q.data.copy_(p.data)
    train(a, first, range(3, 6))
    train(b, second, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(first, second, strict=True))


def test_a_scaler_of_gradients_skips_steps_that_overflow():
    params = parameters([(3, 4), (4,)])
    optimizer, scaler = Muon(params, lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
    before = copy.deepcopy(params)
    for p in params:
        p.grad = torch.full_like(p, torch.inf)
    scaler.scale(torch.tensor(1.0))
    scaler.step(optimizer)
    scaler.update()
    assert all(torch.equal(p, q) for p, q in zip(params, before, strict=True))
    scaled, plain = parameters([(3, 4), (4,)]), parameters([(3, 4), (4,)])
    for p, q in zip(scaled, plain, strict=True):
        p.grad, q.grad = torch.ones_like(p) * scaler.get_scale(), torch.ones_like(q)
    scaler.step(Muon(scaled, lr=0.1))
    Muon(plain, lr=0.1).step()
    assert_close(scaled, plain)


def test_negative_settings_are_refused():
    with pytest.raises(ValueError, match="weight_decay is -1"):
        Muon(parameters(), lr=0.1, weight_decay=-1)
