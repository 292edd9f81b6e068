"""Versions of packages, for the record."""

from importlib.metadata import PackageNotFoundError, version


def version_of(package: str) -> str:
    """`unknown` for a package that runs from its sources without having been installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"
