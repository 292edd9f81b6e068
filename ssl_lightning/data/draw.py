"""Random numbers of a step that the same step gives again."""

import contextlib
from collections.abc import Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ssl_lightning.data.sampler import seed_of
from ssl_lightning.devices import seed_generators


class Draw:
    """Random numbers that are a function of (seed, batch number, rank) and of what they are for.

    A loss that draws from it stays pure: asked again, in GeSSL's next pass or after a resume, it gives the same.
    Numbers are made on the host and copied without waiting for the device.

    Args:
        seed: of the training.
        batch: number of the batch, from 0.
        rank: of the process; None for numbers that all ranks share.
    """

    def __init__(self, seed: int = 0, batch: int = 0, rank: int | None = 0, part: int = 0) -> None:
        self.seed, self.batch, self.rank, self._part = seed, batch, rank, part
        self._common = "common " if rank is None else ""
        self._numbers = (seed, batch, *(() if rank is None else (rank,)), *((part,) if part else ()))

    def common(self) -> "Draw":
        """The draw of this batch that all ranks have in common."""
        return Draw(self.seed, self.batch, None, self._part)

    def part(self, number: int) -> "Draw":
        """The draw of a part of the batch that is computed by itself; part 0 draws as the whole would."""
        return Draw(self.seed, self.batch, self.rank, number)

    def generator(self, purpose: str) -> torch.Generator:
        """A generator on the CPU, at its start; independent of those of other purposes."""
        return torch.Generator().manual_seed(seed_of(f"{self._common}draw {purpose}", *self._numbers))

    def uniform(self, purpose: str, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "..."]:
        """Numbers in [0, 1)."""
        return to_device(torch.rand(shape, generator=self.generator(purpose)), device)

    def normal(self, purpose: str, *shape: int, device: torch.device | str = "cpu") -> Float[Tensor, "..."]:
        """Numbers of mean 0 and standard deviation 1."""
        return to_device(torch.randn(shape, generator=self.generator(purpose)), device)

    def permutation(self, purpose: str, n: int, device: torch.device | str = "cpu") -> Int64[Tensor, " n"]:
        """0 … n − 1 in random order."""
        return to_device(torch.randperm(n, generator=self.generator(purpose)), device)

    @contextlib.contextmanager
    def seeded(self, device: torch.device | str = "cpu") -> Iterator[None]:
        """Modules that draw from the global generators, as dropout does, give the same numbers at each entry.

        The generators are left as they were found.
        """
        device = torch.device(device)
        accelerators = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(accelerators):
            seed_generators(seed_of(f"{self._common}step", *self._numbers), device)
            yield


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies from the host without waiting for the device."""
    device = torch.device(device)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
