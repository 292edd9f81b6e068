"""Where the package keeps its configs and grids."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
_TOP = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
CONF, SWEEPS = _TOP / "conf", _TOP / "sweeps"


def grids(folder: Path) -> list[Path]:
    """Files of grids in a folder: those that build on another config. A sweep of wandb's beside them is none."""
    texts = {file: file.read_text(encoding="utf-8", errors="replace") for file in sorted(folder.glob("*.yaml"))}
    return [file for file, text in texts.items() if any(line.startswith("defaults:") for line in text.splitlines())]
