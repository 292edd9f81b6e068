"""How the package starts Hydra, whose versions 1.3 and 1.4 ask for it in different ways."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import omegaconf
from omegaconf import OmegaConf

from ssl_lightning.config.places import CONF
from ssl_lightning.errors import UserError
from ssl_lightning.files import folder_of_sweep
from ssl_lightning.lightning_internals import group_options

# Hydra 1.3 takes the defaults of 1.1 unless it is told otherwise; 1.4 has only its own, and wants to be told nothing.
_VERSION: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3.") else {}


def _folder(runs: str, sweep: str = "") -> str:
    """`${folder:...}` in conf/: what Hydra makes before anybody else sees the config. What will be refused as a name is
    left out."""
    folder = Path(runs).expanduser()
    with contextlib.suppress(UserError):
        folder = folder_of_sweep(str(folder), str(sweep))
    return str(folder)


def _groups(*names: str) -> str:
    """`${groups:method,...}` in conf/: a line with the options of each group; `group@key` names where one belongs."""
    lines = []
    for name in names:
        group, _, key = name.partition("@")
        known = group_options(group) or sorted(file.stem for file in (CONF / group).glob("*.yaml"))
        lines.append(f"{key or group}: {', '.join(known)}")
    return "\n".join(lines)


# OmegaConf 2.4 warns of the name that 2.3 has for it; 2.3 means something else by the new one.
_NEW = not omegaconf.__version__.startswith("2.3.")
_register: Callable[..., None] = OmegaConf.register_resolver if _NEW else OmegaConf.register_new_resolver
_register("folder", _folder, replace=True)
_register("groups", _groups, replace=True)


def application(config_name: str) -> Callable[[Callable[..., object]], Callable[[], None]]:
    """Decorates a function of a config: it becomes a Hydra application of the package's config of this name."""
    return hydra.main(config_path=str(CONF), config_name=config_name, **_VERSION)


def quoted(value: str) -> str:
    """A value of an override, such as a path, that Hydra takes as it is."""
    escaped = re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + ('\\"' if found[2] else ""), value)
    return f'"{escaped}"'


def configs_in(folder: Path) -> Any:
    """A context in which `hydra.compose` finds the configs of a folder."""
    return hydra.initialize_config_dir(str(folder), **_VERSION)
