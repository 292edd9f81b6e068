"""The one place where configs become objects."""

import logging
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ssl_lightning.config.markers import hints_of
from ssl_lightning.errors import UserError, user_error_in

KNOWN = ("ssl_lightning", "torch.nn", "torch.optim", "torchvision", "torchmetrics", "lightning")
"""Modules that any config may name, also one that somebody else has written."""
MADE = (
    *("torch.nn.Module", "torch.optim.Optimizer", "ssl_lightning.data.dataset.ImageDataset"),
    *("ssl_lightning.optim.recipe.OptimizerRecipe", "ssl_lightning.optim.schedule.Schedule"),
    *("ssl_lightning.optim.schedule.OneCycle", "ssl_lightning.data.nuisance.Nuisance"),
    "ssl_lightning.data.pseudo_labels.PseudoLabels",
)
"""Classes of what a run's method and dataset consist of. Of known modules, nothing else is made of somebody else's
config: they hold functions, too, that write files."""


def make(config: Any, *, trusted: Collection[str] | None = None, **more: Any) -> Any:
    """The object that a resolved config describes: its `_target_`, called with the other keys.

    Args:
        config: plain values, as `resolve` returns them.
        trusted: modules that it may name besides `KNOWN`, such as `my_package`; None where the config is the user's
            own, which may name any.
        more: further arguments.

    Raises:
        UserError: it names something else. Nothing was made by then.
    """
    from hydra.utils import instantiate

    refuse_unknown(config, trusted)
    # Else lists, mappings, and dataclasses in them, would reach constructors as OmegaConf's nodes.
    try:
        return instantiate(config, **{"_convert_": "object", **more}, **_whitelist(config, trusted))
    except Exception as error:
        if (mistake := user_error_in(error)) is not None:  # as a component has raised it
            raise mistake from None
        raise


def locate(target: str) -> Any:
    """What a `_target_` names; imports what it needs. Raises whatever that raises, and prints nothing."""
    from hydra.utils import get_object

    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would print what is raised here
    return get_object(target)


def refuse_unknown(config: Any, trusted: Collection[str] | None = (), where: str = "the config") -> None:
    """Looks at every `_target_` anywhere in a config, whatever takes it; imports nothing before all names are known.

    Args:
        config: plain values; interpolations resolved.
        trusted: see `make`.
        where: the config is, for the message.

    Raises:
        UserError: names the first that is in no known module, or is defined in none.
    """
    named = [(f"{path}._target_".lstrip("."), target) for path, target in targets(config)]
    for path, target in named:
        if not isinstance(target, str):
            raise UserError(f"{path} in {where} is {target!r}: give the name of a class or function, module.Class.")
        if trusted is not None and not _within(target, (*KNOWN, *trusted)):
            raise _foreign(f"{path} in {where} is {target!r}", target)
    if trusted is None:
        return
    for path, text in _texts(config):
        if "${" in text:  # Hydra would resolve it, and make a component of what comes out
            raise UserError(f"{path} in {where} is {text!r}, an interpolation, which a run's config never holds.")
    for path, target in named:
        home = _home(target)
        if home is not None and not _within(home, (*KNOWN, *trusted)):
            raise _foreign(f"{path} in {where} is {target!r}, which is {home}", home)
        if home is not None and not _within(home, trusted) and not _makes_a_part(locate(target)):
            raise UserError(
                f"{path} in {where} is {target!r}, which makes no part of a method or dataset. A run may come from "
                "anywhere, so loading one calls nothing else."
            )


def own_modules(config: Any) -> set[str]:
    """Top-level modules, besides `KNOWN`, of what a config names."""
    return {str(target).partition(".")[0] for _, target in targets(config) if not _within(str(target), KNOWN)}


def targets(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and `_target_` of every component in plain values, of those in `_args_` and other lists too."""
    if isinstance(config, Mapping) and "_target_" in config:
        yield path, config["_target_"]
    for key, value in _children(config):
        yield from targets(value, f"{path}.{key}" if path else key)


def _texts(config: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(config, str):
        yield path, config
    for key, value in _children(config):
        yield from _texts(value, f"{path}.{key}" if path else key)


def _children(config: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping):
        yield from ((str(key), config[key]) for key in config)
    elif isinstance(config, Sequence) and not isinstance(config, str | bytes):
        yield from ((str(i), value) for i, value in enumerate(config))


def _within(name: str, modules: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _makes_a_part(found: Any) -> bool:
    made = found if isinstance(found, type) else hints_of(found).get("return")
    made = typing.get_origin(made) or made
    return isinstance(made, type) and issubclass(made, tuple(locate(kind) for kind in MADE))


def _home(target: str) -> str | None:
    """The full name of a target where it is defined, which is not always where its name says: some module's
    `os.remove` is that of os. None where it cannot be imported, which is reported by who needs it."""
    try:
        found = locate(target)
    except Exception:
        return None
    named = found if hasattr(found, "__qualname__") else type(found)
    return f"{named.__module__}.{named.__qualname__}"


def _foreign(what: str, target: str) -> UserError:
    module = target.partition(".")[0]
    return UserError(
        f"{what}. A run may come from anywhere, so loading one executes nothing but {', '.join(KNOWN)}. "
        f"If {module} is a package of your own, say so: load_encoder(folder, trusted=[{module!r}]), or "
        f"ssl-evaluate encoder.trusted=[{module}]."
    )


def _whitelist(config: Any, trusted: Collection[str] | None) -> dict[str, Any]:
    """What Hydra 1.4 wants to be told about targets; 1.3 does not ask.

    It would also look at what targets return, but a user's own function may return a network of any library.
    """
    from hydra import utils

    unlimited = getattr(utils, "UNSAFE_DISABLE_EXECUTION_CHECKS", None)
    if unlimited is None:
        return {}
    if trusted is None and own_modules(config):
        return {"_execution_whitelist_": unlimited}
    return {"_execution_whitelist_": [f"{module}.*" for module in (*KNOWN, *(trusted or ()))]}
