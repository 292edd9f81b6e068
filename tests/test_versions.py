"""A package that is not installed has no version, which must not end a run when it is recorded."""

import ast
from importlib.metadata import version
from pathlib import Path

import ssl_lightning
from ssl_lightning.versions import version_of

PACKAGE = Path(ssl_lightning.__file__).parent


def test_an_installed_package_has_its_version():
    assert version_of("torch") == version("torch")


def test_a_package_that_runs_from_its_sources_has_none():
    assert version_of("ssl-lightning-that-nobody-installed") == "unknown"


def test_versions_are_asked_for_in_one_place():
    importers = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "importlib.metadata"
    }
    assert importers == {"versions.py"}
