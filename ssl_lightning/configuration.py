"""What a run consists of: the schema, its validation with nearest keys, and the identity of a run.

Every component is a `_target_` whose signature is its schema: keys must be its parameters and values must fit their
annotations. The rest (`TrainConfig`, `Paths`, `Checkpointing`) is checked in the same way, as a dataclass is called
with its fields. So a key that nobody reads is an error wherever it was written: on the command line, with or without
`+`, or in a YAML file.
"""

import hashlib
import inspect
import json
import logging
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt
from omegaconf import DictConfig, OmegaConf

from ssl_lightning.errors import UserError
from ssl_lightning.keys import nearest, origin

PACKAGE = Path(__file__).parent
_TOP = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
CONF, SWEEPS = _TOP / "conf", _TOP / "sweeps"

NAMED_COMPONENTS = {"base": "method", "projector": "projector", "latent": "latent", "proxy": "proxy"}
"""Keys inside a component that also accept the name of an option of a group: `method.base=directclr`."""

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


@dataclass(frozen=True)
class Component:
    """Marks a field of the schema as a mapping with a `_target_` that makes an instance of the class `kind`.

    A `late` one is not imported and checked before `check_late` is called, when it is known to be needed: provided
    that nothing makes it before, so the component whose argument it is has `_recursive_: false`.
    """

    kind: str
    late: bool = False


@dataclass
class Paths:
    runs: str
    data: str
    cache: str


@dataclass
class Checkpointing:
    every_minutes: Annotated[float, Ge(0)]
    every_steps: Annotated[int, Gt(0)] | None


@dataclass
class TrainConfig:
    """`conf/train.yaml`; see there for what each key means."""

    seed: Annotated[int, Ge(0)]
    sweep: str
    batch_size: Annotated[int, Gt(0)]
    budget: Literal["epochs", "steps"]
    compile: bool
    float32_matmul: Literal["highest", "high", "medium"]
    channels_last: bool
    debug: bool
    backbone: Annotated[Any, Component("torch.nn.Module")]
    dataset: Annotated[Any, Component("ssl_lightning.data.datasets.ImageDataset")]
    subset: Annotated[Any, Component("ssl_lightning.subsets.mask.SubsetRule")]
    augment: Annotated[Any, Component("ssl_lightning.data.views.Views")]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe")]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod")]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer")]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite")]
    callbacks: dict[str, Annotated[Any, Component("lightning.pytorch.Callback")]]
    logger: dict[str, Annotated[Any, Component("lightning.pytorch.loggers.Logger")]]
    checkpoint: Checkpointing
    paths: Paths


@dataclass
class SelectConfig(TrainConfig):
    """`conf/select.yaml`: the same, but what only a training needs is not looked at."""

    backbone: Annotated[Any, Component("torch.nn.Module", late=True)]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe", late=True)]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod", late=True)]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer", late=True)]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite", late=True)]
    callbacks: dict[str, Annotated[Any, Component("lightning.pytorch.Callback", late=True)]]
    logger: dict[str, Annotated[Any, Component("lightning.pytorch.loggers.Logger", late=True)]]


@dataclass
class EvaluateConfig:
    """`conf/evaluate.yaml`; see there for what each key means."""

    run: str | None
    batch_size: Annotated[int, Gt(0)]
    debug: bool
    encoder: Annotated[Any, Component("ssl_lightning.evaluation.encoders.EncoderSource")]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite")]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer", late=True)]
    paths: Paths
    dataset: Annotated[Any, Component("ssl_lightning.data.datasets.ImageDataset")] = None


IRRELEVANT = (
    "sweep",
    "debug",
    "paths",
    "logger",
    "checkpoint",
    "evaluation",
    "callbacks.online_probe",
    "dataset.root",
    "dataset.cache",
    "dataset.download",
    "dataset.storage",
    "dataset.resident_gib",
    "dataset.workers",
    "subset.cache",
    "subset.accelerator",
    "subset.memory_gib",
    *(f"subset.proxy.dataset.{key}" for key in ("root", "cache", "download", "storage", "resident_gib", "workers")),
    *(f"subset.proxy.{key}" for key in ("paths", "evaluation", "checkpoint")),
    *(f"subset.proxy.{key}" for key in ("accelerator", "enable_progress_bar", "fast_dev_run")),
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.strategy",
    "trainer.default_root_dir",
)
"""Keys that cannot change the encoder that a run trains: no part of its identity."""

FILES = ("subset.path",)
"""Keys of files whose content, wherever it lies, is part of a run's identity; their names tell the cells of a report
apart, which know no contents."""

SEEDS = ("seed", "subset.seed", "subset.proxy.seed")
"""Keys in which the runs of one cell of a report differ."""


def resolve(config: DictConfig, schema: type = TrainConfig) -> dict[str, Any]:
    """The config as plain values: named components filled in, interpolations resolved, everything validated.

    Raises UserError that names the key, where it was written, and the nearest valid key.
    """
    config = deepcopy(config)
    OmegaConf.set_struct(config, False)
    _fill_named_components(config)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} has no value: give it one, for instance {missing[0]}=... .")
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    named = typing.cast(dict[str, Any], plain)
    _check_call(named, schema, "")
    return named


def check_late(value: Mapping[str, Any], target: type, path: str) -> None:
    """Checks arguments of `target`, late components too."""
    hints = _hints(target)
    for key in value:
        _check_value(value[key], hints[key], f"{path}.{key}", late=True)


