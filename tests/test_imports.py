"""Imports point downwards and make no circles. Late ones, and those for type checkers, count: the files are read."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import ssl_lightning

PACKAGE = Path(ssl_lightning.__file__).parent
TIERS = (
    ("__init__",),
    ("commands",),
    ("pipeline",),
    ("reports", "loggers", "callbacks", "subsets", "evaluation", "export", "runs"),
    ("data", "methods"),
    ("optim", "losses", "metrics", "models", "theory", "selection"),
    ("config", "launchers", "processes", "lightning_internals"),
    ("files", "devices", "memory", "progress", "errors", "explaining", "known_errors", "ranges", "versions"),
)
"""Rooms, which are folders or files at the top of the package, from top to bottom. A file imports from its own tier and
from lower ones."""
HEIGHT = {room: -number for number, rooms in enumerate(TIERS) for room in rooms}
WHOLE_CONFIG = ("config.schema", "config.places", "config.resolve")
"""What only the rooms that see a whole config may import."""
SEE_IT = ("commands", "pipeline", "config")


class Import(NamedTuple):
    """One module imports another; names are relative to the package, which itself is `__init__`."""

    importer: str
    imported: str
    place: str

    def __str__(self) -> str:
        return f"{self.place}: {self.importer} imports {self.imported}"


def room(module: str) -> str:
    return module.partition(".")[0]


def modules(package: Path) -> dict[str, Path]:
    """Files by the names of their modules."""
    found = {}
    for file in sorted(package.rglob("*.py")):
        *folders, stem = file.relative_to(package).with_suffix("").parts
        found[".".join(folders if folders and stem == "__init__" else [*folders, stem])] = file
    return found


def imports(package: Path) -> list[Import]:
    """All imports of modules of the package by modules of the package."""
    known = modules(package)
    return [found for name, file in known.items() for found in _imports_of(name, file, known, package)]


def _imports_of(importer: str, file: Path, known: Mapping[str, Path], package: Path) -> Iterator[Import]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = file.parent.relative_to(package.parent).parts
            above = folder[: len(folder) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            names = [f"{source}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            start, _, rest = name.partition(".")
            if start == package.name:
                while rest and rest not in known:  # the name of something in a module
                    rest = rest.rpartition(".")[0]
                yield Import(importer, rest or "__init__", f"{file.relative_to(package.parent)}:{node.lineno}")


def upwards(found: list[Import]) -> list[str]:
    """Imports against the order of the rooms, and of rooms that have no place in it."""
    lines = []
    for one in dict.fromkeys(found):
        unknown = [name for name in (room(one.importer), room(one.imported)) if name not in HEIGHT]
        if unknown:
            lines.append(f"{one}, but {', '.join(dict.fromkeys(unknown))} has no place in the order of the rooms")
        elif HEIGHT[room(one.importer)] < HEIGHT[room(one.imported)]:
            lines.append(f"{one}, which lies above it")
    return lines


def of_the_config(found: list[Import]) -> list[str]:
    """Imports of the whole config by rooms that are to be given what they need."""
    return [
        f"{one}, which only commands and pipeline may"
        for one in dict.fromkeys(found)
        if one.imported in WHOLE_CONFIG and room(one.importer) not in SEE_IT
    ]


def circles(found: list[Import]) -> list[str]:
    """Imports that lie on a circle of files, with the way back."""
    edges: dict[str, set[str]] = {}
    for one in found:
        edges.setdefault(one.importer, set()).add(one.imported)

    def way(start: str, end: str) -> list[str] | None:
        before = {start: start}
        queue = [start]
        for module in queue:
            if module == end:
                path = [end]
                while path[-1] != start:
                    path.append(before[path[-1]])
                return path[::-1]
            for other in sorted(edges.get(module, set()) - before.keys()):
                before[other] = module
                queue.append(other)
        return None

    return [
        f"{one}, in a circle: {' -> '.join([one.importer, *back])}"
        for one in dict.fromkeys(found)
        if (back := way(one.imported, one.importer))
    ]


@pytest.fixture(scope="module")
def of_the_package() -> list[Import]:
    return imports(PACKAGE)


def none_of(wrong: list[str]) -> None:
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


def test_imports_point_downwards(of_the_package):
    none_of(upwards(of_the_package))


def test_only_commands_and_pipeline_see_a_whole_config(of_the_package):
    none_of(of_the_config(of_the_package))


def test_there_are_no_circles_of_files(of_the_package):
    none_of(circles(of_the_package))


def test_every_room_has_its_place():
    rooms = {room(module) for module in modules(PACKAGE)}
    assert rooms <= HEIGHT.keys()
    assert len(HEIGHT) == sum(map(len, TIERS))


PLANTED = {
    "__init__.py": "def __getattr__(name):\n    from box.commands import train",
    "commands/__init__.py": "",
    "commands/train.py": "import box.pipeline.fit\nfrom ..config import resolve",
    "pipeline/__init__.py": "",
    "pipeline/fit.py": "from box import data\nimport os, numpy.random\nimport boxes.commands",
    "data/__init__.py": "from . import batch as b, loading",
    "data/batch.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from box.data.loading import Loader",
    "data/loading.py": "def load():\n    from .batch import Batch\n    import box.runs.run as run",
    "runs/__init__.py": "",
    "runs/run.py": "import box\nfrom box.config.resolve import resolve",
    "config/__init__.py": "",
    "config/resolve.py": "",
    "attic.py": "",
    "errors.py": "from box.attic import old",
}


@pytest.fixture
def planted(tmp_path: Path) -> list[Import]:
    for name, text in PLANTED.items():
        file = tmp_path / "box" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return imports(tmp_path / "box")


def test_every_way_of_importing_is_read(planted):
    assert sorted(map(str, planted)) == [
        "box/__init__.py:2: __init__ imports commands.train",
        "box/commands/train.py:1: commands.train imports pipeline.fit",
        "box/commands/train.py:2: commands.train imports config.resolve",
        "box/data/__init__.py:1: data imports data.batch",
        "box/data/__init__.py:1: data imports data.loading",
        "box/data/batch.py:3: data.batch imports data.loading",
        "box/data/loading.py:2: data.loading imports data.batch",
        "box/data/loading.py:3: data.loading imports runs.run",
        "box/errors.py:1: errors imports attic",
        "box/pipeline/fit.py:1: pipeline.fit imports data",
        "box/runs/run.py:1: runs.run imports __init__",
        "box/runs/run.py:2: runs.run imports config.resolve",
    ]


def test_what_is_wrong_is_named_with_its_place(planted):
    assert upwards(planted) == [
        "box/data/loading.py:3: data.loading imports runs.run, which lies above it",
        "box/errors.py:1: errors imports attic, but attic has no place in the order of the rooms",
        "box/runs/run.py:1: runs.run imports __init__, which lies above it",
    ]
    assert of_the_config(planted) == [
        "box/runs/run.py:2: runs.run imports config.resolve, which only commands and pipeline may"
    ]
    assert [line for line in circles(planted) if line.startswith("box/data/batch")] == [
        "box/data/batch.py:3: data.batch imports data.loading, in a circle: data.batch -> data.loading -> data.batch"
    ]
    assert any("-> runs.run -> __init__ -> commands.train -> " in line for line in circles(planted))
    assert not circles([one for one in planted if room(one.imported) in ("config", "attic", "pipeline")])
