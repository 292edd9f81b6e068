"""Rules whose groups give their images by a quota that is chosen apart from the order within groups."""

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from ssl_lightning.config.markers import Unset
from ssl_lightning.errors import UserError
from ssl_lightning.subsets.quota import Offer, Proportional, Quota, keys_of
from ssl_lightning.subsets.ranking import Budget, Ranking
from ssl_lightning.subsets.rule import SubsetRule

ADVICE = {
    "scores": "Choose a subset that has them, such as subset=el2n.",
    "features": "Choose a subset that looks at embeddings, such as subset=sas.",
    "tree": "Choose such groups, latent@subset.latent=hierarchical_kmeans, for instance of subset=sas.",
}
OFFERS = {
    "scores": "scores that can be compared",
    "features": "embeddings of the images",
    "tree": "groups that form a tree",
}


@dataclass(frozen=True, kw_only=True)
class QuotaRule(SubsetRule):
    """A rule that orders images within groups, and leaves it to a quota how much each group gives.

    Args:
        quota: how much each group gives; None: in proportion to its size.
    """

    quota: Annotated[Quota | None, Unset] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        needed = self.quota and self.quota.needs
        if self.quota and needed and needed not in self.offers():
            raise UserError(
                f"subset.quota={self.quota.name} needs {OFFERS[needed]}, which subset={self.name} lacks here. "
                f"{self.advice(needed)}"
            )

    def offers(self) -> frozenset[Offer]:
        """What a quota may need of a rule."""
        return frozenset()

    def advice(self, needed: Offer) -> str:
        """What to do about a quota that needs what the rule does not offer."""
        return ADVICE[needed]

    def check_budget(self, budget: Budget) -> None:
        if budget == "floor" and self.quota is not None:
            raise UserError(
                "subset.budget=floor takes the floor of each group's proportional share, which is not what "
                f"subset.quota={self.quota.name} gives. Choose subset.budget=exact."
            )

    def arranged(
        self,
        order: Int64[np.ndarray, " n"],
        levels: Int64[np.ndarray, "n l"],
        score: Float64[np.ndarray, " n"],
        provenance: dict[str, Any],
        redundant: Bool[np.ndarray, " n"] | None = None,
        features: Float32[np.ndarray, "n d"] | None = None,
    ) -> Ranking:
        """The ranking of an order within groups.

        Args:
            order: all positions, best first within each group.
            levels, score: of each position: see `Ranked`.
            redundant: positions that come last; None: no such.
            features: where the rule offers them.
        """
        behind = np.zeros(len(order), np.bool_) if redundant is None else redundant
        quota = self.quota or Proportional()
        keys = None
        if not isinstance(quota, Proportional) or behind.any():  # else they are those that a ranking has anyway
            keys = keys_of(quota, order, levels, score, behind, features, self.seed)
        return Ranking(order, np.array(levels[:, 0]), score, provenance, keys)
