"""A GeSSL step beside its cost model, in SimCLR steps on one of its mini-batches.

Modelled: M (K + λ + 1) in first order and M (3K + λ + 4/3) in second, with the same views for both losses. Reported is
what the method says of itself, and what a run's results.json counts with; counted are FLOPs of convolutions and matrix
products, timed is the wall time of forward and backward passes.

K = λ = 0 adapts nothing, and π is compared with itself: the model would have the base step alone, but the gradient of
the meta loss (0) is still taken, a backward pass more: 5/3.
"""

import functools
import itertools
from collections.abc import Callable, Iterator

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.peers.figures import Options, Row, by_turns, seconds_of
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import LOCAL
from ssl_lightning.methods.gessl import GeSSL
from ssl_lightning.methods.method import SSLMethod
from ssl_lightning.methods.simclr import SimCLR
from ssl_lightning.models.backbones import resnet_tiny
from ssl_lightning.models.projectors import mlp

TASKS = 2


def modelled(order: str, inner: int, future: int) -> float:
    return TASKS * (inner + future + 1 if order == "first" else 3 * inner + future + 4 / 3)


def step_of(method: SSLMethod, images: int, size: int) -> Callable[[], None]:
    generator = torch.Generator().manual_seed(0)
    positions = torch.arange(images)
    batch = Batch((torch.randn(2, images, 3, size, size, generator=generator),), positions % 10, positions)

    def step() -> None:
        method.zero_grad()
        method.ssl_loss(batch, LOCAL, Draw()).loss.backward()

    return step


def flops(step: Callable[[], None]) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def simclr(width: int) -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(resnet_tiny(width=width), functools.partial(mlp, outputs=128)).to(memory_format=torch.channels_last)


def rows(options: Options) -> Iterator[Row]:
    images, size, width, at_least = (4, 8, 8, 0.0) if options.small else (32, 32, 16, 0.3)
    numbers = range(2) if options.small else range(3)
    base = step_of(simclr(width), images, size)
    one = flops(base)
    for order, inner, future in itertools.product(("first", "second"), numbers, numbers):
        method = GeSSL(simclr(width), tasks=TASKS, inner_steps=inner, future_steps=future, order=order)
        step = step_of(method, TASKS * images, size)
        steps = {"SimCLR": base, "GeSSL": step}
        ways = {who: lambda s=s: {"seconds": seconds_of(s, at_least)} for who, s in steps.items()}
        seconds = {who: figures["seconds"] for who, figures in by_turns(ways, options.turns).items()}
        yield Row(
            f"{order} order",
            f"K = {inner}, λ = {future}",
            {
                "modelled": [modelled(order, inner, future)],
                "reported": [TASKS * method.gradient_evaluations],
                "counted": [flops(step) / one],
                "timed": [a / b for a, b in zip(seconds["GeSSL"], seconds["SimCLR"], strict=True)],
            },
        )
