"""What the documents say is there: tests, links, commands, configs, names."""

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

import ssl_lightning
from ssl_lightning.commands.report import parser as parser_of_report
from ssl_lightning.commands.runs import asked
from ssl_lightning.commands.sweep import parser
from ssl_lightning.config.places import CONF, SWEEPS
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import SelectConfig, TrainConfig
from ssl_lightning.reports.choosing import filter_in
from tests.composing import composed
from tests.reliability import DOCUMENT, table

TOP = Path(__file__).parents[1]
DOCUMENTS = ("SECURITY.md", "docs/reliability.md")
PAGES = [TOP / "README.md", TOP / "CHANGELOG.md", TOP / "SECURITY.md", *sorted((TOP / "docs").glob("*.md"))]
MADE = {"configs.md", "reference.md"}
"""Pages that `docs/hooks.py` makes."""


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> str:
    """Of code."""
    return "\n".join(re.findall(r"^```\w*\n(.*?)^```", text(page), flags=re.M | re.S))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_test_that_is_named_exists(document):
    named = re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", text(TOP / document))
    assert len(named) > 5
    for file, test in named:
        path = TOP / file
        assert path.exists(), file
        assert not test or f"def {test}(" in text(path), f"{file}::{test}"


def test_the_table_of_what_can_go_wrong_is_that_of_the_tests():
    assert text(DOCUMENT) == table(), "write it again: python -m tests.reliability"
    rows = [line for line in table().splitlines() if line.startswith("|")][2:]
    assert len(rows) > 20
    for row in rows:
        what, lost, _, tests = re.split(r" \| ", row.strip("| "))
        assert "" not in (what, lost, tests), row


# README, and where it leads


def test_the_first_page_is_short():
    """Three screens of 40 lines, and two minutes at 150 words a minute; tables and code are not read aloud."""
    lines = text(TOP / "README.md").splitlines()
    assert len(lines) <= 120
    prose = re.sub(r"^```.*?^```|^\|.*?$", "", "\n".join(lines), flags=re.M | re.S)
    assert len(re.sub(r"\]\([^)]*\)", "]", prose).split()) <= 300


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"`[^`\n]*`", "", text(page))):
        if not target.startswith("https://"):
            assert target in MADE or (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_navigation():
    listed = set(re.findall(r": (\w+\.md)$", text(TOP / "mkdocs.yml"), flags=re.M))
    assert listed == {page.name for page in PAGES if page.parent.name == "docs"} | MADE


# Commands

OWN = TOP / "examples" / "own_package"


def commands() -> Iterator[str]:
    """Those in blocks of code of all pages that start or look at a run, each once, with what stands for their rest
    left out."""
    lines = [line for page in PAGES for line in blocks(page).replace("\\\n", " ").splitlines()]
    lines = [re.sub(r"<([^<>]+)>", r"\1", line.partition(" # ")[0]).strip() for line in lines]
    told = re.compile(r"(\w+ )*?(ssl-(?:train|select|sweep|runs|report|evaluate|export) .*)")
    found = [match[2] for line in lines if (match := told.fullmatch(re.sub(r"^srun \S+ \S+ ", "", line)))]
    yield from dict.fromkeys(found)


def jobs(words: list[str]) -> Iterator[list[str]]:
    """As many as it takes to meet each value of each list."""
    lists = [
        [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
        if override.is_sweep_override()
        else [override.input_line]
        for override in OverridesParser.create().parse_overrides(words)
    ]
    for number in range(max(map(len, lists), default=1)):
        yield [values[number % len(values)] for values in lists]


@pytest.mark.one_in(6)
@pytest.mark.parametrize("line", list(commands()))
def test_commands_are_what_the_commands_take(line, monkeypatch):
    """Each is composed, and what a training consists of is checked, as before it starts."""
    name, *words = (word for word in shlex.split(line) if word not in ("...", "-m", "--dry-run"))
    name, folder, own = name.removeprefix("ssl-"), CONF, []
    if words[0] == "--config-dir":
        assert words[1] == "conf"
        words = words[2:]
        own = [f"hydra.searchpath=[{OWN / 'conf'}]"]
        monkeypatch.syspath_prepend(OWN)
    if words[0] == "--help":
        assert all((CONF / group).is_dir() for group in words[1:])
        return
    if name == "report":
        assert all(folder.parts[0] == "runs" for folder in parser_of_report().parse_intermixed_args(words).folders)
        return
    if name == "runs":
        what = asked(words).what
        assert what
        assert all(word.startswith("runs") or filter_in(word) for word in what)
        return
    if name == "sweep":
        grid = words.pop(0)
        if own:
            assert (OWN / "conf" / "sweeps" / f"{grid}.yaml").exists()
            return
        name, folder = grid, SWEEPS
        words = parser().parse_intermixed_args([grid, *words]).overrides
    for overrides in jobs([word for word in words if not word.endswith("=...")]):
        config = composed(*own, *overrides, name=name, folder=folder)
        if name not in ("evaluate", "export"):
            resolve(config, SelectConfig if name == "select" else TrainConfig)


def test_there_are_commands_to_test():
    found = list(commands())
    assert len(found) > 25
    assert {line.partition(" ")[0] for line in found} == {
        f"ssl-{name}" for name in ("train", "select", "sweep", "runs", "report", "evaluate", "export")
    }


# What is made while the site is built


def hooks():
    spec = importlib.util.spec_from_file_location("hooks", TOP / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_configs_has_every_group_option_and_comment():
    page = hooks().configs_page(CONF)
    for file in CONF.rglob("*.yaml"):
        group = file.parent.relative_to(CONF).as_posix()
        assert (f"\n### ssl-{file.stem}\n" if group == "." else f"\n### {group}={file.stem}\n") in page
        assert text(file).strip() in page
        assert group == "." or page.count(f"\n## {group}\n") == 1


def test_the_reference_has_every_public_name():
    page = hooks().reference_page(ssl_lightning._PUBLIC)
    assert re.findall(r"^::: .*\.(\w+)$", page, flags=re.M)
    assert set(re.findall(r"^::: .*\.(\w+)$", page, flags=re.M)) == set(ssl_lightning.__all__) - {"__version__"}


def test_changes_of_this_version_are_told():
    version = re.search(r'^version = "(.*)"', text(TOP / "pyproject.toml"), flags=re.M)
    assert version is not None
    assert f"\n## {version[1]}" in text(TOP / "CHANGELOG.md")


# The notebook

NOTEBOOK = TOP / "examples" / "your_folder.ipynb"


def cells() -> list[dict]:
    return json.loads(text(NOTEBOOK))["cells"]


def test_the_notebook_is_kept_without_outputs():
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells())


@pytest.mark.nightly
def test_the_notebook_goes_its_way(tmp_path, monkeypatch):
    """From drawn images to the map, in trainings of one epoch."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    code = "\n".join("".join(cell["source"]) for cell in cells() if cell["cell_type"] == "code")
    short = code.replace("EPOCHS = 30", "EPOCHS = 1").replace("count: int = 300", "count: int = 180")
    assert short.count("EPOCHS = 1") == short.count("count: int = 180") == 1
    names: dict = {"__name__": "__main__"}
    exec(compile(short, NOTEBOOK.name, "exec"), names)
    assert len(names["chosen"]) == 36
    assert names["representations"].shape == (180, names["encoder"].num_features)
    assert (tmp_path / "map.png").stat().st_size > 1000
    assert {file.name for file in tmp_path.iterdir()} == {"drawn", "runs", "cache", "map.png"}
