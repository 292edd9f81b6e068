"""Herding: members of a group whose mean stays close to the mean of the group."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.greedy import GreedyOrder
from ssl_lightning.subsets.grouped import Group, GroupedRule
from ssl_lightning.subsets.quota import Offer

# Share of the vectors that may be taken ones before these are removed.
TAKEN = 1 / 8


def herding(features: Float[Tensor, "n d"]) -> GreedyOrder:
    """Each pick brings the mean of the picks as close as possible to the mean μ of the unit vectors of the group, ties
    to the first (arXiv 1206.6471; as a coreset, arXiv 1611.07725).

    With t picks of sum Σ, ‖μ − (Σ + x)/(t + 1)‖ is least where ⟨x, (t + 1)μ − Σ⟩ − ‖x‖²/2 is largest. The score of a
    place is the distance ‖μ − Σ/t‖ that the picks before it have left (‖μ‖ for the first): it goes to 0, not always
    downwards.

    Args:
        features: of one group, on any device.
    """
    vectors, n = normalize(features), len(features)
    positions = torch.arange(n, device=features.device)
    offsets = -vectors.square().sum(1) / 2  # -inf of those that are taken
    mean = vectors.double().mean(0)
    towards, total = mean.clone(), torch.zeros_like(mean)
    members = torch.empty(n, dtype=torch.int64, device=features.device)
    scores = torch.empty(n, dtype=torch.float64, device=features.device)
    taken = 0
    for k in range(n):
        scores[k] = (mean - total / max(1, k)).norm()
        pick = torch.addmv(offsets, vectors, towards.to(vectors.dtype)).argmax()
        members[k] = positions[pick]
        total += vectors[pick]
        towards += mean - vectors[pick]
        offsets[pick] = -torch.inf
        taken += 1
        if taken > TAKEN * len(positions):
            left = offsets > -torch.inf
            vectors, positions, offsets, taken = vectors[left], positions[left], offsets[left], 0
    return GreedyOrder(members.cpu().numpy(), scores.cpu().numpy())


@dataclass(frozen=True, kw_only=True)
class Herding(GroupedRule):
    """Herding in each group. Its scores belong to places, and are not compared between groups."""

    name: ClassVar[str] = "herding"

    def offers(self) -> frozenset[Offer]:
        return super().offers() - {"scores"}

    def order_of(self, group: Group) -> GreedyOrder:
        return herding(self.vectors(group.features))
