"""What to say of a key: where it was written, which valid one is nearest, what Hydra has against it."""

import difflib
import inspect
import re
import shlex
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ssl_lightning.config.components import locate
from ssl_lightning.config.hydra import quoted
from ssl_lightning.config.places import CONF
from ssl_lightning.config.schema import NAMED_COMPONENTS
from ssl_lightning.lightning_internals import root_of, unknown_override

PROXIES = ("subset.proxy", "subset.embedder")
EXTRAS = {
    "hydra/launcher/submitit_slurm": "slurm",
    "hydra/launcher/submitit_local": "slurm",
    "hydra/sweeper/optuna": "optuna",
}
"""Options that come with an extra of the package."""

VIEWS = (
    " A dataset's own views are those of augment/<its name>.yaml: write it (`defaults: [simclr_cifar]` is enough), or "
    "choose augment=<one of these>."
)
SYNONYMS = {"epochs": "max_epochs", "steps": "max_steps", "learning_rate": "lr", "gpus": "devices"}
"""What users may write for the last part of a key."""


def nearest(key: str, candidates: Iterable[str]) -> str:
    """A half-sentence with the candidate whose last part is closest to that of the key, or with all of them."""
    known = {candidate.rpartition(".")[2]: candidate for candidate in sorted(candidates)}
    close = difflib.get_close_matches(key.rpartition(".")[2], known, 1, 0.6)
    if close:
        return f"did you mean '{known[close[0]]}'?"
    return f"known here: {', '.join(known)}." if known else "nothing can be set here."


def deeper(key: str, config: Any) -> str | None:
    """A half-sentence with the setting of this name, or meaning, that lies least deep below the top of plain values."""
    key = SYNONYMS.get(key, key)
    nodes = [(name, node) for name, node in config.items() if name != "hydra" and isinstance(node, dict)]
    while nodes:
        if found := next((path for path, node in nodes if key in node), None):
            return f"did you mean '{found}.{key}'?"
        nodes = [(f"{path}.{name}", n) for path, node in nodes for name, n in node.items() if isinstance(n, dict)]
    return None


def elsewhere(target: Any, key: str) -> str | None:
    """A half-sentence on where that is set which users may look for among the settings of `target`, which says so in
    its `ELSEWHERE`."""
    return getattr(target, "ELSEWHERE", {}).get(key)


def origin(path: str) -> str:
    """Where a key was written, as a parenthesis: the command line, or a YAML file."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return ""
    hydra = HydraConfig.get()
    written = OmegaConf.to_container(hydra.overrides)  # interpolations as they stand
    assert isinstance(written, dict)
    overrides = [*written["task"], *written["hydra"]]
    # The most precise first; of several, the last, which counts.
    for _, override in sorted(enumerate(overrides), key=lambda item: (-len(item[1].partition("=")[0]), -item[0])):
        key = override.lstrip("+~").partition("=")[0]
        if key in hydra.runtime.choices:
            continue  # it chooses a file
        if path == key or path.startswith(f"{key}.") or key.startswith(f"{path}."):
            return f" (command line: {override})"
    keys = path.split(".")
    whole, parts = [(str(hydra.job.config_name), keys)], []  # whole configs override what groups say
    for group, choice in hydra.runtime.choices.items():
        folder, _, package = group.partition("@")
        prefix = (package or folder.replace("/", ".")).split(".")
        if keys[: len(prefix)] == prefix:
            parts.append((f"{folder}/{choice}", keys[len(prefix) :]))
        elif package == "_global_" or folder in ("experiment", "schedule"):
            whole.append((f"{folder}/{choice}", keys))
    candidates = [*whole, *parts, ("train", keys)]
    for name, rest in candidates:
        for source in hydra.runtime.config_sources:
            file = Path(source.path) / f"{name}.yaml"
            if source.schema == "file" and file.is_file() and _contains(_written(file), rest):
                return f" (file: {file})"
    return ""


def explain(error: Exception, known: Collection[str]) -> str | None:
    """What Hydra or OmegaConf complain about, as one message; None for any other error, also of a component that Hydra
    has called.

    Args:
        known: keys of a config at its top level.
    """
    from hydra.errors import HydraException, InstantiationException, MissingConfigException, OverrideParseException
    from omegaconf.errors import InterpolationResolutionError, OmegaConfBaseException

    text = str(error)
    if isinstance(error, MissingConfigException):
        if error.missing_cfg_file and error.options:
            group, _, option = error.missing_cfg_file.rpartition("/")
            if extra := EXTRAS.get(error.missing_cfg_file):
                return f"{group}={option} is not installed: pip install 'ssl-lightning[{extra}]'."
            return f"{group or 'config'}={option}: there is no such option; {nearest(option, error.options)}" + (
                VIEWS if group == "augment" else ""
            )
        what = text.partition("\nConfig search path")[0].partition(" Check that it's in")[0].strip()
        return f"{' '.join(what.split())} Check the name, or say in which folder it lies: --config-dir FOLDER."
    if isinstance(error, OverrideParseException):
        return _misread(error.override)
    if (found := re.match(r"Error resolving interpolation '\$\{(\w+)\}'", text)) and (options := _options(found[1])):
        return f"no {found[1]} is chosen, but another choice needs it. {_choose(found[1], options)}"
    if isinstance(error, ValueError) and text.startswith("Config group override must be a string"):
        return _no_name()
    if isinstance(error, InterpolationResolutionError):
        what, key = text.partition("\n")[0].rstrip("."), error.full_key or "the config"
        lacking = re.search(r"Interpolation key '((\w+)\.[\w.]+)' not found", what)
        if lacking and _options(lacking[2]):
            return (
                f"{key}{origin(key)} needs {lacking[1]}, which is not set. Write it in the file of {lacking[2]}, or "
                f"add +{lacking[1]}=... to the command."
            )
        if (found := re.search(r"Interpolation key '(\w+)' not found", what)) and (options := _options(found[1])):
            return f"no {found[1]} is chosen, but {key} needs it. {_choose(found[1], options)}"
        return f"{key}{origin(key)} cannot be resolved: {what}. Mend what stands between ${{ and }}."
    if (unknown := unknown_override(error)) is not None:
        return _unknown_override(*unknown, known)
    if isinstance(error, InstantiationException) and error.__cause__ is not None:
        return None
    if isinstance(error, HydraException | OmegaConfBaseException):
        cause = f" {error.__cause__}" if error.__cause__ else ""
        return " ".join((text + cause).split())
    return None


def _misread(override: str) -> str:
    key, equal, value = override.partition("=")
    if not equal:
        return f"{override!r} is no setting. Write key=value."
    return (
        f"{override!r} is not understood. Quote a value with letters beyond ASCII or any of ()[]{{}}=,~#, and both "
        f"for the shell: {shlex.quote(f'{key}={quoted(value)}')}"
    )


def _options(group: str) -> list[str]:
    """The package's own options of a group; none where it is no group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def _choose(group: str, options: list[str]) -> str:
    return f"Choose one: {group}=<one of {', '.join(options)}>."


