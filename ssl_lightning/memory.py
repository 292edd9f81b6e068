"""What the C library does with memory that is freed."""

import os

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""Of `mallopt`, in glibc's malloc.h."""
KEPT = 2**30
"""Bytes: a block below this is kept when it is freed, and twice as much at the end of the heap."""
SET_ELSEWHERE = ("MALLOC_", "glibc.malloc.")


def keep_freed_memory() -> bool:
    """Keeps freed blocks for the next step. By itself glibc gives large ones back to the system at once, so that each
    step of a training on a CPU gets its activations anew, page by page, each of them zeroed by the kernel.

    Returns:
        whether it does: not where the environment says how (`MALLOC_TRIM_THRESHOLD_`, `GLIBC_TUNABLES`), nor where
        the C library is another.
    """
    import ctypes

    named = {*os.environ, *os.environ.get("GLIBC_TUNABLES", "").split(":")}
    if any(name.startswith(SET_ELSEWHERE) for name in named):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl; Windows
        return False
    # Some versions take no more than 32 MiB for the first, which is much better than nothing.
    large = mallopt(_MMAP_THRESHOLD, KEPT) or mallopt(_MMAP_THRESHOLD, 2**25)
    return bool(large and mallopt(_TRIM_THRESHOLD, 2 * KEPT - 1))
