"""Proxies that nobody trains: a method of the test's own, as if a run had left it."""

from typing import Any

from torch import nn

from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.runs.loading import LoadedRun


def given(
    method: SSLMethod,
    digest: str = "a",
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.25,),
    name: str = "tiny",
    channels: int = 1,
    max_epochs: int = 1,
    checkpoint: dict[str, Any] | None = None,
) -> LoadedRun:
    """A run of this method on data of this name, kind and statistics."""
    trainer = {"max_epochs": max_epochs, "fast_dev_run": False}
    data = {"name": name, "channels": channels, "mean": list(mean), "std": list(std)}
    config = {"dataset": data, "trainer": trainer}
    return LoadedRun(method.requires_grad_(False).eval(), config, checkpoint or {}, digest)


class Toy(SSLMethod):
    """Given functions for representation and embedding."""

    def __init__(self, represent: Any, project: Any = None, classifies: bool = False) -> None:
        super().__init__()
        self.represent = represent
        self.head = project or nn.Identity()
        self.classifies = classifies

    def forward(self, images: Any) -> Any:
        return self.represent(images)

    def project(self, representations: Any) -> Any:
        return self.head(representations)

    def ssl_loss(self, batch: Any, gather: Any, draw: Any) -> Any:
        raise AssertionError("a proxy is looked through, not trained")
