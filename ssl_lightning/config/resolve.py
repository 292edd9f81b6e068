"""A composed config as plain values, checked."""

import os
import typing
from copy import deepcopy
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lightning.config.check import check
from ssl_lightning.config.messages import nearest
from ssl_lightning.config.places import CONF
from ssl_lightning.config.schema import NAMED_COMPONENTS, TrainConfig
from ssl_lightning.errors import UserError
from ssl_lightning.lightning_internals import group_options, load_option

STEMS = ((48, "cifar"), (112, "stl"))
"""Sides of images, in pixels, up to which a backbone has this stem; beyond, it has that for ImageNet."""


def resolve(config: DictConfig, schema: type = TrainConfig) -> dict[str, Any]:
    """The config as plain values: named components filled in, interpolations resolved, everything validated.

    Raises UserError that names the key, where it was written, and the nearest valid key.
    """
    plain = filled(config)
    check(plain, schema)
    return plain


def filled(config: DictConfig) -> dict[str, Any]:
    """As `resolve`, but nothing is validated, and no component is imported.

    Raises UserError that names a key without a value.
    """
    config = deepcopy(config)
    OmegaConf.set_struct(config, False)
    _fill_named_components(config)
    _choose_stem(config)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} has no value: give it one, for instance {missing[0]}=... .")
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    return typing.cast(dict[str, Any], _paths(plain))


def _paths(value: Any, path: str = "") -> Any:
    """With paths that begin with ~ in full, as a shell writes them where they stand alone.

    Raises:
        UserError: one is not UTF-8, as no YAML or JSON file can hold it.
    """
    if isinstance(value, dict):
        return {key: _paths(item, f"{path}.{key}" if path else str(key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_paths(item, f"{path}.{i}") for i, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    value = os.path.expanduser(value) if value.startswith("~") else value
    if any("\ud800" <= letter <= "\udfff" for letter in value):
        raise UserError(f"{path} is {value!r}, a name that is not UTF-8. Rename it, or give a link to it.")
    return value


def _choose_stem(config: DictConfig) -> None:
    """A stem that is `auto`, or that a dataset does not name, becomes that for the size of its images. Before anything
    is told apart: a run is the same, whichever way its stem was chosen."""
    for path in ("dataset", "backbone"):
        node, size = OmegaConf.select(config, path), OmegaConf.select(config, "dataset.image_size")
        if not isinstance(node, DictConfig) or not isinstance(size, int):
            continue
        unnamed = path == "dataset" and "stem" not in node
        if unnamed or (not OmegaConf.is_interpolation(node, "stem") and node.get("stem") == "auto"):
            node.stem = next((stem for side, stem in STEMS if size <= side), "imagenet")


def _fill_named_components(node: Any) -> None:
    """Replaces strings under `NAMED_COMPONENTS` in components by the option of that name."""
    if not isinstance(node, DictConfig):
        return
    for key in list(node):
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        value = node[key]
        if "_target_" in node and key in NAMED_COMPONENTS and isinstance(value, str):
            node[key] = _option(NAMED_COMPONENTS[str(key)], value)
        if key in NAMED_COMPONENTS and node[key] == {}:  # an option that is what goes without saying
            node[key] = None
        _fill_named_components(node[key])


def _option(group: str, name: str) -> DictConfig:
    """The composed option of a group, interpolations unresolved."""
    from ssl_lightning.config.hydra import configs_in

    options = group_options(group)
    if options is None:
        with configs_in(CONF):
            return _option(group, name)
    if name not in options:
        raise UserError(f"{group} {name!r}: there is no such option; {nearest(name, options)}")
    option = load_option(group, name)
    OmegaConf.set_struct(option, False)
    return option
