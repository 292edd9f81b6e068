"""Pages of the reference, made while the site is built: of the configs, and of the public names."""

import sys
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

TOP = Path(__file__).parents[1]
COMMANDS = {name: f"ssl-{name}" for name in ("train", "select", "evaluate", "export", "theory")}
CONFIGS = """\
# Configuration

The files of `conf/` with their comments, as `ssl-train --help <group>` prints them. `group=option` chooses a file of a
group, `group.key=value` changes a line of it.
"""
REFERENCE = """\
# Python

What `from ssl_lightning import ...` gives. Names are imported when they are first used.
"""
THEMES = {
    "methods": "Methods",
    "data": "Data",
    "models": "Networks",
    "optim": "Optimisation",
    "runs": "Runs",
    "reports": "Reports",
    "errors": "Errors",
}
"""Titles of the parts of the package whose names are public."""


def configs_page(conf: Path) -> str:
    """All YAML files of a folder of configs: those of commands, then each group with its options."""
    parts = [CONFIGS, "## Commands\n"]
    parts += [_section(f"{command}", conf / f"{name}.yaml") for name, command in COMMANDS.items()]
    groups = groupby(sorted(conf.rglob("*/*.yaml"), key=lambda file: (file.parent, file)), lambda file: file.parent)
    for folder, files in groups:
        group = folder.relative_to(conf).as_posix()
        parts += [f"## {group}\n", *(_section(f"{group}={file.stem}", file) for file in files)]
    return "\n".join(parts)


def reference_page(names: dict[str, str]) -> str:
    """Of public names, `name: module`."""
    parts = [REFERENCE]
    for theme, title in THEMES.items():
        parts.append(f"## {title}\n")
        for name, module in names.items():
            if module.partition(".")[0] == theme:
                parts.append(f"::: ssl_lightning.{module}.{name}\n")
    return "\n".join(parts)


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Of mkdocs: adds the pages."""
    from mkdocs.structure.files import File

    sys.path.insert(0, str(TOP))
    from ssl_lightning import _PUBLIC  # imports the standard library alone

    pages = {"configs.md": configs_page(TOP / "conf"), "reference.md": reference_page(_PUBLIC)}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def _section(title: str, file: Path) -> str:
    return f"### {title}\n\n```yaml\n{file.read_text(encoding='utf-8').strip()}\n```\n"
