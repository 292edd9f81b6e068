"""Batches that processes, and tasks of a method, can share."""

import itertools
import re
from types import SimpleNamespace

import pytest

from ssl_lightning.data.batches import check_batches
from ssl_lightning.errors import UserError


def refusal(batch_size, processes, accumulated, tasks, needed, size) -> str:
    method = SimpleNamespace(tasks=tasks, min_images=needed)
    try:
        check_batches(batch_size, (processes, accumulated), method, size, "random, 0.5")
    except UserError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("processes", "accumulated", "tasks"), list(itertools.product([1, 2], [1, 2], [1, 2, 3])))
@pytest.mark.parametrize("needed", [1, 2])
@pytest.mark.parametrize("size", [1, 7, 13, 24, 25])
def test_what_is_refused_cannot_be_shared_and_what_is_advised_can(processes, accumulated, tasks, needed, size):
    legal = []
    for batch_size in range(1, 30):
        parts = processes * accumulated * tasks
        said = refusal(batch_size, processes, accumulated, tasks, needed, size)
        if batch_size % parts == 0 and batch_size // parts >= needed and batch_size <= size:
            assert not said
            legal.append(batch_size)
        else:
            assert said.startswith(f"batch_size is {batch_size}, ")
    too_large = refusal(72, processes, accumulated, tasks, needed, size)
    named = re.search(r"The largest legal batch_size is (\d+)\.", too_large)
    assert (int(named[1]) if named else None) == max(legal, default=None)
    assert named or "Raise subset.fraction" in too_large


def test_images_of_a_task_are_named():
    assert "8, which 2 processes cannot share equally in 3 tasks (method.tasks)" in refusal(8, 2, 1, 3, 2, None)
    assert "leaves 1 image to each of 4 tasks (method.tasks)" in refusal(4, 1, 1, 4, 2, None)
