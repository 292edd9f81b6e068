"""What a job may use at a time: some of the GPUs, or of the CPU."""

import contextlib
import itertools
import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from ssl_lightning.errors import UserError


@dataclass(frozen=True)
class Slot:
    """What one job at a time may use.

    Args:
        gpus: names as in CUDA_VISIBLE_DEVICES; none: all that the pool sees.
        cores: to which its processes are bound; none: all.
        threads: of a process of a job, where OMP_NUM_THREADS says nothing else; None: as many as libraries choose.
    """

    gpus: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()
    threads: int | None = None

    def environment(self, inherited: Mapping[str, str]) -> dict[str, str]:
        """Variables of its jobs."""
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        gpus = {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)} if self.gpus else {}
        return {**threads, **inherited, **gpus}

    @contextlib.contextmanager
    def cores_bound(self) -> Iterator[None]:
        """Processes started here run on its cores, where the system can bind them."""
        if not self.cores or not hasattr(os, "sched_setaffinity"):
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, self.cores)  # of this thread, from which they inherit it
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)

    def __str__(self) -> str:
        if self.gpus:
            return f" (GPU {','.join(self.gpus)})"
        return f" (CPU {','.join(map(str, self.cores))})" if self.cores else ""


def make_slots(wanted: Any, gpus: Sequence[str], cores: Set[int]) -> list[Slot]:
    """The slots that `hydra.launcher.slots` asks for.

    Args:
        wanted: `auto`, a number, or a list of sets of GPUs, or of CPU cores where there are no GPUs: `["0,1", "2,3"]`.
        gpus: that there are, in order, named as in CUDA_VISIBLE_DEVICES.
        cores: numbers of the CPU cores that there are.
    """
    if wanted == "auto":
        wanted = max(1, len(gpus))
    if isinstance(wanted, int) and wanted >= 1:
        if not gpus:
            return [Slot(threads=_share(cores, wanted))] * wanted
        if wanted > len(gpus):
            raise UserError(
                f"hydra.launcher.slots is {wanted}, but there are {len(gpus)} GPUs: {', '.join(gpus)}. Ask for at most "
                "so many slots, or name the GPUs of each; slots=['0','0'] are two jobs at a time on GPU 0."
            )
        ends = [len(gpus) * i // wanted for i in range(wanted + 1)]
        return _of_gpus([tuple(gpus[start:end]) for start, end in itertools.pairwise(ends)], cores)
    if not isinstance(wanted, list) or not wanted or not all(isinstance(entry, str | int) for entry in wanted):
        raise UserError(
            f"hydra.launcher.slots is {wanted!r}: write auto, a number of slots, or a list with the GPUs of each "
            "(the CPU cores, where there are no GPUs), such as hydra.launcher.slots=['0,1','2,3']."
        )
    sets = [tuple(name.strip() for name in str(entry).split(",")) for entry in wanted]
    known = list(gpus) or [str(core) for core in sorted(cores)]
    for name in (name for names in sets for name in names):
        if name not in known and (name.isdigit() or not gpus):  # GPUs, and parts of them, also have longer names
            raise UserError(
                f"hydra.launcher.slots names {'GPU' if gpus else 'CPU core'} {name!r}, but this machine has "
                f"{', '.join(known)}."
            )
    if gpus:
        return _of_gpus(sets, cores)
    return [Slot(cores=tuple(map(int, names)), threads=len(names)) for names in sets]


def _of_gpus(sets: Sequence[tuple[str, ...]], cores: Set[int]) -> list[Slot]:
    """Slots of these GPUs, each with the same part of the cores for each of its GPUs."""
    ordered, parts = sorted(cores), sum(map(len, sets))
    threads = _share(cores, parts)
    slots, first = [], 0
    for names in sets:
        start, end = (len(ordered) * part // parts for part in (first, first + len(names)))
        mine = ordered[start:end] or [ordered[start]]  # where there are fewer cores than GPUs, some share one
        slots.append(Slot(gpus=names, cores=() if len(sets) == 1 else tuple(mine), threads=threads))
        first += len(names)
    return slots


def _share(cores: Set[int], parts: int) -> int | None:
    """Threads for each of some equal parts of the cores; None, to leave all as it is, where there is one part."""
    return None if parts == 1 else max(1, len(cores) // parts)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, named as in CUDA_VISIBLE_DEVICES."""
    import torch

    count = torch.cuda.device_count()
    names = os.environ.get("CUDA_VISIBLE_DEVICES")
    return [str(i) for i in range(count)] if names is None else [name.strip() for name in names.split(",")][:count]


def available_cores() -> set[int]:
    """The CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))
