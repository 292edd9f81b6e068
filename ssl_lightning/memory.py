"""How much memory this process has needed since it began to count."""

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
