"""Forgetting events are those of the definition, in any order of images, on one rank or two, resumed or not."""

from itertools import pairwise, product
from types import SimpleNamespace
from unittest.mock import Mock

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.datamodule import SubsetDataModule
from ssl_lightning.data.views import Augment, View
from ssl_lightning.errors import UserError
from ssl_lightning.methods.method import Objective
from ssl_lightning.methods.supervised import Supervised
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.optim.recipe import OptimizerRecipe
from ssl_lightning.subsets.forgetting import ForgettingEvents, forgetting_score
from ssl_lightning.subsets.random import Random
from tests.callbacks import fitting
from tests.subsets.cutting import mask_of


class Presenting:
    """A callback in a training of n images whose predictions are made up."""

    def __init__(self, n, strategy=None, state=None):
        self.callback = ForgettingEvents()
        if state is not None:
            self.callback.load_state_dict(state)
        dataset = SimpleNamespace(train=lambda: SimpleNamespace(labels=torch.zeros(n)))
        self.trainer = Mock(
            spec=L.Trainer,
            datamodule=SimpleNamespace(dataset=dataset),
            strategy=strategy or SingleDeviceStrategy(torch.device("cpu")),
        )
        self.method = Supervised(resnet_tiny(width=1), 2)
        self.callback.on_fit_start(self.trainer, self.method)

    def __call__(self, index, probabilities, labels=None):
        """One step: probabilities of class 0, [v, n]; the labels are 0 unless given."""
        index = torch.as_tensor(index)
        p = torch.as_tensor(probabilities, dtype=torch.float64)
        logits = torch.stack([p, 1 - p], -1).log().float()
        batch = Batch((), torch.zeros_like(index) if labels is None else labels, index)
        outputs = {"objective": Objective(torch.zeros(()), logits, logits, {})}
        self.callback.on_train_batch_end(self.trainer, self.method, outputs, batch, 0)


def events_of(history):
    """Of one image: the presentations at which it was wrong, having been right at the one before."""
    return sum(before and not now for before, now in pairwise(history))


def test_every_sequence_of_six_presentations():
    histories = list(product([False, True], repeat=6))
    present = Presenting(len(histories) + 1)  # the last is never presented
    for epoch in range(6):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(epoch))
        for index in order.split(16):
            present(index, [[0.9 if histories[i][epoch] else 0.2 for i in index]])
    counts = present.callback
    assert counts.events.tolist() == [events_of(history) for history in histories] + [0]
    assert counts.learned.tolist() == [any(history) for history in histories] + [False]
    assert counts.presentations.tolist() == [6] * 64 + [0]
    score = forgetting_score(counts.events, counts.learned, 6)
    assert score.dtype == torch.float64
    assert score[counts.learned].tolist() == counts.events[counts.learned].tolist()
    assert score[~counts.learned].tolist() == [6.0, 6.0]  # never right; never presented
    assert score[counts.learned].max() == 3


def test_by_hand():
    present = Presenting(3)
    present([2, 0], [[0.9, 0.1]])  # 2 right, 0 wrong
    present([1, 2], [[0.8, 0.3]])  # 1 right, 2 forgotten
    present([0, 2], [[0.7, 0.1]])  # 0 learned, 2 still wrong
    present([2, 1], [[0.6, 0.4]])  # 2 learned again, 1 forgotten
    present([2, 0], [[0.1, 0.9]], torch.tensor([0, 1]))  # 2 forgotten again; of class 1, 0 is forgotten
    assert present.callback.events.tolist() == [1, 1, 2]
    assert present.callback.learned.tolist() == [True, True, True]
    assert present.callback.presentations.tolist() == [3, 2, 5]


def test_views_are_averaged_as_probabilities():
    present = Presenting(2)
    present([0, 1], [[0.9, 0.6], [0.9, 0.6], [1e-4, 1e-4]])
    # Means 0.6 and 0.4. The mean of logits would find the first wrong, the views' majority the second right.
    assert present.callback.learned.tolist() == [True, False]


