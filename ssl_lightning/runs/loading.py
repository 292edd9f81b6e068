"""What a run has trained, loaded again."""

import pickle
import sys
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssl_lightning.config.check import check_component
from ssl_lightning.config.components import make, refuse_unknown
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.lightning_internals import let_trace
from ssl_lightning.runs.run import Run

if TYPE_CHECKING:
    from ssl_lightning.methods.method import SSLMethod
    from ssl_lightning.models.encoder import Encoder


EXPORTED = "model.safetensors"
"""What ssl-export writes."""
KINDS = {
    "method": "ssl_lightning.methods.method.SSLMethod",
    "dataset": "ssl_lightning.data.dataset.ImageDataset",
}
"""What of a run's config is needed to load it, and of which classes that is."""


class LoadedRun(NamedTuple):
    """A run's method, frozen, in eval mode, on the CPU.

    Args:
        config: resolved.
        checkpoint: what it holds; empty where nothing was trained.
        digest: changes with all that the method depends on.
    """

    method: "SSLMethod"
    config: dict[str, Any]
    checkpoint: dict[str, Any]
    digest: str = ""

    @property
    def train_seconds(self) -> float | None:
        """How long it was trained; None where its checkpoint, which may be somebody else's, does not say so."""
        said: Any = self.checkpoint
        for key in ("callbacks", "Recorder", "train_seconds"):
            said = said.get(key) if isinstance(said, dict) else None
        return said if type(said) is float else None


def checkpoint_of(run_folder: str | Path) -> Path:
    """The last checkpoint of a run that has one."""
    run = Run(Path(run_folder))
    if (run.folder / EXPORTED).exists() and not run.checkpoint.exists():
        raise UserError(
            f"{run.folder} holds what ssl-export has written, and no run: its README.md has the lines that load it."
        )
    if not run.config_file.exists():
        raise UserError(
            f"{run.folder} is no run that has trained: it has no config.yaml. Give the folder of one run, such as "
            "runs/<sweep>/<run>."
        )
    if not run.checkpoint.exists():
        raise UserError(f"{run.folder} {_without_checkpoint(run)}")
    return run.checkpoint


