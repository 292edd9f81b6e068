"""What the tests of configs share."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from ssl_lightning.config.messages import explain
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import TrainConfig
from ssl_lightning.errors import UserError
from ssl_lightning.pipeline.proxies import ProxyRun
from tests.composing import composed
from tests.conftest import Outcome

Command = Callable[..., Outcome]

NEEDED = {
    "subset=file": ["subset.path=list.npy"],
    "subset=scores": ["subset.path=scores.npy"],
    "dataset=image_folder": ["dataset.root=images"],
    "dataset=arrays": ["dataset.path=images.npz"],
    "dataset=huggingface": ["dataset.path=images"],
    "latent=embeddings": ["subset.latent.file=vectors.npy"],
    "backbone=timm": ["backbone.architecture=resnet10t"],
    "schedule=one_cycle_momentum": ["optimizer=sgd"],
}
"""What an option does not say itself, or does not go without."""

OF_EVALUATE = [
    f"evaluation={file.stem}"
    for file in (CONF / "evaluation").glob("*.yaml")
    if "# Of ssl-evaluate" in file.read_text()
]
"""What only ssl-evaluate takes."""

PLACES = {"projector": "method.projector", "nuisance": "dataset.nuisance"} | {
    group: f"subset.{group}" for group in ("latent", "quota", "redundancy", "pseudo_labels", "proxy")
}
"""Where the groups go that are no keys of the whole config."""


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What one test has composed is not where another's keys were written."""
    yield
    HydraConfig.instance().cfg = None


def refused(*overrides: str, **options: Any) -> str:
    """The message for wrong overrides, whether Hydra or the schema refuses them."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        resolve(composed(*overrides, **options))
    message = (
        str(caught.value)
        if isinstance(caught.value, UserError)
        else explain(caught.value, TrainConfig.__dataclass_fields__)
    )
    assert message is not None
    return message


def one_message(outcome: Outcome) -> str:
    assert outcome.code != 0
    assert "Traceback" not in outcome.err + outcome.out
    lines = outcome.err.splitlines()
    messages = [line for line in lines if line.startswith("Error:") and " jobs done, " not in line]
    assert len(messages) == 1
    return messages[0]


def node(config: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def proxy_of(config: dict[str, Any], number: int = 0) -> ProxyRun:
    """The proxy of a resolved config: its settings are checked."""

    def train(config: dict[str, Any]) -> Any:
        raise AssertionError("nothing is to be trained")

    return ProxyRun(config, number, train)