def _no_name() -> str:
    """Of a group that was given a value which names none of its options, such as null; Hydra does not say which."""
    for argument in sys.argv[1:]:
        key, equal, value = argument.lstrip("+").partition("=")
        group = key.partition("@")[0]
        if equal and (options := _options(group)) and not re.search(r"[^\W\d]", value.replace("null", "")):
            return (
                f"{argument}: {group} takes the name of an option. Write {key}=<one of {', '.join(options)}>; ~{key} "
                "chooses none, where there may be none."
            )
    return "A group of the config is given a value that is no name. Give it the name of an option, group=option."


def swept(group: str) -> str | None:
    """The argument by which the command line chooses several options of a group: Hydra reads the other arguments with
    the option that is chosen without it."""
    several = re.compile(rf"{re.escape(group)}=[^\[{{(]*,")
    return next((argument for argument in sys.argv[1:] if several.match(argument)), None)


def _unknown_override(key: str, parent: DictConfig | None, top_level: Collection[str]) -> str:
    """Hydra lets `key=` change only what some file mentions; a component may take more than that."""
    if key.partition("/")[0] in top_level:  # a component within another, as if it had a group of its own
        dotted = key.replace("/", ".")
        return f"unknown key '{key}' (command line or sweep: {key}=...); did you mean '{dotted}'?"
    prefix, _, last = key.rpartition(".")
    prefix = f"{prefix}." if prefix else ""
    group, dot, _ = key.partition(".")
    options = _options(group) if dot and (parent is None or group not in root_of(parent)) else []
    if options:
        return f"{key}: no {group} is chosen. Choose one beside it: {group}=<one of {', '.join(options)}>."
    node = prefix.rstrip(".")
    if parent is not None and not parent and (named := NAMED_COMPONENTS.get(node.rpartition(".")[2])):
        return (
            f"{key}: {node} was given a name, {node}=..., whose settings are looked up later. Choose it as an option, "
            f"{named}@{node}=<name>, and {key}=... can follow."
        )
    known = set(top_level) if parent is None else set(map(str, parent))
    accepted = set() if parent is None else _accepted(prefix, parent, top_level)
    if parent is not None and "_target_" in parent and (advice := elsewhere(locate(parent["_target_"]), last)):
        return f"unknown key '{key}' (command line or sweep: {key}=...); {advice}"
    if last in accepted:
        plus = "++" if dot and swept(group) else "+"  # of a grid, which only some of the jobs have in a file
        return f"{key!r} is in no config file, but can be given: write {plus}{key}=..."
    if not dot and parent is not None and (advice := deeper(key, OmegaConf.to_container(root_of(parent)))):
        return f"unknown key '{key}' (command line or sweep: {key}=...); {advice}"
    if dot and (grid := swept(group)):
        return (
            f"{key}: in a grid over {grid}, a setting that only its options have, and all of them, is written "
            f"++{key}=... (known without: {', '.join(sorted(map(str, known)))}). What only some have needs a grid of "
            "its own."
        )
    known |= accepted
    known = {prefix + name for name in known if not name.startswith("_")}
    return f"unknown key '{key}' (command line or sweep: {key}=...); {nearest(key, known)}"


def _written(file: Path) -> Any:
    """The content of a YAML file, interpolations as they stand."""
    return OmegaConf.to_container(OmegaConf.load(file))


def _accepted(prefix: str, parent: DictConfig, top_level: Iterable[str]) -> set[str]:
    """What may stand in a node, whether or not a file mentions it: arguments of a component; of a proxy, which says in
    what it differs from the run that asks, all that this run has there."""
    found: set[str] = set()
    for proxy in PROXIES:
        if prefix == f"{proxy}.":
            found |= {*top_level, "run"}
        elif prefix.startswith(f"{proxy}."):
            twin = OmegaConf.select(root_of(parent), prefix.removeprefix(f"{proxy}.").rstrip("."))
            if isinstance(twin, DictConfig):
                found |= set(map(str, twin)) | _accepted("", twin, ())
    if "_target_" in parent:
        found |= set(inspect.signature(locate(parent["_target_"])).parameters)
    return found


def _contains(node: Any, keys: list[str]) -> bool:
    for key in keys:
        if isinstance(node, dict) and key in node:
            node = node[key]
        elif isinstance(node, list) and key.isdigit() and int(key) < len(node):
            node = node[int(key)]
        else:
            return False
    return True
