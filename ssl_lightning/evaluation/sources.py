"""Frozen encoders, of runs and from elsewhere."""

import hashlib
import pickle
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from annotated_types import Gt, Le
from torch import nn

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import explained
from ssl_lightning.known_errors import DEBUG
from ssl_lightning.models.encoder import Encoder
from ssl_lightning.ranges import Share


class EncoderSource(ABC):
    """Where a frozen encoder comes from."""

    @abstractmethod
    def load(self) -> Encoder:
        """The encoder, on the CPU. Executes nothing that comes with the weights."""

    @abstractmethod
    def name(self) -> str:
        """For messages and folders."""

    def run_folder(self) -> Path | None:
        """The run that it belongs to, if any."""
        return None

    def dataset(self) -> dict[str, Any] | None:
        """Config of the dataset that it was trained on, where that is known."""
        return None

    def untrained(self) -> Encoder | None:
        """The encoder as it was before training, where that is known."""
        return None


def encoder_digest(encoder: Encoder) -> str:
    """Sixteen digits that change with architecture, weights, normalisation and the size of the images."""
    digest = hashlib.sha256(f"{encoder.size} {encoder.network}".encode())
    for name, value in encoder.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def check_weights(encoder: Encoder | None, name: str) -> None:
    """
    Raises:
        UserError: some weights of the encoder of this name are not finite: nothing can be learned from what it gives.
    """
    weights = [] if encoder is None else list(encoder.network.named_parameters())
    if broken := [key for key, weight in weights if not weight.isfinite().all()]:
        raise UserError(
            f"{name} has weights that are not finite: {broken[0]} and so on, {len(broken)} of {len(weights)} tensors. "
            "Its training has diverged, or they were damaged since. Choose another encoder, or train it again."
        )


@dataclass(frozen=True, kw_only=True)
class RunEncoder(EncoderSource):
    """What a run has trained.

    Args:
        run: its folder, or a checkpoint in it.
        trusted: modules besides the known ones that it may name, where you know them: `my_package`.
    """

    run: str | None
    trusted: Sequence[str] = ()

    def run_folder(self) -> Path:
        if self.run is None:
            raise UserError("run has no value: give the folder of a run, run=runs/<sweep>/<run>, or choose encoder=...")
        path = Path(self.run)
        if path.suffix != ".ckpt":
            return path
        if path.name != "last.ckpt":
            raise UserError(f"run={self.run}: of a run, only checkpoints/last.ckpt is read. Give the run's folder.")
        return path.parent.parent

    def load(self) -> Encoder:
        from ssl_lightning.runs.loading import load_encoder

        return load_encoder(self.run_folder(), self.trusted)

    def untrained(self) -> Encoder:
        from ssl_lightning.runs.loading import untrained_encoder

        return untrained_encoder(self.run_folder(), self.trusted)

    def name(self) -> str:
        return self.run_folder().name

    def dataset(self) -> dict[str, Any]:
        from ssl_lightning.runs.loading import checkpoint_of, config_of

        checkpoint_of(self.run_folder())  # says what is missing
        config = config_of(self.run_folder(), self.trusted)
        return config["dataset"]  # checked: nothing else than a dataset will be made of it


@dataclass(frozen=True, kw_only=True)
class TorchvisionEncoder(EncoderSource):
    """A classification network of torchvision, up to its last linear layer.

    Args:
        architecture: such as resnet50 or vit_b_16.
        weights: name of torchvision's weights (downloaded), a file with a state dict, or None: random.
        size: side in pixels to which images are resampled.
        mean, std: normalisation, of values in [0, 1].
    """

    architecture: str
    weights: str | None
    size: Annotated[int, Gt(0)]
    mean: Sequence[Share]
    std: Sequence[Annotated[float, Gt(0), Le(1)]]

    def name(self) -> str:
        return self.architecture

    def load(self) -> Encoder:
        from torchvision.models import get_model, list_models

        if self.architecture not in list_models():
            from ssl_lightning.config.messages import nearest

            known = nearest(self.architecture, list_models())
            raise UserError(f"encoder.architecture is {self.architecture!r}, which torchvision does not know; {known}")
        file = self.weights is not None and Path(self.weights).is_file()
        try:
            network = get_model(self.architecture, weights=None if file else self.weights)
        except (KeyError, ValueError, OSError) as error:  # an unknown name, or no network
            raise UserError(
                f"encoder.weights={self.weights} of {self.architecture} cannot be had ({error}). Give a name of "
                "torchvision's weights, a file with a state dict, or null."
            ) from error
        if file:
            _load_state(network, str(self.weights))
        if not (linear := [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]):
            raise UserError(f"encoder.architecture={self.architecture} ends in no linear classifier. Choose another.")
        network.set_submodule(linear[-1], nn.Identity())
        _check_size(network, self.architecture, self.size, len(self.mean))
        return Encoder(network, self.mean, self.std, size=self.size)


