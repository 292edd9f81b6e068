"""Proxies that nobody trains: a method of the test's own, and the rules that look through it."""

from typing import Any

from torch import nn

from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.proxy import Proxy


class Given(Proxy):
    """Hands out methods in the place of runs: the proxy of seed s has the s-th of them and the s-th key."""

    def __init__(
        self,
        *methods: SSLMethod,
        keys: tuple[str, ...] = ("a", "b", "c"),
        mean: tuple[float, ...] = (0.5,),
        std: tuple[float, ...] = (0.25,),
        name: str = "tiny",
        channels: int = 1,
        max_epochs: int = 1,
        checkpoints: tuple[dict[str, Any], ...] = ({}, {}, {}),
        seed: int = 0,
    ) -> None:
        parts = dict.fromkeys(("method", "dataset", "backbone", "augment", "optimizer", "evaluation"))
        super().__init__(**parts, max_epochs=max_epochs, batch_size=1, seed=seed, checkpoint={}, paths={})
        trainer = {"max_epochs": max_epochs, "fast_dev_run": False}
        data = {"name": name, "channels": channels, "mean": list(mean), "std": list(std)}
        config = {"dataset": data, "trainer": trainer}
        self.__dict__ |= {"given": (methods, keys, config, checkpoints), "key": keys[seed], "loads": 0}

    def seeded(self, number: int) -> "Given":
        methods, keys, config, checkpoints = self.__dict__["given"]
        options = {"keys": keys, **config["dataset"], "max_epochs": self.max_epochs, "checkpoints": checkpoints}
        return Given(*methods, **options, seed=self.seed + number)

    def load(self) -> LoadedRun:
        methods, _, config, checkpoints = self.__dict__["given"]
        self.__dict__["loads"] += 1
        return LoadedRun(methods[self.seed].requires_grad_(False).eval(), config, checkpoints[self.seed])


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

    def ssl_loss(self, views: Any, batch: Any, gather: Any) -> Any:
        raise AssertionError("a proxy is looked through, not trained")
