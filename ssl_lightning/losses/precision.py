"""Full precision inside of automatic mixed precision."""

import contextlib
from contextlib import AbstractContextManager

import torch
from torch import Tensor


def widened(x: Tensor) -> Tensor:
    """In at least float32."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """What is computed within is not autocast. The meta device, on which nothing is computed, knows no autocast."""
    return contextlib.nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