def _probabilities(step, size):
    """Of a global batch: its positions, and probabilities of two views."""
    generator = torch.Generator().manual_seed(step // 3)
    index = torch.randperm(24, generator=generator)[8 * (step % 3) :][:8]
    return index, torch.rand(2, size, generator=generator.manual_seed(step))


def _counts_of_rank(rank, interrupted):
    """After 12 epochs of 3 steps; interrupted, in the middle of an epoch, and resumed from rank 0's checkpoint."""
    import torch.distributed as dist

    present = Presenting(24, DDPStrategy())
    share = slice(4 * rank, 4 * rank + 4)
    for step in range(36):
        if step == interrupted:
            states = [present.callback.state_dict()]
            dist.broadcast_object_list(states, src=0)
            present = Presenting(24, DDPStrategy(), states[0])
        index, probabilities = _probabilities(step, 8)
        present(index[share], probabilities[:, share])
    return present.callback.state_dict()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("interrupted", [None, 16])
def test_two_ranks_count_as_one_process(pair, interrupted):
    present = Presenting(24)
    histories = [[] for _ in range(24)]
    for step in range(36):
        index, probabilities = _probabilities(step, 8)
        present(index, probabilities)
        for i, right in zip(index.tolist(), (probabilities.mean(0) > 0.5).tolist(), strict=True):
            histories[i].append(right)
    assert present.callback.events.tolist() == [events_of(history) for history in histories]
    expected = present.callback.state_dict()
    assert expected["events"].sum() > 24
    for counts in pair(_counts_of_rank, interrupted):
        assert counts.keys() == expected.keys()
        assert all(torch.equal(counts[name], expected[name]) for name in expected)


class Watch(L.Callback):
    """Keeps what was right at each presentation; saves after some steps."""

    def __init__(self, folder, steps=()):
        self.folder, self.steps = folder, steps
        self.histories = [[] for _ in range(48)]

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        views = outputs["objective"].embeddings.detach()
        predictions = sum(torch.softmax(view, 1) for view in views).argmax(1)
        for i, right in zip(batch.index.tolist(), (predictions == batch.label).tolist(), strict=True):
            self.histories[i].append(right)
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(*callbacks, **options):
    """Six epochs of 3 steps, with a learning rate that makes it forget."""
    torch.manual_seed(0)
    recipe = OptimizerRecipe(algorithm=torch.optim.SGD, lr=1.0, batch_size=16)
    dataset, views = fitting.dataset(), Augment([View(copies=2, crop_scale=(0.3, 1.0))])
    data = SubsetDataModule(dataset, mask_of(Random(), dataset), augment=views, batch_size=16)
    fitted = fitting.trainer(*callbacks, max_epochs=6)
    fitted.fit(Supervised(resnet_tiny(width=4, channels=1), 3, recipe), data, weights_only=True, **options)
    return fitted


def test_a_resumed_training_counts_as_an_uninterrupted_one(tmp_path):
    whole, watch = ForgettingEvents(), Watch(tmp_path, steps=(7, 9, 11))
    uninterrupted = fitting.weights(fit(whole, watch))
    assert whole.events.tolist() == [events_of(history) for history in watch.histories]
    assert whole.learned.tolist() == [any(history) for history in watch.histories]
    assert whole.presentations.tolist() == [6] * 48
    assert whole.events.sum() > 0
    for step in (7, 9, 11):
        resumed = ForgettingEvents()
        weights = fitting.weights(fit(resumed, ckpt_path=tmp_path / f"{step}.ckpt"))
        assert all(torch.equal(weights[name], uninterrupted[name]) for name in uninterrupted)
        a, b = whole.state_dict(), resumed.state_dict()
        assert all(torch.equal(a[name], b[name]) for name in a)
        early = torch.load(tmp_path / f"{step}.ckpt", weights_only=True)["callbacks"]["ForgettingEvents"]
        assert not torch.equal(early["events"], whole.events)  # something was left to count


def test_a_method_that_does_not_classify():
    with pytest.raises(UserError, match=r"SimCLR does not classify. Use method=supervised"):
        fitting.fit(ForgettingEvents())
