"""σ against what its definition says, and where it must be 0."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from ssl_lightning.evaluation.sigma import sigma_ssl, sigma_supervised, summary, trajectory
from ssl_lightning.losses.contrastive import nt_xent
from tests.evaluation.synthetic import Linear

STEPS = (0, 1, 3)


def smooth(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 5))
    return layers.double().eval().requires_grad_(False)


def views(seed: int, n: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, n, 3, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def episode(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels, answers = torch.arange(3).repeat_interleave(4), torch.arange(3).repeat_interleave(5)
    support, queries = (
        torch.randn(len(y), 3, 2, 2, generator=generator, dtype=torch.float64) + y[:, None, None, None]
        for y in (labels, answers)
    )
    return support, labels, queries, answers


def test_a_trajectory_is_that_of_torch_s_sgd():
    network, reference = smooth(), smooth().requires_grad_()
    support, _ = views(1)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.3)
    expected = {}
    for step in range(4):
        expected[step] = copy.deepcopy(dict(reference.named_parameters()))
        optimizer.zero_grad()
        nt_xent(reference(support.flatten(0, 1)).unflatten(0, support.shape[:2]), 0.5).backward()
        optimizer.step()

    def loss(weights: dict[str, Tensor]) -> Tensor:
        made = torch.func.functional_call(network, weights, (support.flatten(0, 1),))
        return nt_xent(made.unflatten(0, support.shape[:2]), 0.5)

    seen = []
    for step, weights in trajectory(dict(network.named_parameters()), loss, 0.3, (3, 0, 1)):
        seen.append(step)
        for name, value in weights.items():
            torch.testing.assert_close(value, expected[step][name].detach())
    assert seen == [0, 1, 3]


def test_a_step_that_raises_the_loss_is_halved_until_it_does_not():
    """x²: from 1 at a learning rate of 9, 1 − 18/2ᵏ first is no further from 0 than 1 for k = 4, at −0.125."""
    start = {"x": torch.tensor(1.0, dtype=torch.float64)}
    ((_, found),) = trajectory(start, lambda weights: weights["x"].square(), 9.0, (1,))
    assert float(found["x"]) == 1 - 18 / 16
    upwards = trajectory(start, lambda w: w["x"].square() + (w["x"].detach() != 1) * 5, 0.1, (3,))
    assert [float(weights["x"]) for _, weights in upwards] == [1.0]  # where nothing helps it stays


def test_sigma_of_views_is_the_divergence_of_two_classifications():
    network = smooth()
    support, queries = views(2)
    ((_, adapted),) = trajectory(
        dict(network.named_parameters()),
        lambda weights: nt_xent(
            torch.func.functional_call(network, weights, (support.flatten(0, 1),)).unflatten(0, (2, 6)), 0.5
        ),
        0.3,
        (3,),
    )

    def pi(weights: dict[str, Tensor], first: int, second: int) -> Tensor:
        z = [torch.func.functional_call(network, weights, (queries[v],)) for v in (first, second)]
        p, t = (x / x.norm(dim=1, keepdim=True) for x in z)
        return log_softmax(p @ t.T / 0.5, 1)

    expected = 0.0
    for pair in ((0, 1), (1, 0)):
        after, before = pi(adapted, *pair), pi(dict(network.named_parameters()), *pair)
        expected += float((after.exp() * (after - before)).sum(1).mean()) / 2
    found = sigma_ssl(network, [(support, queries)], 0.3, STEPS, 0.5)
    assert found.shape == (1, 3)
    assert float(found[0, 2]) == pytest.approx(expected, rel=1e-9)
    assert found[0, 0] == 0
    assert found[0, 1] > 0


def test_sigma_of_labels_is_that_of_one_head_on_two_encoders():
    network = smooth(3)
    support, labels, queries, answers = episode(4)
    found = sigma_supervised(network, [(support, labels, queries, answers)], 0.02, STEPS)
    assert found.kl[0, 0] == 0
    assert found.gain[0, 0] == 0

    reference = smooth(3).requires_grad_()
    frozen = reference(support).detach()
    mean, scale = frozen.mean(0), frozen.std(0, unbiased=False)
    from sklearn.linear_model import LogisticRegression

    head = LogisticRegression(C=1.0, tol=1e-10, max_iter=10_000).fit((frozen - mean) / scale, labels)
    weight, bias = torch.from_numpy(head.coef_), torch.from_numpy(head.intercept_)

    def logits(images: Tensor) -> Tensor:
        return (reference(images) - mean) / scale @ weight.T + bias

    before = log_softmax(logits(queries), 1).detach()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.02)
    for _ in range(3):
        optimizer.zero_grad()
        cross_entropy(logits(support), labels).backward()
        optimizer.step()
    after = log_softmax(logits(queries), 1).detach()
    kl = float((after.exp() * (after - before)).sum(1).mean())
    gain = float(((after.argmax(1) == answers).double() - (before.argmax(1) == answers).double()).mean())
    assert float(found.kl[0, 2]) == pytest.approx(kl, rel=1e-3)
    assert float(found.gain[0, 2]) == pytest.approx(gain)


def test_sigma_falls_with_the_square_of_the_learning_rate():
    """A divergence has no first-order term about its zero."""
    small = [float(sigma_ssl(smooth(), [views(5)], lr, (1,), 0.5)) for lr in (1e-3, 5e-4)]
    assert small[0] / small[1] == pytest.approx(4, rel=0.01)
    few = [float(sigma_supervised(smooth(), [episode(6)], lr, (1,)).kl) for lr in (1e-4, 5e-5)]
    assert few[0] / few[1] == pytest.approx(4, rel=0.01)


@pytest.mark.parametrize("bias", [0.0, 1.0])
def test_a_collapsed_encoder_has_none(bias: float):
    collapsed = nn.Sequential(nn.Flatten(), nn.Linear(12, 5)).double().requires_grad_(False)
    nn.init.zeros_(collapsed[1].weight)
    nn.init.constant_(collapsed[1].bias, bias)
    assert float(sigma_ssl(collapsed, [views(7)], 0.5, (20,), 0.5)) == pytest.approx(0, abs=1e-12)


def test_it_is_never_negative_and_leaves_the_network_and_the_generators_alone():
    network = smooth(8)
    state = copy.deepcopy(network.state_dict())
    torch.manual_seed(0)
    before = torch.get_rng_state()
    tasks = [views(seed) for seed in range(5)]
    episodes = [episode(seed) for seed in range(5)]
    found = sigma_ssl(network, tasks, 0.2, (1, 5), 0.5)
    few = sigma_supervised(network, episodes, 0.2, (1, 5))
    assert (found > 0).all()
    assert (few.kl > 0).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert not network.training
    assert torch.equal(sigma_ssl(network, tasks, 0.2, (1, 5), 0.5), found)


def test_the_summary():
    values = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    mean, sem, of_log = summary(values, 8)
    assert mean == 3
    assert sem == pytest.approx(math.sqrt(7) / math.sqrt(3))
    assert of_log == pytest.approx(3 / math.log(8))


def test_a_linear_encoder_that_is_the_optimum_moves_nowhere():
    """Where the gradient is zero nothing is adapted: representations that are opposite for two images."""
    images = torch.zeros(2, 2, 2, 1, 1, dtype=torch.float64)
    images[:, 0, 0], images[:, 1, 0] = 1.0, -1.0
    network = Linear(torch.tensor([[3.0, 0.0], [0.0, 0.0]], dtype=torch.float64)).requires_grad_(False)
    assert float(sigma_ssl(network, [(images, images)], 0.1, (5,), 0.5)) == pytest.approx(0, abs=1e-12)
