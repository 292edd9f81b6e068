"""Whether a component can be made from its settings."""

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any

from ssl_lightning.config.components import locate
from ssl_lightning.config.messages import nearest, origin
from ssl_lightning.config.schema import Component
from ssl_lightning.errors import UserError

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


def check_late(value: Mapping[str, Any], target: type, path: str) -> None:
    """Checks arguments of `target`, late components too."""
    hints = _hints(target)
    for key in value:
        _check_value(value[key], hints[key], f"{path}.{key}", late=True)


def _check_component(value: Any, hint: Any, path: str) -> None:
    """Whether a component makes what is wanted: an instance of a class or, where the hint is a Callable, with
    `_partial_: true`, something that returns one. Nothing else is ever imported and called."""
    if not isinstance(value, dict) or "_target_" not in value:
        raise UserError(
            f"{path} is {value!r}{origin(path)}, but a component is needed: a mapping with a _target_. "
            "Choose one by the name of an option, or write _target_: module.Class."
        )
    try:
        target = locate(value["_target_"])
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
