"""What tells runs apart."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

IRRELEVANT = (
    "sweep",
    "debug",
    "paths",
    "logger",
    "checkpoint",
    "evaluation",
    "callbacks.online_probe",
    "dataset.root",
    "dataset.cache",
    "dataset.download",
    "dataset.storage",
    "dataset.resident_gib",
    "dataset.workers",
    "subset.cache",
    "subset.accelerator",
    "subset.memory_gib",
    *(f"subset.proxy.dataset.{key}" for key in ("root", "cache", "download", "storage", "resident_gib", "workers")),
    *(f"subset.proxy.{key}" for key in ("paths", "evaluation", "checkpoint")),
    *(f"subset.proxy.{key}" for key in ("accelerator", "enable_progress_bar", "fast_dev_run")),
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.profiler",
    "trainer.strategy",
    "trainer.default_root_dir",
)
"""Keys that cannot change the encoder that a run trains: no part of its identity."""


FILES = ("subset.path",)
"""Keys of files whose content, wherever it lies, is part of a run's identity; their names tell the cells of a report
apart, which know no contents."""


SEEDS = ("seed", "subset.seed", "subset.proxy.seed")
"""Keys in which the runs of one cell of a report differ."""


def identity(config: Mapping[str, Any], contents: Mapping[str, Any], ignore: Iterable[str] = ()) -> str:
    """Eight hex digits that tell runs apart whose encoders may differ.

    Args:
        config: resolved config.
        contents: what the config does not say but the encoder depends on: hashes of data, processes, device.
        ignore: further keys to leave out, dotted.
    """
    relevant = deepcopy(dict(config))
    for key in (*IRRELEVANT, *ignore):
        *parents, last = key.split(".")
        node: Any = relevant
        for parent in parents:
            node = node.get(parent) or {}
        node.pop(last, None)
    text = json.dumps({"config": relevant, "contents": dict(contents)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def component_name(config: Mapping[str, Any]) -> str:
    """`SimCLR` -> simclr; a wrapper names what it wraps, as in gessl-directclr."""
    name = config["_target_"].rpartition(".")[2].lower()
    base = config.get("base")
    return f"{name}-{component_name(base)}" if base else name
