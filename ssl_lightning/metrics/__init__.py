"""Quantities of representations as torchmetrics, usable in any LightningModule: `from ssl_lightning.metrics import
RankMe`."""

from ssl_lightning.metrics.of_views import Alignment, LiDAR, Uniformity
from ssl_lightning.metrics.spectral import (
    AlphaReQ,
    EffectiveRank,
    NESum,
    ParticipationRatio,
    RankMe,
    Spectrum,
    StableRank,
)

__all__ = [
    "Alignment",
    "AlphaReQ",
    "EffectiveRank",
    "LiDAR",
    "NESum",
    "ParticipationRatio",
    "RankMe",
    "Spectrum",
    "StableRank",
    "Uniformity",
]
