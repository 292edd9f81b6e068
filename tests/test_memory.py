"""Memory that a step has freed serves the next one."""

import ctypes
import os
import subprocess
import sys

import pytest

GLIBC = hasattr(ctypes.CDLL(None), "mallopt")
FAULTS = """
import resource, sys
from ssl_lightning.memory import keep_freed_memory
kept = sys.argv[1] == "keep" and keep_freed_memory()
def step():
    return b"1" * 2**26
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(int(kept), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **environment: str) -> tuple[bool, int]:
    """Whether freed memory was to be kept, and how many pages 20 steps were given anew."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, how], env=plain | environment, capture_output=True, text=True, check=True
    )
    kept, number = map(int, done.stdout.split())
    return bool(kept), number


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc")
def test_large_blocks_are_not_fetched_anew():
    plain, kept = faults("plain"), faults("keep")
    assert (plain[0], kept[0]) == (False, True)
    assert kept[1] * 10 < plain[1]


@pytest.mark.parametrize(
    "environment", [{"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.trim_threshold=131072"}]
)
def test_what_the_environment_says_counts(environment: dict[str, str]):
    assert not faults("keep", **environment)[0]
