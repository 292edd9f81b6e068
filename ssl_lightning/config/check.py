"""Whether components can be made from their settings.

Every component is a `_target_` whose signature is its schema: keys must be its parameters and values must fit their
annotations. The rest (`config.schema`) is checked in the same way, as a dataclass is called with its fields. So a key
that nobody reads is an error wherever it was written: on the command line, with or without `+`, or in a YAML file.
"""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Annotated, Any

from ssl_lightning.config.components import locate, own_modules
from ssl_lightning.config.markers import hints_of
from ssl_lightning.config.messages import deeper, elsewhere, nearest, origin, swept
from ssl_lightning.config.schema import SETTINGS, Component
from ssl_lightning.errors import UserError
from ssl_lightning.explaining import explained, place_of
from ssl_lightning.ranges import DISTINCT

_HYDRA_KEYS = {"_target_", "_partial_", "_convert_", "_recursive_"}


def check(value: dict[str, Any], schema: type, path: str = "", late: bool = False) -> None:
    """Checks plain settings against a dataclass, and gives their values the types that are annotated, so that 1 and
    1.0 are one setting where a float is wanted.

    Args:
        path: of the settings in the config.
        late: check late components too.

    Raises:
        UserError: names the key, where it was written, and the nearest valid key.
    """
    _check_call(value, schema, path, late)


def check_component(value: Any, kind: str, path: str) -> None:
    """Checks settings that are to make an instance of the class of this dotted name, and nothing else."""
    from hydra.utils import get_class

    _check_component(value, get_class(kind), path, late=True)


def beside(value: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """The settings that stand beside a component's own, defaults filled in."""
    return {f.name: value.get(f.name, f.default) for f in fields(schema)}


def own(value: Mapping[str, Any], schema: type) -> dict[str, Any]:
    """A component without the settings that stand beside its own."""
    names = {f.name for f in fields(schema)}
    return {key: item for key, item in value.items() if key not in names}


def _check_component(
    value: Any, hint: Any, path: str, late: bool, others: type | None = None, advice: str = ""
) -> None:
    """Whether a component makes what is wanted: an instance of a class or, where the hint is a Callable, with
    `_partial_: true`, something that returns one. Nothing else is ever imported and called."""
    if not isinstance(value, dict) or "_target_" not in value:
        raise UserError(
            f"{path} is {value!r}{origin(path)}, but a component is needed: a mapping with a _target_. "
            "Choose one by the name of an option, or write _target_: module.Class."
        )
    target = _located(value, path)
    partial = typing.get_origin(hint) is Callable
    wanted = _classes(typing.get_args(hint)[1] if partial else hint)
    returned = hints_of(target).get("return")
    made = target if isinstance(target, type) else typing.get_origin(returned) or returned
    if not (isinstance(made, type) and issubclass(made, wanted)):
        names = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in wanted) or "component"
        why = "" if made else f": {place_of(target)} is not annotated with what it returns. Write `-> {names}` there"
        raise UserError(
            f"{path}._target_ is {value['_target_']!r}{origin(path + '._target_')}, which does not make a {names}"
            f"{why}. {advice}".rstrip()
        )
    _refuse_unfinished(target, value, path)
    if bool(value.get("_partial_")) != partial:
        raise UserError(
            f"{path} must{'' if partial else ' not'} have _partial_: true{origin(path)}: what it makes is wanted "
            f"{'later, by a call' if partial else 'at once'}."
        )
    _check_call(value, target, path, late, others)


def _located(value: Mapping[str, Any], path: str) -> Any:
    try:
        return locate(value["_target_"])
    except Exception as error:
        raise UserError(
            f"{path}._target_ is {value['_target_']!r}{origin(path + '._target_')}, which cannot be imported: "
            + explained(error.__cause__ or error).partition("\n")[0]
        ) from error