def identity(config: Mapping[str, Any], contents: Mapping[str, Any], ignore: Iterable[str] = ()) -> str:
    """Eight hex digits that tell runs apart whose encoders may differ.

    Args:
        config: resolved config.
        contents: what the config does not say but the encoder depends on: hashes of data, processes, device.
        ignore: further keys to leave out, dotted.
    """
    relevant = deepcopy(dict(config))
    for key in (*IRRELEVANT, *ignore):
        *parents, last = key.split(".")
        node: Any = relevant
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(last, None)
    text = json.dumps({"config": relevant, "contents": dict(contents)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def component_name(config: Mapping[str, Any]) -> str:
    """`SimCLR` -> simclr; a wrapper names what it wraps, as in gessl-directclr."""
    name = config["_target_"].rpartition(".")[2].lower()
    base = config.get("base")
    return f"{name}-{component_name(base)}" if base else name


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
        _fill_named_components(node[key])


def _option(group: str, name: str) -> DictConfig:
    """The composed option of a group, interpolations unresolved."""
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import RunMode

    running = GlobalHydra.instance()
    loader = running.config_loader() if running.is_initialized() else None
    if loader is None:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return _option(group, name)
    options = loader.get_group_options(group)
    if name not in options:
        raise UserError(f"{group} {name!r}: there is no such option; {nearest(name, options)}")
    config = loader.load_configuration(f"{group}/{name}", overrides=[], run_mode=RunMode.RUN)
    option = config[group]
    OmegaConf.set_struct(option, False)
    return typing.cast(DictConfig, option)


def _check_component(value: Any, hint: Any, path: str) -> None:
    """Whether a component makes what is wanted: an instance of a class or, where the hint is a Callable, with
    `_partial_: true`, something that returns one. Nothing else is ever imported and called."""
    from hydra.utils import get_object

    if not isinstance(value, dict) or "_target_" not in value:
        raise UserError(
            f"{path} is {value!r}{origin(path)}, but a component is needed: a mapping with a _target_. "
            "Choose one by the name of an option, or write _target_: module.Class."
        )
    logging.getLogger("hydra.utils").setLevel(logging.CRITICAL)  # it would print what is raised here
    try:
        target = get_object(value["_target_"])
    except Exception as error:
        raise UserError(
            f"{path}._target_ is {value['_target_']!r}{origin(path + '._target_')}, which cannot be imported: "
            + " ".join(str(error).split())
        ) from error
    partial = typing.get_origin(hint) is Callable
    wanted = _classes(typing.get_args(hint)[1] if partial else hint)
    made = target if isinstance(target, type) else _hints(target).get("return")
    made = typing.get_origin(made) or made
    if not (isinstance(made, type) and issubclass(made, wanted)):
        names = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in wanted) or "component"
        raise UserError(
            f"{path}._target_ is {value['_target_']!r}{origin(path + '._target_')}, which does not make a {names} "
            "(a function must be annotated with what it returns)."
        )
    if bool(value.get("_partial_")) != partial:
        raise UserError(
            f"{path} must{'' if partial else ' not'} have _partial_: true{origin(path)}: what it makes is wanted "
            f"{'later, by a call' if partial else 'at once'}."
        )
    _check_call(value, target, path)


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes in a hint such as `A`, `A | None` or `Sequence[A] | str`."""
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return () if hint is type(None) else (hint,)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(kind for part in typing.get_args(hint) for kind in _classes(part))
    return ()


def _check_call(value: Mapping[str, Any], target: Callable[..., Any], path: str) -> None:
    """Whether `target` can be called with these keys and values."""
    parameters = inspect.signature(target).parameters
    hints = _hints(target)
    catch_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    prefix = f"{path}." if path else ""
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key in value:
        if key not in named and key not in _HYDRA_KEYS and not catch_all:
            known = [prefix + name for name in named]
            raise UserError(f"unknown key '{prefix}{key}'{origin(prefix + key)}; {nearest(prefix + key, known)}")
    at_once = "_target_" in value and value.get("_recursive_", True)
    for key in named:
        if key in value:
            _check_value(value[key], hints.get(key, Any), prefix + key, late=at_once)
        elif parameters[key].default is inspect.Parameter.empty and not value.get("_partial_"):
            raise UserError(f"{prefix}{key} has no value{origin(path)}: give it one.")


def _check_value(value: Any, hint: Any, path: str, late: bool = False) -> None:
    import pydantic

    if typing.get_origin(hint) is Annotated and isinstance(hint.__metadata__[0], Component):
        from hydra.utils import get_class

        if late or not hint.__metadata__[0].late:
            _check_component(value, get_class(hint.__metadata__[0].kind), path)
    elif typing.get_origin(hint) is dict and isinstance(value, dict):
        for key, item in value.items():
            _check_value(item, typing.get_args(hint)[1], f"{path}.{key}", late)
    elif isinstance(value, dict) and "_target_" in value:
        _check_component(value, hint, path)
    elif isinstance(value, dict) and is_dataclass(hint):
        _check_call(value, typing.cast(Any, hint), path)
    elif isinstance(value, list) and any(isinstance(item, dict) and "_target_" in item for item in value):
        for i, item in enumerate(value):
            _check_value(item, (typing.get_args(hint) or (Any,))[0], f"{path}.{i}")
    else:
        try:
            checker = pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True, "strict": True})
        except (pydantic.errors.PydanticUserError, TypeError):  # the config of a dataclass, or an odd annotation
            checker = pydantic.TypeAdapter(hint)
        try:
            if isinstance(value, list) and "tuple" in str(hint).lower():
                value = tuple(value)  # YAML knows no tuples
            checker.validate_python(value)
        except pydantic.ValidationError as error:
            message = error.errors()[0]["msg"].replace("Input should", "it should")
            raise UserError(f"{path} is {value!r}{origin(path)}, but {message}.") from None


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    try:
        called: Any = target
        return typing.get_type_hints(called.__init__ if isinstance(target, type) else called, include_extras=True)
    except Exception:  # annotations of other libraries that cannot be evaluated: keys are still checked
        return {}
