"""Two processes on one GPU, over gloo: steps of DDP are those of one process with the whole batch.

Lightning gives each process a GPU of its own, and so does NCCL; here two share one.
"""

from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.correctness import Gradient, batch_of, differences, exact, flat
from benchmarks.gpu.setting import Figures, Setting
from ssl_lightning.config.components import make
from ssl_lightning.data.batch import Batch
from ssl_lightning.data.draw import Draw
from ssl_lightning.losses.gather import Gather
from ssl_lightning.methods.method import SSLMethod


class Loss(nn.Module):
    """From views to the loss, as DistributedDataParallel wants it."""

    def __init__(self, method: SSLMethod, gather: Gather) -> None:
        super().__init__()
        self.method, self.gather = method, gather

    def forward(self, batch: Batch, draw: Draw) -> torch.Tensor:
        return self.method.ssl_loss(batch, self.gather, draw).loss


def gradient_of_share(config: dict[str, Any], device: torch.device, rank: int, size: int) -> Gradient:
    """Of one of so many processes, which holds what all of them have computed. BatchNorm's statistics are those of all,
    which torch has on GPUs only; on the CPU they are constants."""
    exact()
    L.seed_everything(0, verbose=False)
    method: SSLMethod = make(config["method"])
    if device.type == "cpu":
        for layer in method.modules():
            if isinstance(layer, _BatchNorm):
                layer.eval()
    elif size > 1:
        method = nn.SyncBatchNorm.convert_sync_batchnorm(method)
    method.to(device)
    whole = batch_of(config, device, torch.float32)
    n = len(whole.index)
    module: nn.Module = Loss(method, Gather(rank, size))
    loss = DistributedDataParallel(module) if size > 1 else module
    value = loss(whole.part(slice(rank * n // size, (rank + 1) * n // size)), Draw())
    value.backward()
    total = value.detach()
    if size > 1:
        dist.all_reduce(total)
    return Gradient(float(total) / size, flat(method))


def _work(rank: int, configs: dict[str, dict[str, Any]], device: torch.device, folder: str) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    for name, config in configs.items():
        found = gradient_of_share(config, device, rank, 2)
        if rank == 0:
            torch.save(tuple(found), f"{folder}/{name}.pt")
    dist.destroy_process_group()


def two_processes(setting: Setting) -> Iterator[Figures]:
    """Loss and gradient of both, relative to those of one process."""
    configs = {name: setting.config(f"method={name}") for name in ("simclr", "directclr")}
    torch.multiprocessing.spawn(_work, (configs, setting.device, str(setting.work)), nprocs=2)
    for name, config in configs.items():
        found = Gradient(*torch.load(setting.work / f"{name}.pt", weights_only=True))
        yield differences(found, gradient_of_share(config, setting.device, 0, 1), name)
