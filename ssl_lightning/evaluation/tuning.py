"""Training on from a frozen encoder: a copy of it with a linear head, what it sees, and its learning rates by depth."""

import itertools
from collections.abc import Generator, Iterable
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_lightning.data.alternation import Alternation
from ssl_lightning.data.dataset import Split
from ssl_lightning.data.decoding import StreamedImages
from ssl_lightning.data.draw import to_device
from ssl_lightning.data.loading import Loader, ResidentLoader, StreamedLoader, in_order
from ssl_lightning.data.sampler import BatchSampler, seed_of
from ssl_lightning.data.views import Augment
from ssl_lightning.metrics.accuracy import accuracy
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.optim.schedule import Schedule

MOMENTUM = 0.9


class Classifier(nn.Module):
    """A copy of an encoder, all of whose backbone is trained, and a linear head of zeros.

    Logits [n, c] of uint8 images, or of float ones in [0, 1]; the encoder itself stays as it is.
    """

    def __init__(self, encoder: Encoder, num_features: int, num_classes: int) -> None:
        super().__init__()
        mean, std = encoder.mean.flatten().tolist(), encoder.std.flatten().tolist()
        copy = Encoder(deepcopy(encoder.backbone), mean, std, size=encoder.size, image_size=encoder.image_size)
        self.encoder = copy.requires_grad_(True)
        self.head = nn.Linear(num_features, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.to(encoder.mean)

    def forward(self, images: Tensor) -> Float[Tensor, "n c"]:
        return self.head(self.encoder(images))

    def parameter_groups(self, lr: float, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
        """For an optimizer. The learning rate of the head is `lr`, and that of each block of the backbone
        `layer_decay` times that of the next (ULMFiT, arXiv 1801.06146, section 3.2); biases and norms do not decay.

        Parameters of the backbone that lie in no block, such as positions, go with its first.
        """
        blocks = [list(block.parameters()) for block in blocks_of(self.encoder.backbone)]
        within = {parameter for block in blocks for parameter in block}
        outside = [parameter for parameter in self.encoder.backbone.parameters() if parameter not in within]
        layers = [outside + (blocks[0] if blocks else []), *blocks[1:], list(self.head.parameters())]
        groups: list[dict[str, Any]] = []
        for above, layer in enumerate(reversed(layers)):
            weights = [parameter for parameter in layer if parameter.ndim > 1]
            others = [parameter for parameter in layer if parameter.ndim <= 1]
            groups += [
                {"params": parameters, "lr": lr * layer_decay**above, "weight_decay": decay}
                for parameters, decay in ((weights, weight_decay), (others, 0.0))
                if parameters
            ]
        return groups

    @torch.no_grad()
    def accuracy(self, split: Split, batch_size: int) -> float:
        """In [0, 1], in eval mode."""
        device = self.head.weight.device
        self.eval()
        logits = [self(images.to(device)) for images in in_order(split.images, batch_size=batch_size)]
        return accuracy(torch.cat(logits), split.labels.to(device))


def blocks_of(backbone: nn.Module) -> list[nn.Module]:
    """The parts with parameters that a backbone consists of, in its order: children, and for a plain sequence of
    modules its members. Of a ResNet the first convolution and norm, and each residual block; of a vision transformer
    its patches, each block, and the last norm."""
    blocks: list[nn.Module] = []
    for child in backbone.children():
        blocks += blocks_of(child) if type(child) in (nn.Sequential, nn.ModuleList) else [child]
    return [block for block in blocks if any(True for _ in block.parameters())]


def batches(
    split: Split, positions: Int64[Tensor, " m"], augment: Augment, batch_size: int, seed: int, device: torch.device
) -> Generator[tuple[Float[Tensor, "n c s s"], Int64[Tensor, " n"]]]:
    """Views in [0, 1] and their labels, on the device, epoch after epoch without end; a last incomplete batch of an
    epoch is dropped. A function of the seed: of the order, and of the views, whose copies follow one another.

    Args:
        positions: of the images in the split.
        batch_size: at most as many as there are positions.
    """
    sampler = BatchSampler(positions, batch_size, seed)
    alternation = None
    if augment.alternates:
        alternation = Alternation(augment.num_views, len(split.labels), sampler, seed)
    next_number = itertools.count().__next__
    loader: Loader
    if isinstance(split.images, StreamedImages):
        loader = StreamedLoader(split, sampler, next_number, augment, alternation=alternation)
    else:
        loader = ResidentLoader(split, sampler, next_number)
    channels, side = split.images.shape[1:3]
    mean, std = torch.zeros(channels, device=device), torch.ones(channels, device=device)
    try:
        for number, (images, labels, *_) in enumerate(itertools.chain.from_iterable(itertools.repeat(loader))):
            generator = torch.Generator().manual_seed(seed_of("views", seed, number))
            if isinstance(images, tuple):  # streamed images are crops already
                crops = [to_device(crop, device) for crop in images]
                (views,) = augment.colour(crops, mean, std, generator, side)
            else:
                mirrored = alternation(number) if alternation else None
                (views,) = augment(to_device(images, device), mean, std, generator, side, mirrored)
            yield views.flatten(0, 1), to_device(labels, device).repeat(len(views))
    finally:
        loader.stop()


def train(
    classifier: Classifier,
    given: Iterable[tuple[Float[Tensor, "n c s s"], Int64[Tensor, " n"]]],
    steps: int,
    lr: float,
    weight_decay: float = 0.0,
    layer_decay: float = 1.0,
) -> None:
    """Cross-entropy by SGD with momentum 0.9, one step a batch; the learning rate falls to 0 along a cosine. Norms
    learn their statistics as in pretraining."""
    optimizer = torch.optim.SGD(classifier.parameter_groups(lr, weight_decay, layer_decay), momentum=MOMENTUM)
    cosine = Schedule()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: cosine.factor(step, 1, steps))
    classifier.train()
    for images, labels in given:
        optimizer.zero_grad()
        cross_entropy(classifier(images), labels).backward()
        optimizer.step()
        scheduler.step()
    classifier.eval()
