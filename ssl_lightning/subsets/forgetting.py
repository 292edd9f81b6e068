"""Which images a classifier forgets while it learns (arXiv 1812.05159)."""

from dataclasses import dataclass
from typing import Any, ClassVar

import lightning as L
import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from ssl_lightning.config.components import make
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.errors import UserError
from ssl_lightning.methods.method import Objective, SSLMethod
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.difficulty import DifficultyRule


def forgetting_score(events: Int[Tensor, " n"], learned: Bool[Tensor, " n"], epochs: int) -> Float64[Tensor, " n"]:
    """Number of forgetting events, and `epochs` for an image that was never right (or never presented).

    Each event takes two presentations, so there are at most epochs/2 of them: what was never learned comes last.
    """
    return torch.where(learned, events, epochs).double()


class ForgettingEvents(L.Callback):
    """Counts, for each position of the full training split, how often a classifier was right when the image was
    presented and wrong when it was presented next.

    It is right if its probabilities, averaged over the views of the very pass that trains on them, are largest at
    the label. Every rank counts the images of all ranks, so each has the whole state, which travels in checkpoints.
    Nothing here waits for the device inside a step.

    It does not say `changes_training = False`: a run without its counts is another one to the rule that reads them.
    """

    def __init__(self) -> None:
        self._counts: dict[str, Tensor] = {}

    @property
    def events(self) -> Int[Tensor, " n"]:
        return self._counts["events"]

    @property
    def learned(self) -> Bool[Tensor, " n"]:
        """Whether it was ever right."""
        return self._counts["learned"]

    @property
    def presentations(self) -> Int[Tensor, " n"]:
        return self._counts["presentations"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SSLMethod)
        if not pl_module.classifies:
            raise UserError(
                f"callbacks: ForgettingEvents counts how often a classifier forgets an image, but "
                f"{type(pl_module).__name__} does not classify. Use method=supervised, or leave the callback out."
            )
        if not self._counts:
            n = len(trainer.datamodule.dataset.train().labels)  # type: ignore[attr-defined]
            kinds = {"events": torch.int64, "presentations": torch.int64, "right": torch.bool, "learned": torch.bool}
            self._counts = {name: torch.zeros(n, dtype=kind) for name, kind in kinds.items()}
        self._counts = {name: count.to(pl_module.device) for name, count in self._counts.items()}

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        objective: Objective = outputs["objective"]
        probabilities = objective.embeddings.detach().float().softmax(-1).mean(0)
        mine = torch.stack([batch.index, (probabilities.argmax(-1) == batch.label).long()])
        index, right = trainer.strategy.all_gather(mine).movedim(-2, 0).flatten(1)  # [2, n] of each rank, or [2, n]
        right = right.bool()
        counts = self._counts
        counts["events"][index] += counts["right"][index] & ~right
        counts["presentations"][index] += 1
        counts["right"][index] = right
        counts["learned"][index] |= right

    def state_dict(self) -> dict[str, Any]:
        return dict(self._counts)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._counts = dict(state_dict)


@dataclass(frozen=True, kw_only=True)
class Forgetting(DifficultyRule):
    """By forgetting events during training; what was never learned is hardest (arXiv 1812.05159)."""

    name: ClassVar[str] = "forgetting"

    def difficulty(self, proxy: LoadedRun, dataset: ImageDataset) -> Float64[Tensor, " n"]:
        epochs = proxy.config["trainer"]["max_epochs"]
        n = len(dataset.train().labels)
        if proxy.config["trainer"]["fast_dev_run"]:
            return torch.zeros(n, dtype=torch.float64)
        counted = ForgettingEvents()
        try:
            counted.load_state_dict(proxy.checkpoint["callbacks"][counted.state_key])
        except KeyError:
            raise UserError(
                "the run of subset.proxy.run did not count forgetting events. Train it with "
                "+callbacks.forgetting._target_=ssl_lightning.subsets.forgetting.ForgettingEvents, or set "
                "subset.proxy.run=null."
            ) from None
        nuisance = proxy.config["dataset"].get("nuisance")
        if (nuisance and make(nuisance)) != dataset.nuisance:
            raise UserError(
                "the run of subset.proxy.run counted forgetting events of images with another dataset.nuisance. Choose "
                "a run with the same one, or set subset.proxy.run=null."
            )
        if len(counted.events) != n:
            raise UserError(
                f"the run of subset.proxy.run counted forgetting events of {len(counted.events)} images, but "
                f"{dataset.name} has {n} for training. Choose a run on the same dataset."
            )
        return forgetting_score(counted.events, counted.learned, epochs)
