"""What a run has trained, loaded again."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssl_lightning.config.check import check_component
from ssl_lightning.errors import UserError
from ssl_lightning.runs.run import Run

if TYPE_CHECKING:
    from ssl_lightning.methods.method import SSLMethod
    from ssl_lightning.models.encoder import Encoder


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


def checkpoint_of(run_folder: str | Path) -> Path:
    """The last checkpoint of a run that has one."""
    run = Run(Path(run_folder))
    if not run.checkpoint.exists() or not run.config_file.exists():
        raise UserError(
            f"{run.folder} is no run that has trained: it has no config.yaml or no checkpoints/last.ckpt. "
            "Give the folder of one run, such as runs/<sweep>/<run>."
        )
    return run.checkpoint


def load_run(run_folder: str | Path) -> LoadedRun:
    """What a run has trained.

    Only the method of its config is made, which may only name components of the kinds that a method consists of, and
    its checkpoint may only hold tensors and plain values, so loading a foreign run executes none of its content.
    """
    import torch

    checkpoint = torch.load(checkpoint_of(run_folder), map_location="cpu", weights_only=True)
    config = Run(Path(run_folder)).config()
    check_component(config["method"], "ssl_lightning.methods.method.SSLMethod", "method")
    loaded = untrained(config)
    loaded.method.load_state_dict(checkpoint["state_dict"])
    return loaded._replace(checkpoint=checkpoint)


def untrained(config: dict[str, Any]) -> LoadedRun:
    """The method of a resolved config as it is before training, and no checkpoint."""
    from hydra.utils import instantiate

    method = instantiate(config["method"])
    return LoadedRun(method.requires_grad_(False).eval(), config, {})


def load_encoder(run_folder: str | Path) -> "Encoder":
    """The frozen encoder of a run: an `Encoder`, in eval mode, on the CPU. As safe as `load_run`."""
    from ssl_lightning.models.encoder import Encoder

    method, config, *_ = load_run(run_folder)
    return Encoder(method, config["dataset"]["mean"], config["dataset"]["std"], method.project)
