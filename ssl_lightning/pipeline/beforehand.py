"""What a job of a dry run would fail at once for, as far as files say that are there: nothing is fetched, decoded or
kept."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from ssl_lightning.config.check import beside, own
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import component_name
from ssl_lightning.config.schema import Cut
from ssl_lightning.data.batches import check_batches
from ssl_lightning.data.checking import check_labelled
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import NotThere
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.pipeline.parts import name_of_subset
from ssl_lightning.runs.initial import backbone_weights
from ssl_lightning.subsets.rule import Subset, SubsetRule

Labels = Int[np.ndarray, " n"] | None


class Beforehand:
    """Looks at jobs, one after another; each dataset, method and file is opened or made once."""

    def __init__(self) -> None:
        self._methods: dict[str, SSLMethod] = {}
        self._labels: dict[str, Labels] = {}
        self._weights: set[str] = set()
        self.unseen: set[str] = set()
        """Names of datasets whose images cannot be counted without fetching or decoding them."""

    def check(self, config: Mapping[str, Any]) -> None:
        """
        Args:
            config: resolved.

        Raises:
            UserError: its method cannot be made; the weights or the list of images that it starts from are not there
                or damaged; its subset is smaller than a batch; it needs labels that are missing; its processes cannot
                share a batch.
        """
        if (start := config.get("init")) is not None and start not in self._weights:
            backbone_weights(start)
            self._weights.add(start)
        labels = self._labels_of(config["dataset"])
        method = self._method_of(config["method"])
        if labels is not None and method.classifies:
            purpose = f"method={component_name(config['method'])}"
            check_labelled(labels, purpose, config["dataset"]["name"], "Choose another.")
        rule: SubsetRule = make(own(config["subset"], Cut))
        cut = beside(config["subset"], Cut)
        rule.content_digest()
        size = None if labels is None else Subset(rule, cut["fraction"], cut["budget"]).size(len(labels))
        shares = _processes(config["trainer"]), int(config["trainer"]["accumulate_grad_batches"])
        check_batches(config["batch_size"], shares, method, size, name_of_subset(config["subset"]))

    def notice(self) -> str:
        """What was not looked at; empty where there is nothing."""
        if not self.unseen:
            return ""
        names = ", ".join(sorted(self.unseen))
        return f"Sizes of subsets and labels were not looked at: what {names} holds is not known before it is read"

    def _method_of(self, described: Mapping[str, Any]) -> SSLMethod:
        key = json.dumps(described, sort_keys=True, default=str)
        if key not in self._methods:
            made: SSLMethod = make(described)
            self._methods[key] = made.to("meta")  # what it says of itself, without its weights
        return self._methods[key]

    def _labels_of(self, described: Mapping[str, Any]) -> Labels:
        key = json.dumps(described, sort_keys=True, default=str)
        if key not in self._labels:
            dataset: ImageDataset = make(described)
            try:
                self._labels[key] = dataset.labels_beforehand()
            except NotThere:
                self._labels[key] = None
            if self._labels[key] is None:
                self.unseen.add(dataset.name)
        return self._labels[key]


def _processes(trainer: Mapping[str, Any]) -> int:
    """As far as the settings say."""
    devices = trainer["devices"]
    number = len(devices) if isinstance(devices, list) else devices
    return number * trainer["num_nodes"] if isinstance(number, int) and number > 0 else 1
