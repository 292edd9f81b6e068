"""Configs as the commands compose them, without a command."""

from functools import cache
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from ssl_lightning.config.hydra import configs_in
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.lightning_internals import forget_application

TINY = (
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.max_epochs=1",
    "batch_size=8",
    "backbone.width=4",
    "evaluation.few_percents=[]",
    "evaluation.draws=1",
    "evaluation.l2_grid=[1.0e-3]",
)
"""Overrides of a run that is over at once."""


def composed(*overrides: str, name: str = "train", folder: Path = CONF) -> DictConfig:
    """What `ssl-train --config-dir folder --config-name name overrides` hands to `train`.

    Hydra remembers its choices, so that messages can say where a key was written; the fixture `forget` undoes it.
    """
    forget_application()
    search = [] if folder == CONF else [f"hydra.searchpath=[{CONF}]"]
    with configs_in(folder):
        config = compose(name, [*search, *overrides], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    OmegaConf.set_struct(config, False)
    del config["hydra"]
    return config


@cache
def resolved(*overrides: str) -> dict[str, Any]:
    """What a run of these overrides consists of. It is composed once for all tests, none of which may change it."""
    return resolve(composed(*overrides))
