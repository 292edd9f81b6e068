"""Where the package keeps its configs and grids."""

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
_TOP = PACKAGE if (PACKAGE / "conf").is_dir() else PACKAGE.parent
CONF, SWEEPS = _TOP / "conf", _TOP / "sweeps"