def _refuse_unfinished(target: Any, value: Mapping[str, Any], path: str) -> None:
    """A class that leaves out what its base asks for, whether or not that refuses to be made."""
    lacking = [name for name in dir(target) if getattr(getattr(target, name, None), "__isabstractmethod__", False)]
    if isinstance(target, type) and lacking:
        raise UserError(
            f"{path}._target_ is {value['_target_']!r}{origin(path + '._target_')}, but {place_of(target)} lacks "
            f"{' and '.join(lacking)}. Define what is missing there."
        )


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes in a hint such as `A`, `A | None` or `Sequence[A] | str`."""
    if typing.get_origin(hint) is Annotated:
        return _classes(typing.get_args(hint)[0])
    if isinstance(hint, type) and typing.get_origin(hint) is None:
        return () if hint is type(None) else (hint,)
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return tuple(kind for part in typing.get_args(hint) for kind in _classes(part))
    return ()


def _mapping(hint: Any) -> Any:
    """The mapping in a hint such as `Mapping[str, A]` or `Mapping[str, A] | None`."""
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if typing.get_origin(kind) in (dict, Mapping)), None)


def _check_call(
    value: dict[str, Any], target: Callable[..., Any], path: str, late: bool = False, others: type | None = None
) -> None:
    """Whether `target` can be called with these keys and values.

    Args:
        others: a dataclass that some of the keys belong to.
    """
    parameters = inspect.signature(target).parameters
    hints = hints_of(target)
    beside_names = [f.name for f in fields(others)] if others else []
    catch_all = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    prefix = f"{path}." if path else ""
    named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    for key in value:
        if key not in named and key not in beside_names and key not in _HYDRA_KEYS and not catch_all:
            known = [prefix + name for name in (*named, *beside_names)]
            advice = elsewhere(target, key) or (not path and deeper(key, value)) or nearest(prefix + key, known)
            if not advice.startswith("did you mean") and (grid := swept(path.partition(".")[0])):
                advice = f"{advice} Of {grid}, rank or train those that have it in a grid of their own."
            raise UserError(f"unknown key '{prefix}{key}'{origin(prefix + key)}; {advice}")
    for key in named:
        if key in value:
            value[key] = _check_value(value[key], hints.get(key, Any), prefix + key, late)
        elif parameters[key].default is inspect.Parameter.empty and not value.get("_partial_"):
            written = origin(f"{path}._target_" if "_target_" in value else path)
            raise UserError(f"{prefix}{key} has no value{written}: give it one.{_asked_by(target)}")
    if others:
        beside = {key: value[key] for key in beside_names if key in value}
        _check_call(beside, others, path, late)
        value.update(beside)


def _asked_by(target: Any) -> str:
    """A sentence on a class or function of the user's own."""
    named = f"{target.__module__}.{target.__qualname__}"
    return f" {place_of(target)} asks for it." if own_modules({"_target_": named}) else ""


def _check_value(value: Any, hint: Any, path: str, late: bool) -> Any:
    """The value, of the type that is annotated."""
    metadata = getattr(hint, "__metadata__", ())
    component = next((item for item in metadata if isinstance(item, Component)), None)
    bare = _bare(hint)
    if component is not None:
        from hydra.utils import get_class

        if (late or not component.late) and not (component.optional and value is None):
            _check_component(value, get_class(component.kind), path, late, component.beside, component.advice)
    elif isinstance(value, dict) and "_target_" not in value and (mapping := _mapping(bare)):
        for key, item in value.items():
            value[key] = _check_value(item, typing.get_args(mapping)[1], f"{path}.{key}", late)
    elif bare is object:
        pass  # whoever needs it will check it
    elif isinstance(value, dict) and "_target_" in value:
        if bare is not Any:
            _check_component(value, bare, path, late)
        elif "_args_" not in value:  # no annotation says of which class it is to be
            _check_call(value, _located(value, path), path, late)
    elif isinstance(value, dict) and (kinds := [kind for kind in _classes(bare) if kind in SETTINGS]):
        _check_call(value, kinds[0], path, late)
    elif isinstance(value, list) and any(isinstance(item, dict) and "_target_" in item for item in value):
        for i, item in enumerate(value):
            value[i] = _check_value(item, (typing.get_args(bare) or (Any,))[0], f"{path}.{i}", late)
    else:
        return _check_plain(value, hint, path)
    return value


def _bare(hint: Any) -> Any:
    """Without metadata."""
    return typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint


def _check_plain(value: Any, hint: Any, path: str) -> Any:
    import pydantic

    try:
        checker = pydantic.TypeAdapter(hint, config={"arbitrary_types_allowed": True, "strict": True})
    except (pydantic.errors.PydanticUserError, TypeError):  # the config of a dataclass, or an odd annotation
        checker = pydantic.TypeAdapter(hint)
    try:
        given = tuple(value) if isinstance(value, list) and "tuple" in str(hint).lower() else value  # not in YAML
        made = checker.validate_python(given)
    except pydantic.ValidationError as error:
        found = error.errors()[0]
        message = re.sub(r"^\w+ should", "it should", found["msg"]).replace(" after validation", "")
        null = ", or null" if type(None) in typing.get_args(_bare(hint)) else ""
        quoted = isinstance(value, bool | int | float) and found["type"] == "string_type"
        advice = f""" In quotes it is one: "{path}='{value}'".""" if quoted else ""
        raise UserError(f"{path} is {value!r}{origin(path)}, but {message}{null}.{advice}") from None
    made = list(made) if isinstance(made, tuple) else made
    if DISTINCT in getattr(hint, "__metadata__", ()) and len(set(made)) < len(made):
        raise UserError(f"{path} is {value!r}{origin(path)}, but it should have each value once.")
    return made if _is_plain(made) else value


def _is_plain(value: Any) -> bool:
    """Whether it is what YAML holds."""
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)
