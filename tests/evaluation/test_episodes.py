"""Few-shot tasks: how they are drawn, each head against a plain one, and which encoder is better at them."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.episodes import Episodes, Tasks, accuracies, draw_tasks, interval
from ssl_lightning.models.encoder import Encoder
from tests.data.synthetic import InMemory, in_memory, synthetic_images
from tests.evaluation.synthetic import Linear, subject_of

LABELS = torch.tensor([0] * 9 + [1] * 8 + [2] * 3 + [3] * 12 + [4] * 8)


def test_tasks_are_of_classes_that_have_enough_images():
    tasks = draw_tasks(LABELS, 3, 2, 5, 200, seed=1)
    assert tasks.support.shape == (200, 3, 2)
    assert tasks.queries.shape == (200, 3, 5)
    together = torch.cat([tasks.support, tasks.queries], 2)
    classes = LABELS[together]
    assert (classes == classes[:, :, :1]).all()  # a row is of one class
    drawn = classes[:, :, 0]
    assert all(len(set(row.tolist())) == 3 for row in drawn)
    assert all(len(set(row.tolist())) == row.numel() for row in together.flatten(1))
    counts = drawn.flatten().bincount(minlength=5)
    assert counts[2] == 0
    assert (counts[[0, 1, 3, 4]] - 150).abs().max() < 40  # 150 ± 6 each
    assert torch.equal(draw_tasks(LABELS, 3, 2, 5, 200, seed=1).support, tasks.support)
    assert not torch.equal(draw_tasks(LABELS, 3, 2, 5, 200, seed=2).support, tasks.support)


def test_where_there_are_fewer_classes_all_are_taken():
    assert draw_tasks(LABELS, 10, 2, 5, 3, seed=0).support.shape == (3, 4, 2)
    with pytest.raises(ValueError, match="fewer than two classes"):
        draw_tasks(LABELS, 2, 5, 5, 3, seed=0)


def features(m: int = len(LABELS)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(m, 6, generator=generator) + 0.7 * torch.eye(6)[LABELS]
    return z / z.norm(dim=1, keepdim=True)


def expected(z: np.ndarray, tasks: Tasks, head: str) -> list[float]:
    """Episode by episode, by scikit-learn and loops."""
    shares = []
    for support, queries in zip(tasks.support.numpy(), tasks.queries.numpy(), strict=True):
        n, k = support.shape
        x, y = z[support].reshape(n * k, -1).astype(float), np.repeat(np.arange(n), k)
        asked, answers = z[queries].reshape(n * queries.shape[1], -1), np.repeat(np.arange(n), queries.shape[1])
        if head == "centroid":
            means = np.stack([x[y == c].mean(0) for c in range(n)])
            named = np.array([max(range(n), key=lambda c: q @ means[c] / np.linalg.norm(means[c])) for q in asked])
        elif head == "ridge":
            model = Ridge(alpha=0.3, fit_intercept=False).fit(x, np.eye(n)[y] - 1 / n)
            named = model.predict(asked).argmax(1)
        else:
            named = LogisticRegression(C=1.0, tol=1e-10, max_iter=1000).fit(x, y).predict(asked)
        shares.append(float((named == answers).mean()))
    return shares


@pytest.mark.parametrize("head", ["centroid", "ridge", "logistic"])
def test_heads_are_those_of_scikit_learn(head):
    tasks = draw_tasks(LABELS, 3, 3, 4, 120, seed=3)  # more than are held together
    found = accuracies(features(), tasks, head, ridge=0.3)
    assert found.tolist() == pytest.approx(expected(features().numpy(), tasks, head))
    assert 0.5 < found.mean() < 0.95


def test_the_interval_is_that_of_the_mean():
    values = torch.tensor([0.2, 0.4, 0.9], dtype=torch.float64)
    assert interval(values) == pytest.approx((0.5, 1.96 * math.sqrt(0.13) / math.sqrt(3)))


def dataset(num: int = 120) -> InMemory:
    images, labels = synthetic_images(num, 4, 1, 8, seed=3)
    return InMemory(
        name="own", image_size=8, channels=1, num_classes=4, mean=(0.5,), std=(0.5,), images=images, labels=labels
    )


def encoders() -> dict[str, Encoder]:
    """What has learnt the classes' patterns, what has not, and what has collapsed."""
    images, labels = synthetic_images(400, 4, 1, 8, seed=3)
    flat = torch.from_numpy(images).flatten(1).float() / 255 - 0.5
    patterns = torch.stack([flat[torch.from_numpy(labels) == c].mean(0) for c in range(4)])
    random = torch.randn(1, 64, generator=torch.Generator().manual_seed(0))
    weights = {"trained": patterns - patterns.mean(0), "untrained": random, "collapsed": torch.zeros(4, 64)}
    return {name: Encoder(Linear(weight), [0.5], [0.5]) for name, weight in weights.items()}


def test_encoders_are_ordered():
    found = {
        name: Episodes(ways=4, queries=5, episodes=50).evaluate(subject_of(encoder, dataset())).metrics
        for name, encoder in encoders().items()
    }
    for head in ("centroid", "ridge", "logistic"):
        trained, untrained, collapsed = (one[f"episodes/5shot_{head}_top1"] for one in found.values())
        assert trained > 0.95
        assert 0.3 < untrained < trained
        assert collapsed == 0.25  # the first class, whatever is asked
    assert found["trained"]["episodes/ways"] == 4


def test_every_encoder_is_asked_the_same_and_tables_name_the_shots():
    evaluator = Episodes(shots=(1, 2), heads=("ridge",), queries=5, episodes=20)
    made = evaluator.evaluate(subject_of(encoders()["trained"], dataset()))
    assert dict(evaluator.columns) == {
        "episodes/1shot_ridge_top1": "1-shot ridge %",
        "episodes/2shot_ridge_top1": "2-shot ridge %",
    }
    assert evaluator.columns.keys() <= made.metrics.keys()
    assert made == evaluator.evaluate(subject_of(encoders()["trained"], dataset()))


def test_too_few_images_a_class_are_refused():
    Episodes(queries=3, shots=(1,)).check(in_memory(np.arange(12) % 3))
    with pytest.raises(UserError, match=r"ask for 5 test images a class, but memory has not two"):
        Episodes(queries=4, shots=(1,)).check(in_memory(np.arange(12) % 3))