def _without_checkpoint(run: Run) -> str:
    """The state of a run that has none, and what to do about it."""
    lacks = "has no checkpoints/last.ckpt"
    if (status := run.status) == "running":
        return f"is running, and {lacks}. Wait for its first."
    if status == "failed":
        why = f"{run.reason()} (more in its error.txt). Mend that, then start the same ssl-train again."
        return f"has failed, and {lacks}: {why}"
    return f"is {status}, and {lacks}. Start the same ssl-train again, with force=true where it has finished."


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Tensors and plain values, of which none is executed.

    Raises:
        UserError: it is damaged, or no checkpoint.
    """
    content = read_tensors(file)
    if not isinstance(content, dict) or "state_dict" not in content:
        raise _no_checkpoint(file, "it holds no state_dict")
    return content


def read_tensors(file: Path) -> Any:
    """What `torch.save` has written: tensors and plain values, of which none is executed.

    Raises:
        UserError: it is damaged, or holds more.
    """
    import torch

    try:
        if (reason := _damage(file)) is not None:  # torch looks at no checksum
            raise ValueError(reason)
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # of which torch says how to execute it
        reason = "it holds more than tensors and plain values, of which nothing is executed"
        raise _no_checkpoint(file, reason) from error
    except Exception as error:  # torch raises of many kinds
        raise _no_checkpoint(file, in_one_line(error)) from error


def _no_checkpoint(file: Path, reason: str) -> UserError:
    return UserError(
        f"{file} is damaged, or no checkpoint of a run: {reason}. Copy it again; or delete it, and start the same "
        "ssl-train again, with force=true where it has finished, which trains it anew."
    )


def resumable(run: Run) -> Path | None:
    """The checkpoint that an unfinished run goes on from: the last, or where it is damaged the one before.

    Raises:
        UserError: all that there are are damaged.
    """
    damaged: list[str] = []
    for file in (run.checkpoint, run.previous_checkpoint):
        if not file.exists():
            continue
        if (reason := _damage(file)) is None:
            if damaged:
                warning = f"Warning: {damaged[0]}. Going on from the one before it, {file.name}."
                print(warning, file=sys.stderr, flush=True)
            return file
        damaged.append(f"{file} is damaged ({reason})")
    if damaged:
        raise UserError(
            f"{'; '.join(damaged)}. Copy it again; or delete it, and the same command trains from the start."
        )
    return None


def whole_checkpoint(run: Run) -> Path | None:
    """The last checkpoint of a run, where there is one without damage."""
    return run.checkpoint if run.checkpoint.exists() and _damage(run.checkpoint) is None else None


def _damage(file: Path) -> str | None:
    """What is wrong with a checkpoint: its end is missing, or what it holds has not the checksum that it had."""
    try:
        with zipfile.ZipFile(file) as archive:
            broken = archive.testzip()
            return broken and f"{broken} in it has changed"
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        return in_one_line(error)


def load_run(run_folder: str | Path, trusted: Collection[str] | None = ()) -> LoadedRun:
    """What a run has trained.

    Its method may only name components of known modules and of the kinds that a method consists of, and its checkpoint
    only hold tensors and plain values, so loading a foreign run executes none of its content.

    Args:
        run_folder: of a run that has trained.
        trusted: modules of its own that a run may name besides `KNOWN` ones, such as `my_package`; None for a run of
            this user's, which may name any.
    """
    checkpoint = read_checkpoint(checkpoint_of(run_folder))
    loaded = untrained(config_of(run_folder, trusted), trusted)
    loaded.method.load_state_dict(checkpoint["state_dict"])
    return loaded._replace(checkpoint=checkpoint)


def config_of(run_folder: str | Path, trusted: Collection[str] | None = ()) -> dict[str, Any]:
    """The resolved config of a run. Its method and dataset are checked: nothing that they name is imported unless all
    of it may be. The rest, such as callbacks, is not needed to load a run, and may name what is missing here."""
    run = Run(Path(run_folder))
    config = run.config()
    needed = {name: config[name] for name in KINDS}
    refuse_unknown(needed, trusted, str(run.config_file))
    for name, kind in KINDS.items():
        check_component(config[name], kind, name)
    return config


def untrained(config: dict[str, Any], trusted: Collection[str] | None = None) -> LoadedRun:
    """The method of a resolved config as it is before training, and no checkpoint."""
    method = make(config["method"], trusted=trusted)
    return LoadedRun(method.requires_grad_(False).eval(), config, {})


def load_encoder(
    run: str | Path, trusted: Collection[str] | None = (), *, method: "SSLMethod | None" = None
) -> "Encoder":
    """A frozen encoder, in eval mode, on the CPU, with its normalisation. Safety as of `load_run`.

    Args:
        run: folder of a run, or its checkpoints/last.ckpt; or a checkpoint of a plain `L.Trainer`.
        trusted: see `load_run`.
        method: of a plain trainer's checkpoint: made as for that training. It gets the weights, and is frozen.
    """
    from ssl_lightning.models.encoder import Encoder

    if method is not None:
        checkpoint = read_checkpoint(Path(run))
        mean, std, side = _images_of(checkpoint, Path(run))
        try:
            method.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise UserError(f"{run} holds the weights of another method: {in_one_line(error)}.") from error
    else:
        method, config, checkpoint, _ = load_run(folder_of(Path(run)), trusted)
        mean, std, side = (config["dataset"][key] for key in ("mean", "std", "image_size"))
    let_trace(method)
    encoder = Encoder(method, mean, std, method.project, image_size=side)
    steps = checkpoint.get("global_step")  # of somebody else's it may be anything
    encoder.optimizer_steps = steps if type(steps) is int else None
    return encoder


def untrained_encoder(run_folder: str | Path, trusted: Collection[str] | None = ()) -> "Encoder":
    """The encoder of a run as it was before training: of the run's seed. Safety as of `load_run`."""
    import torch

    from ssl_lightning.models.encoder import Encoder

    config = config_of(run_folder, trusted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config["seed"])
        method = untrained(config, trusted).method
    mean, std, side = (config["dataset"][key] for key in ("mean", "std", "image_size"))
    return Encoder(method, mean, std, method.project, image_size=side)


def folder_of(path: Path) -> Path:
    """Of the run that a path names."""
    if path.suffix != ".ckpt":
        return path
    folder = path.absolute().parent.parent
    if path.name == "last.ckpt" and Run(folder).config_file.exists():
        return folder
    raise UserError(
        f"{path} is not the checkpoints/last.ckpt of a run. Give the run's folder; of a checkpoint that a plain "
        f"L.Trainer has made, say what was trained: load_encoder({str(path)!r}, method=SimCLR(...))."
    )


def _images_of(checkpoint: dict[str, Any], file: Path) -> tuple[list[float], list[float], int]:
    """Mean, standard deviation and side of the images that a method was trained on, as `SubsetDataModule` says."""
    said: Any = checkpoint.get("SubsetDataModule")
    mean, std, side = (said.get(key) if isinstance(said, dict) else None for key in ("mean", "std", "image_size"))
    lists = [values for values in (mean, std) if isinstance(values, list) and all(type(x) is float for x in values)]
    if len(lists) != 2 or len(lists[0]) != len(lists[1]) or type(side) is not int:
        raise UserError(
            f"{file} does not say how images were normalised, as one of a training with SubsetDataModule does. "
            "Load it yourself, and say so: Encoder(SimCLR.load_from_checkpoint(file, backbone=...), mean, std)."
        )
    return lists[0], lists[1], side
