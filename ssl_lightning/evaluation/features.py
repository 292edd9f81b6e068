"""Features of a frozen encoder: what every evaluation reads."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

Encode = Callable[[Float[Tensor, "n c h w"]], tuple[Float[Tensor, "n d"], Float[Tensor, "n e"]]]


class Features(NamedTuple):
    """Features of n images, in the order in which the images came."""

    representations: Float32[Tensor, "n d"]
    embeddings: Float32[Tensor, "n e"]
    labels: Int[Tensor, " n"]


def extract(encode: Encode, batches: Iterable[tuple[Tensor, Tensor]]) -> Features:
    """Runs `encode` over batches of float images `[n, c, h, w]` with labels `[n]`, and joins what it returns.

    `encode` maps images to (representation `[n, d]`, embedding `[n, e]`), of any float type; switching the
    model to evaluation mode and moving images to its device is its affair. Features are float32 and stay on
    the device that `encode` returned, labels go there too; an `encode` that returns CPU tensors bounds the
    accelerator's memory. The results are ordinary tensors, which autograd accepts as inputs.
    """
    representations, embeddings, labels = [], [], []
    with torch.inference_mode():
        for images, targets in batches:
            representation, embedding = encode(images)
            representations.append(representation.float())
            embeddings.append(embedding.float())
            labels.append(targets.to(representation.device))
    # Joined outside of inference mode: tensors made inside of it can never be saved for a backward pass.
    with torch.no_grad():
        return Features(torch.cat(representations), torch.cat(embeddings), torch.cat(labels))
