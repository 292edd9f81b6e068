"""Herding: members of a group whose mean stays close to the mean of the group."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from ssl_lightning.subsets.candidates import Candidates
from ssl_lightning.subsets.coverage import cosines_of
from ssl_lightning.subsets.greedy import GreedyOrder


def herding(features: Float[Tensor, "n d"], memory: float = 2**31) -> GreedyOrder:
    """Each pick brings the mean of the picks as close as possible to the mean μ of the unit vectors of the group, ties
    to the first (arXiv 1206.6471; as a coreset, arXiv 1611.07725).

    With t picks of sum Σ, ‖μ − (Σ + x)/(t + 1)‖ is least where ⟨x, (t + 1)μ − Σ⟩ − ‖x‖²/2 is largest. The score of a
    place is the distance ‖μ − Σ/t‖ that the picks before it have left (‖μ‖ for the first): it goes to 0, not always
    downwards.

    Args: as for `facility_location`.
    """
    unit, n = normalize(features), len(features)
    mean = unit.double().mean(0)
    towards = (unit.double() @ mean).cpu().numpy()
    gains = towards - unit.double().square().sum(1).cpu().numpy() / 2
    rows = Candidates(cosines_of(unit), gains, unit, memory)
    members = np.empty(n, np.int64)
    for k in range(n):
        pick = members[k] = gains.argmax()
        gains += towards
        gains -= rows[pick]
        gains[pick] = -np.inf
    ordered = unit[torch.from_numpy(members).to(unit.device)].double()
    return GreedyOrder(members, _left(ordered, mean).cpu().numpy())


def _left(ordered: Float[Tensor, "n d"], mean: Float[Tensor, " d"]) -> Float[Tensor, " n"]:
    """‖μ − mean of those before‖ of each place."""
    before = ordered.cumsum(0).roll(1, 0)
    before[:1] = 0
    count = torch.arange(len(ordered), device=ordered.device).clamp(min=1)[:, None]
    return (mean - before / count).norm(dim=1)
