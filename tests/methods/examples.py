"""Methods that use what the contract offers: an EMA teacher and a queue, views of two sizes, masks, dropout."""

import copy

import torch
from torch import Tensor, nn

from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.contrastive import info_nce, unit
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import Objective, SSLMethod


class Pooled(nn.Module):
    """Images of any size to 6 features: two smooth convolutions and a mean. Computes in the type of its weights."""

    num_features = 6

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 6, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.tanh(self.first(images.to(self.first.weight.dtype)))
        return self.second(self.dropout(x)).mean((2, 3))


class Small(SSLMethod):
    """With a small backbone in float64."""

    def __init__(self, optimizer=None, dropout: float = 0.0, seed: int = 0) -> None:
        super().__init__(optimizer)
        torch.manual_seed(seed)
        self.backbone = Pooled(dropout).double()


class Dropout(Small):
    """Contrasts views, with dropout in the backbone."""

    def __init__(self, optimizer=None, dropout: float = 0.3) -> None:
        super().__init__(optimizer, dropout)

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        return Objective(info_nce(embeddings, 0.5, gather), representations, embeddings)


class Masked(Small):
    """Predicts the mean of the hidden pixels from the others (after MAE, arXiv 2111.06377)."""

    min_views = 1
    accumulates = True

    def __init__(self, optimizer=None) -> None:
        super().__init__(optimizer)
        self.head = nn.Linear(6, 1).double()

    def project(self, representations: Tensor) -> Tensor:
        return self.head(representations)

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        (views,) = batch.views
        hidden = draw.uniform("mask", *views.shape, device=views.device) < 0.5
        hidden[..., 0, 0] = True
        representations, embeddings = self.encode((views.masked_fill(hidden, 0),), draw)
        targets = (views * hidden).sum((2, 3, 4)) / hidden.sum((2, 3, 4))
        losses = (embeddings[..., 0] - targets) ** 2
        return Objective(losses.mean(), representations, embeddings, image_losses=losses.mean(0))


class Queued(Small):
    """Finds the teacher's key of the other view among the keys of former images (after MoCo, arXiv 1911.05722), with
    a predictor (after BYOL, arXiv 2006.07733). The teacher's momentum grows to 1 by a cosine."""

    accumulates = True

    def __init__(self, optimizer=None, length: int = 48, momentum: float = 0.9) -> None:
        super().__init__(optimizer)
        self.teacher = copy.deepcopy(self.backbone).requires_grad_(False)
        self.predictor = nn.Linear(6, 6).double()
        self.momentum = momentum
        self.register_buffer("queue", torch.randn(length, 6, dtype=torch.float64))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, embeddings = self.encode(batch.views, draw)
        (views,) = batch.views
        with torch.no_grad():
            keys = self.teacher(views.flatten(0, 1)).unflatten(0, views.shape[:2])
        queries, targets, others = unit(self.predictor(embeddings)), unit(keys), unit(self.queue)
        own = (queries * targets.flip(0)).sum(-1, keepdim=True)
        logits = torch.cat((own, queries @ others.T), -1) / 0.2
        losses = -logits.log_softmax(-1)[..., 0]
        carry = {"predictions": queries, "keys": keys}
        return Objective(losses.mean(), representations, embeddings, {"own": own.mean()}, losses.mean(0), carry)

    def predictions(self, objective: Objective) -> tuple[Tensor, Tensor]:
        return objective.carry["predictions"], objective.carry["keys"]

    def momentum_at(self, progress: float) -> float:
        return 1 - (1 - self.momentum) * (1 + torch.cos(torch.tensor(torch.pi * progress)).item()) / 2

    def after_step(self, objective: Objective, gather: Gather, progress: float) -> None:
        momentum = self.momentum_at(progress)
        for kept, new in zip(self.teacher.parameters(), self.backbone.parameters(), strict=True):
            kept.mul_(momentum).add_(new, alpha=1 - momentum)
        keys = gather(objective.carry["keys"][0])
        self.queue.copy_(torch.cat((self.queue, keys))[-len(self.queue) :])


class Swapped(Small):
    """Views of all sizes predict the prototypes of the large ones (after SwAV, arXiv 2006.09882)."""

    def __init__(self, optimizer=None) -> None:
        super().__init__(optimizer)
        self.prototypes = nn.Linear(6, 4, bias=False).double()

    def project(self, representations: Tensor) -> Tensor:
        return self.prototypes(unit(representations))

    def ssl_loss(self, batch: Batch, gather: Gather, draw: Draw) -> Objective:
        representations, scores = self.encode(batch.views, draw)
        large = len(batch.views[0])
        with torch.no_grad():
            codes = (scores[:large] / 0.1).softmax(-1)
        losses = -torch.einsum("vnk,wnk->vwn", codes, (scores / 0.2).log_softmax(-1))
        different = torch.arange(large)[:, None] != torch.arange(len(scores))
        return Objective(losses[different].mean(), representations, scores)
