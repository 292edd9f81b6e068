"""The device that a process works on, and how much memory it has needed there since it began to count."""

import contextlib
import re
import resource
import sys
from pathlib import Path

import torch


def count_memory(device: torch.device) -> None:
    """Begins to count anew. Where the system counts from the start of the process alone, nothing happens."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak becomes what is held now


def peak_memory(device: torch.device) -> int:
    """Bytes, at most at once: of tensors on a GPU, or else all that the process held in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with contextlib.suppress(OSError):
        if found := re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text()):
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def seed_generators(seed: int, device: torch.device) -> None:
    """Seeds the global generators of the host and of this device, as `torch.manual_seed` does: that also writes down a
    trace of the stack for each kind of device that is not there, which takes milliseconds."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def solving_device(device: torch.device) -> torch.device:
    """Where probes are solved: on the CPU where a device has no float64, as Apple's."""
    return torch.device("cpu") if device.type == "mps" else device


def device_of(accelerator: str) -> torch.device:
    """The device that a trainer of this accelerator would use in its first process, or the CPU."""
    wanted = accelerator in ("auto", "gpu", "cuda")
    return torch.device("cuda") if wanted and torch.cuda.is_available() else torch.device("cpu")
