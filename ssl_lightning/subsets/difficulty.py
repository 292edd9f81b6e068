"""How hard an image is for a classifier, and rankings by it."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Gt
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from ssl_lightning.config.components import make
from ssl_lightning.config.markers import Speed, Unset
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.loading import in_order, normalise
from ssl_lightning.data.pseudo_labels import PseudoLabels
from ssl_lightning.devices import device_of
from ssl_lightning.errors import UserError
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.processes import ALONE, ProcessGroup
from ssl_lightning.progress import track
from ssl_lightning.runs.loading import LoadedRun
from ssl_lightning.subsets.composed import QuotaRule
from ssl_lightning.subsets.grouped import GroupedRule
from ssl_lightning.subsets.quota import Offer
from ssl_lightning.subsets.ranking import Budget, Ranking, generator

GROUPS = (
    "Choose subset=elfs, whose classifiers learn groups of embeddings; or a subset that needs no labels, such as "
    "subset=prototypes; or another dataset."
)


def el2n(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float64[Tensor, " n"]:
    """EL2N, ‖softmax − onehot‖₂, in [0, √2] (arXiv 2107.07075)."""
    error = logits.double().softmax(1) - F.one_hot(labels, logits.shape[1])
    return error.norm(dim=1)


class _Logits(nn.Module):
    """Makes a classifier callable by `functional_call`, which calls `forward`."""

    def __init__(self, method: SSLMethod) -> None:
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> Tensor:
        return self.method.project(self.method(images))


def grand(
    method: SSLMethod, images: Float[Tensor, "n c h w"], labels: Int[Tensor, " n"], chunk: int
) -> Float64[Tensor, " n"]:
    """GraNd, the norm of a sample's gradient of the cross-entropy in all trainable parameters (arXiv 2107.07075).

    Args:
        method: a classifier. It is put into evaluation mode, and changed in nothing else.
        images: normalised.
        chunk: samples whose gradients are held at once.
    """
    method.eval()
    call = _Logits(method)
    trainable = {name: p.detach() for name, p in call.named_parameters() if p.requires_grad}

    def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(call, parameters, (image[None],)), label[None])

    def norm(image: Tensor, label: Tensor) -> Tensor:
        gradient = grad(loss)(trainable, image, label)
        return torch.stack([g.double().square().sum() for g in gradient.values()]).sum().sqrt()

    return vmap(norm, chunk_size=chunk)(images, labels)


@dataclass(frozen=True, kw_only=True)
class DifficultyRule(QuotaRule):
    """Ranks by how hard images are for classifiers trained on all of them. The score is the mean over runs, negative
    where the easiest are kept; ties are broken by a random order.

    Args:
        runs: R, how many classifiers are asked.
        keep: which end of the ranking is best.
        balanced: rank within each class, so that every fraction keeps the proportions of the classes.
        accelerator: as of a trainer; of no influence but on speed and rounding.
        pseudo_labels: whose groups, by the embeddings of a first proxy, are the classes that classifiers learn (as of
            ELFS, arXiv 2406.04273), and whose redundancy says what comes last; None: they learn the labels.
    """

    runs: Annotated[int, Gt(0)] = 1
    keep: Literal["easiest", "hardest"] = "easiest"
    balanced: bool = True
    accelerator: Annotated[str, Speed] = "auto"
    pseudo_labels: Annotated[GroupedRule | None, Unset] = None

    expensive: ClassVar[bool] = True

    @abstractmethod
    def difficulty(self, proxy: LoadedRun, dataset: ImageDataset) -> Float64[Tensor, " n"]:
        """How hard each image of train, with the labels that it has there, is for one classifier."""

    def needs(self) -> int:
        return self.runs

    def for_fast_dev_run(self) -> "DifficultyRule":
        groups = self.pseudo_labels and replace(self.pseudo_labels, cache=None, looks=1)
        return replace(self, cache=None, pseudo_labels=groups)

    def learns(self) -> GroupedRule | None:
        return self.pseudo_labels

    def offers(self) -> frozenset[Offer]:
        found: list[Offer] = ["scores"]
        if self.pseudo_labels is not None:
            found.append("features")
            if self.pseudo_labels.groups.depth > 1 and self.balanced:
                found.append("tree")
        return frozenset(found)

    def advice(self, needed: Offer) -> str:
        if needed == "tree" and self.pseudo_labels is not None:
            return (
                "Choose such groups, latent@subset.pseudo_labels.latent=hierarchical_kmeans, and subset.balanced=true."
            )
        return super().advice(needed)

    def check_dataset(self, dataset: ImageDataset) -> None:
        if self.pseudo_labels is None:
            dataset.all_labels(f"subset={self.name}", GROUPS)
            return
        self.pseudo_labels.check_dataset(dataset)
        if self.pseudo_labels.groups.number(dataset.num_classes) == 1:
            raise UserError(
                "subset.pseudo_labels makes one group of all images, of which a classifier has nothing to learn. "
                "Choose several, latent@subset.pseudo_labels.latent=kmeans."
            )

    def check_budget(self, budget: Budget) -> None:
        super().check_budget(budget)
        if self.pseudo_labels is not None:
            self.pseudo_labels.check_budget(budget)

    def content_digest(self) -> str:
        return "" if self.pseudo_labels is None else self.pseudo_labels.content_digest()

    def notice(self, ranking: Ranking, fraction: float | None) -> str | None:
        return None if self.pseudo_labels is None else self.pseudo_labels.notice(ranking, fraction)

    def rank(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun] = (), processes: ProcessGroup = ALONE
    ) -> Ranking:
        digests = [proxy.digest for proxy in proxies]
        asked, levels, features, redundant = dataset, None, None, None
        if self.pseudo_labels is not None:
            embedder, *proxies = proxies
            asked, levels = self._relabelled(dataset, proxies)
            features = self.pseudo_labels.features(dataset, embedder, processes)
            redundant = self.pseudo_labels.redundant(features, levels[:, 0])
        labels = asked.all_labels(f"subset={self.name}", GROUPS)
        scores = []
        for proxy in proxies:
            if not proxy.method.classifies:
                raise UserError(
                    f"subset={self.name} asks a classifier, but subset.proxy is {type(proxy.method).__name__}. "
                    "Choose proxy@subset.proxy=supervised, or a run of method=supervised."
                )
            if (other := proxy.config["dataset"]["name"]) != dataset.name:
                raise UserError(
                    f"subset={self.name} asks a classifier of {dataset.name}, but the run of subset.proxy.run was "
                    f"trained on {other}. Choose a run on the same dataset, or set subset.proxy.run=null."
                )
            scores.append(self.difficulty(proxy, asked).cpu())
        score = torch.stack(scores).mean(0).numpy()
        score = score if self.keep == "hardest" else 0 - score
        order = np.lexsort((generator(self.seed, "ties").permutation(len(score)), -score))
        if levels is None:
            levels = labels.numpy()[:, None]
        if not self.balanced:
            levels = np.zeros((len(score), 1), np.int64)
        provenance = self.provenance(dataset, digests)
        if redundant is not None:
            provenance["redundant"] = int(np.count_nonzero(redundant))
        return self.arranged(order, levels, score, provenance, redundant, features)

    def _relabelled(
        self, dataset: ImageDataset, proxies: Sequence[LoadedRun]
    ) -> tuple[ImageDataset, Int64[np.ndarray, "n l"]]:
        """The dataset with the groups that the classifiers have learnt as its labels, and these groups."""
        learnt = [proxy.config["dataset"].get("pseudo_labels") for proxy in proxies]
        if not learnt[0] or any(other != learnt[0] for other in learnt):
            raise UserError(
                f"subset={self.name} asks classifiers of the groups of subset.pseudo_labels, but the run of "
                "subset.proxy.run has learnt other classes. Set subset.proxy.run=null to train one."
            )
        labels: PseudoLabels = make(learnt[0])
        return dataset.relabelled(labels), labels.levels(len(dataset.train().labels))

    def _batches(
        self, proxy: LoadedRun, dataset: ImageDataset, batch_size: int
    ) -> Iterator[tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]]:
        """Un-augmented images of train, normalised for the proxy, which is moved to the device too."""
        device = device_of(self.accelerator)
        proxy.method.to(device)
        mean, std = (torch.tensor(proxy.config["dataset"][key], device=device) for key in ("mean", "std"))
        split = dataset.train()
        labels = split.labels.split(batch_size)
        batches = zip(in_order(split.images, batch_size=batch_size), labels, strict=True)
        for images, some in track(batches, f"{self.name} of each image", len(labels)):
            yield normalise(images.to(device), mean, std), some.to(device)


@dataclass(frozen=True, kw_only=True)
class EL2N(DifficultyRule):
    """By EL2N of un-augmented images after a few epochs of training (arXiv 2107.07075)."""

    name: ClassVar[str] = "el2n"

    def difficulty(self, proxy: LoadedRun, dataset: ImageDataset) -> Float64[Tensor, " n"]:
        method = proxy.method
        with torch.inference_mode():
            batches = self._batches(proxy, dataset, 512)
            return torch.cat([el2n(method.project(method(images)), labels) for images, labels in batches])


@dataclass(frozen=True, kw_only=True)
class GraNd(DifficultyRule):
    """By GraNd of un-augmented images after a few epochs of training (arXiv 2107.07075).

    Args:
        chunk: images whose gradients are held at once; each takes as much memory as the parameters.
    """

    chunk: Annotated[int, Gt(0), Speed] = 32

    name: ClassVar[str] = "grand"

    def difficulty(self, proxy: LoadedRun, dataset: ImageDataset) -> Float64[Tensor, " n"]:
        method = proxy.method.requires_grad_(True)
        batches = self._batches(proxy, dataset, self.chunk)
        return torch.cat([grand(method, images, labels, self.chunk) for images, labels in batches])
