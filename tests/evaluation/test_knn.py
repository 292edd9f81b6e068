import math

import pytest
import torch

from ssl_lightning.evaluation.knn import knn


def _clusters(n: int, classes: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 6, generator=torch.Generator().manual_seed(99))
    labels = torch.randint(classes, (n,), generator=generator)
    return centres[labels] + torch.randn(n, 6, generator=generator), labels


def _naive(train, train_labels, test, test_labels, num_classes, k, temperature):
    correct = 0
    for query, target in zip(test.double(), test_labels.tolist(), strict=True):
        similarities = [float(query @ x / (query.norm() * x.norm())) for x in train.double()]
        nearest = sorted(range(len(train)), key=lambda i: -similarities[i])[:k]
        votes = [0.0] * num_classes
        for i in nearest:
            votes[int(train_labels[i])] += math.exp(similarities[i] / temperature)
        correct += votes.index(max(votes)) == target
    return correct / len(test)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (60, 10.0)])
def test_equals_a_double_loop(k, temperature):
    train, test = _clusters(60, 4, seed=0), _clusters(45, 4, seed=1)
    expected = _naive(*train, *test, 4, k, temperature)
    assert 0 < expected < 1
    assert knn(*train, *test, 4, k, temperature) == {"knn/top1": expected}


def test_votes_are_weighted_by_similarity():
    # One neighbour of class 0 at angle 0, two of class 1 at 60 degrees, where the cosine is 1/2:
    # class 0 wins while exp(1 / t) > 2 exp(1 / 2t), which is t < 1 / log 4.
    half, height = 0.5, math.sqrt(0.75)
    train = torch.tensor([[1.0, 0.0], [half, height], [half, -height]])
    data = (train, torch.tensor([0, 1, 1]), torch.tensor([[2.0, 0.0]]), torch.tensor([0]), 2)
    limit = 1 / math.log(4)
    assert knn(*data, k=3, temperature=0.99 * limit) == {"knn/top1": 1.0}
    assert knn(*data, k=3, temperature=1.01 * limit) == {"knn/top1": 0.0}
    assert knn(*data, k=1, temperature=1.01 * limit) == {"knn/top1": 1.0}


def test_lengths_and_block_size_do_not_matter():
    (train, train_labels), (test, test_labels) = _clusters(60, 4, seed=0), _clusters(45, 4, seed=1)
    expected = knn(train, train_labels, test, test_labels, 4)
    lengths = torch.rand(60, 1, generator=torch.Generator().manual_seed(2)) + 0.5
    assert knn(train * lengths, train_labels, test * 1e3, test_labels, 4) == expected
    for block in (1, 7, 45):
        assert knn(train, train_labels, test, test_labels, 4, block=block) == expected
    for rows in (1, 7, 19, 60):
        assert knn(train, train_labels, test, test_labels, 4, block=16, rows=rows) == expected


def test_more_neighbours_than_samples_are_all_samples():
    train, test = _clusters(10, 3, seed=0), _clusters(45, 3, seed=1)
    everyone = knn(*train, *test, 3, k=10, temperature=10.0)
    assert knn(*train, *test, 3, k=1000, temperature=10.0) == everyone
    assert knn(*train, *test, 3, k=5, temperature=10.0) != everyone


def test_the_vote_of_a_tiny_temperature_is_the_nearest_neighbours():
    train, test = _clusters(60, 4, seed=0), _clusters(45, 4, seed=1)
    assert knn(*train, *test, 4, k=20, temperature=1e-6) == knn(*train, *test, 4, k=1)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_features_give_chance(value):
    labels = torch.arange(40) % 4
    constant = torch.full((40, 3), value)
    assert knn(constant, labels, constant, labels, 4) == {"knn/top1": 0.25}
