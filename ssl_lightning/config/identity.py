"""What tells runs, rankings and proxies apart: one walk over settings and the signatures that take them.

What cannot change a result is marked where the parameter is declared (`config.markers`); there is no list of keys.
"""

import contextlib
import hashlib
import inspect
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_origin

from ssl_lightning.config.components import locate, own_modules
from ssl_lightning.config.markers import IRRELEVANT, Content, Marker, Place, Seed, Unset, hints_of, marker_of
from ssl_lightning.config.schema import Component, TrainConfig


def digest_of(content: Any) -> str:
    """SHA-256 of plain values, in hex."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def marked(value: Mapping[str, Any], target: Callable[..., Any], path: str = "") -> Iterator[tuple[str, Marker]]:
    """Dotted keys of a resolved config whose parameters carry a marker.

    Args:
        value: the settings that `target`, a class, dataclass or function, would be called with.
    """
    hints = hints_of(target)
    for key, item in value.items():
        marker = marker_of(hints.get(key))
        if item is None and marker in (Unset, Content):
            yield path + key, Place
        elif marker and marker is not Unset:
            yield path + key, marker
            if marker is Content and isinstance(item, Mapping):  # of another run, whose own keys tell cells apart
                yield from marked(item, TrainConfig, f"{path}{key}.")
        elif not key.startswith("_"):
            yield from _inside(item, hints.get(key), path + key)


def _inside(value: Any, hint: Any, path: str) -> Iterator[tuple[str, Marker]]:
    component = next((item for item in getattr(hint, "__metadata__", ()) if isinstance(item, Component)), None)
    if isinstance(value, Mapping) and "_target_" in value:
        target = locate(value["_target_"])
        if component and component.optional_for_result and not changes_training(target):
            yield path, Place
            return
        beside = component.beside if component else None
        own = hints_of(beside) if beside else {}
        yield from marked({key: item for key, item in value.items() if key not in own}, target, f"{path}.")
        if beside is not None:
            yield from marked({key: item for key, item in value.items() if key in own}, beside, f"{path}.")
    elif isinstance(value, Mapping) and component:  # a part of one, as in a proxy's settings
        yield from marked(value, locate(component.kind), f"{path}.")
    elif isinstance(value, Mapping):
        inner = get_args(hint)[1] if get_origin(hint) is dict else hint
        if is_dataclass(inner) and get_origin(hint) is not dict:
            yield from marked(value, inner, f"{path}.")  # type: ignore[arg-type]
        else:
            for key, item in value.items():
                yield from _inside(item, inner, f"{path}.{key}")
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from _inside(item, None, f"{path}.{i}")


def changes_training(callback: type) -> bool:
    """Whether a callback can change the weights: it says so itself (`changes_training`). Of Lightning's own, those
    that average, freeze, prune or schedule, or end training; of others that say nothing, any."""
    if (said := getattr(callback, "changes_training", None)) is not None:
        return bool(said)
    if not callback.__module__.startswith("lightning."):
        return True
    from lightning.pytorch import callbacks

    kinds = (
        callbacks.WeightAveraging,
        callbacks.StochasticWeightAveraging,
        callbacks.GradientAccumulationScheduler,
        callbacks.EarlyStopping,
        callbacks.BaseFinetuning,
        callbacks.ModelPruning,
        callbacks.LearningRateFinder,
        callbacks.BatchSizeFinder,
        callbacks.Timer,
    )
    return issubclass(callback, kinds)


def without(config: Mapping[str, Any], keys: Iterator[str] | list[str]) -> dict[str, Any]:
    """A copy of a config that lacks some dotted keys."""
    rest = deepcopy(dict(config))
    for key in keys:
        *parents, last = key.split(".")
        node: Any = rest
        for parent in parents:
            if isinstance(node, list):
                node = node[int(parent)] if parent.isdecimal() and int(parent) < len(node) else None
            else:
                node = node.get(parent) if isinstance(node, dict) else None
        if isinstance(node, dict):
            node.pop(last, None)
    return rest


def run_digest(config: Mapping[str, Any], schema: type, contents: Mapping[str, Any]) -> str:
    """Eight hex digits that tell runs apart whose encoders may differ.

    Args:
        config: resolved config.
        schema: what it was checked against.
        contents: what the config does not say but the encoder depends on: digests of data, processes, device.
    """
    relevant = _relevant(config, schema)
    return digest_of({"config": relevant, "contents": dict(contents), "sources": sources(relevant)})[:8]


def code_digest(config: Mapping[str, Any], schema: type) -> str:
    """Of the user's own code that an encoder depends on; empty where it depends on none."""
    found = sources(_relevant(config, schema))
    return digest_of(found)[:16] if found else ""


def _relevant(config: Mapping[str, Any], schema: type) -> dict[str, Any]:
    relevant = without(config, [key for key, marker in marked(config, schema) if marker in (*IRRELEVANT, Content)])
    if "compile" in relevant and relevant["compile"] is None:
        relevant["compile"] = False  # as it was written before there were modes: runs keep their names
    return relevant


def sources(value: Any) -> dict[str, str]:
    """Digests of the source files of components from outside of the package and the libraries that it is made for, and
    of the classes that these derive from."""
    found: dict[str, str] = {}
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    for item in items:
        found |= sources(item)
    target = value.get("_target_") if isinstance(value, Mapping) else None
    if target and own_modules({"_target_": target}):
        found |= _sources_of(inspect.unwrap(locate(target)))
    return found


def _sources_of(made: Any) -> dict[str, str]:
    found = {}
    for one in made.__mro__ if isinstance(made, type) else (made,):
        name = f"{one.__module__}.{one.__qualname__}"
        if one.__module__.partition(".")[0] not in sys.stdlib_module_names and own_modules({"_target_": name}):
            with contextlib.suppress(TypeError, OSError):  # what is compiled, or was typed at a prompt
                file = inspect.getsourcefile(one)
                found[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""
    return found


def described(value: Any) -> Any:
    """What counts of an object that a dataclass describes, as plain values: fields with a marker left out, but seeds,
    and what is `Unset` where it is set; of a user's own class, also its source.

    An object may say it itself: `describe()`.
    """
    if hasattr(value, "describe"):
        return value.describe()
    if is_dataclass(value) and not isinstance(value, type):
        hints = hints_of(type(value))
        kept = {f.name: marker_of(hints.get(f.name)) for f in fields(value) if f.init}
        unset = [name for name, marker in kept.items() if marker is Unset and getattr(value, name) is None]
        counting = [name for name, marker in kept.items() if marker in (None, Seed, Unset) and name not in unset]
        code = {"code": digest_of(found)[:16]} if (found := _sources_of(type(value))) else {}
        return {"name": type(value).__name__} | {name: described(getattr(value, name)) for name in counting} | code
    return list(value) if isinstance(value, tuple) else value


def contents_of(config: Mapping[str, Any], read: Mapping[str, str]) -> dict[str, str]:
    """What the run of a resolved config is identified by that the config does not hold, as an `Identity` keeps it.

    Args:
        read: digests of what it reads, empty where they are of nothing in particular.
    """
    digests = {**read, "code": code_digest(config, TrainConfig)}
    return {key: digest[:8] for key, digest in digests.items() if digest}


def component_name(config: Mapping[str, Any]) -> str:
    """`SimCLR` -> simclr; a wrapper names what it wraps, as in gessl-directclr."""
    name = config["_target_"].rpartition(".")[2].lower()
    base = config.get("base")
    return f"{name}-{component_name(base)}" if base else name