@dataclass(frozen=True, kw_only=True)
class TimmEncoder(EncoderSource):
    """A network of timm (`pip install 'ssl-lightning[timm]'`), without its classifier, normalised as its weights want.

    Args:
        architecture: timm's name, such as vit_small_patch16_224.dino.
        pretrained: download the weights that belong to the name.
        checkpoint: a file with a state dict instead.
        size: side in pixels to which images are resampled.
    """

    architecture: str
    pretrained: bool
    checkpoint: str | None
    size: Annotated[int, Gt(0)]

    def name(self) -> str:
        return self.architecture

    def load(self) -> Encoder:
        try:
            import timm
        except ImportError:
            raise UserError("encoder=timm needs timm: pip install 'ssl-lightning[timm]'") from None
        try:
            network: Any = timm.create_model(
                self.architecture, self.pretrained and self.checkpoint is None, num_classes=0
            )
        except Exception as error:  # unknown names, hubs that do not answer: of many kinds
            raise UserError(
                f"encoder.architecture={self.architecture}: timm cannot make it ({error}). "
                "Check the name, or give encoder.pretrained=false and encoder.checkpoint=<file>."
            ) from error
        if self.checkpoint is not None:
            _load_state(network, self.checkpoint)
        config = network.pretrained_cfg
        _check_size(network, self.architecture, self.size, len(config["mean"]))
        return Encoder(network, config["mean"], config["std"], size=self.size)


def _load_state(network: nn.Module, file: str) -> None:
    """A state dict, or one under the key `state_dict` or `model`, its names after any prefix, such as `module.` or
    `backbone.`; the classifier may be another one or missing."""
    if not Path(file).is_file():
        raise UserError(f"There is no file of weights {file}. Check the path, relative to the working directory.")
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds more than weights, or none; nothing in it was executed. If you trust it, save its weights "
            "alone: torch.save(torch.load(file, weights_only=False)['state_dict'], 'weights.pth')."
        ) from error
    except (OSError, RuntimeError, EOFError) as error:
        raise UserError(f"{file} cannot be read as weights: {explained(error).partition(DEBUG)[0].strip()}") from error
    except Exception as error:  # of many kinds: what is no pickle is read as one
        raise UserError(
            f"{file} is no file of weights: torch.load reads nothing in it. Give one with a state dict, as "
            "torch.save(network.state_dict(), file) writes it."
        ) from error
    for key in ("state_dict", "model"):
        state = state.get(key, state) if isinstance(state, Mapping) else {}
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    own = network.state_dict()
    prefixes = _prefixes(tensors, own)
    prefix = prefixes[0] if prefixes else ""
    if len(prefixes) > 1:
        print(f"{file}: the weights under {prefix!r} are taken, and not those under {prefixes[1:]}.", flush=True)
    given = {name: tensors[prefix + name] for name in own if prefix + name in tensors}
    fitting = {name: value for name, value in given.items() if own[name].shape == value.shape}
    *_, (last, _) = [item for item in network.named_modules() if isinstance(item[1], nn.Linear | nn.Identity)]
    if lacking := [name for name in sorted(own.keys() - fitting.keys()) if not name.startswith(last)]:
        name = next((name for name in lacking if name in given), lacking[0])
        found = (
            f"{name} of shape {[*given[name].shape]} and not {[*own[name].shape]}" if name in given else f"no {name}"
        )
        raise UserError(
            f"{file} holds no weights of this architecture: it holds {found}, and so on: {len(lacking)} of {len(own)} "
            "do not fit. Give the encoder.architecture that it is of; a ViT for images of another size is another one."
        )
    network.load_state_dict(fitting, strict=False)


def _prefixes(state: Iterable[str], own: Collection[str]) -> list[str]:
    """What stands before the names of a network in those of a state dict; several where it is there more than once."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        counts.update(".".join([*parts[:start], ""]) for start in range(len(parts)) if ".".join(parts[start:]) in own)
    return [prefix for prefix, count in counts.items() if count == max(counts.values())]


def _check_size(network: nn.Module, architecture: str, size: int, channels: int) -> None:
    """Vision transformers take images of one size."""
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(1, channels, size, size))
    except Exception as error:  # of many kinds
        raise UserError(
            f"encoder.size is {size}, but {architecture} cannot look at such images: {' '.join(str(error).split())} "
            "Give the encoder.size that it was made for, to which all images are resampled."
        ) from error
