"""SAS's subset selection beside a plain greedy that keeps the full matrix: time, and memory beyond the features.

    python -m benchmarks.selection [--device cuda]

Each figure is of a fresh process, on clustered unit vectors in float32. Memory is the peak of that process less what
it held just before, with features made and libraries warm: never too little. The plain greedy recomputes the gains of
all that are left at each pick by one matrix-vector product; a case that would take it longer than a minute is
extrapolated (≈) from as many picks as the minute allows, and many classes from a few.

Then the other scores that look at embeddings, each of fresh processes with one thread: seconds of the processor, which
other work on the machine hardly changes, of 50,000 vectors in ten groups and in one, and the memory of the latter.
"""

import argparse
import os
import resource
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ssl_lightning.subsets.alignment import alignment
from ssl_lightning.subsets.coverage import facility_location
from ssl_lightning.subsets.d2 import d2
from ssl_lightning.subsets.greedy import graph_cut, row_sum
from ssl_lightning.subsets.herding import herding
from ssl_lightning.subsets.k_center import k_center
from ssl_lightning.subsets.knn_density import density

LIMIT = 60.0


class Case(NamedTuple):
    """`classes` of n × d, each ranked by `rule`, and how many of them the plain greedy ranks for comparison."""

    rule: str
    n: int
    classes: int = 1
    budget: int | None = None
    memory: int = 2**31
    repeats: int = 1
    compared: int = 0
    target: str = ""
    d: int = 128


CASES = (
    Case("graph_cut", 5_000, repeats=7, compared=1, target="< 0.3 s"),
    Case("graph_cut", 5_000, repeats=7, memory=2**25),
    Case("row_sum", 5_000, repeats=7),
    Case("graph_cut", 1_281, classes=1_000, compared=5, target="< 15 s, < 500 MB"),
    Case("row_sum", 1_281, classes=1_000),
    Case("row_sum", 100_000, memory=2**28),
    Case("graph_cut", 100_000, memory=2**28, budget=5_000),
)


SCORES = {
    "density": lambda group: density(group, 10),
    "alignment": lambda group: alignment(group.numpy(), 8),
    "facility_location": lambda group: facility_location(group, 2**30),
    "k_center": lambda group: k_center(group, 2**30),
    "herding": herding,
    "d2": lambda group: d2(group, np.ones(len(group))),
}


class Cost(NamedTuple):
    seconds: float
    host: float  # MB
    device: float  # MB, beside the host's
    exact: bool = True


def cluster(vectors: Tensor, generator: torch.Generator, centres: int = 20) -> Tensor:
    """Makes them unit vectors about random centres, with as much noise as centre, and no copy."""
    vectors.normal_(generator=generator)
    for k, centre in enumerate(torch.randn(centres, vectors.shape[1], generator=generator, dtype=vectors.dtype)):
        vectors[k::centres] += centre
    return vectors.div_(vectors.norm(dim=1, keepdim=True))


def textbook(features: Tensor, limit: float = LIMIT) -> tuple[list[int], float]:
    """Picks of the greedy cut from the full matrix, as many as the limit allows, and the seconds of all of them."""
    started = time.perf_counter()
    similarities = (features @ features.T).clamp_(min=0).fill_diagonal_(0)
    sums = similarities.sum(1)
    taken = torch.zeros_like(sums)
    picks: list[int] = []
    prepared = time.perf_counter()
    while len(picks) < len(features) and time.perf_counter() - started < limit:
        gains = sums - 2 * (similarities @ taken)
        picks.append(int(gains.masked_fill_(taken > 0, -torch.inf).argmax()))
        taken[picks[-1]] = 1
    now = time.perf_counter()
    return picks, prepared - started + (now - prepared) * len(features) / len(picks)


def measure(case: Case, device: str, plain: bool) -> Cost:
    """In a process of its own: of a case, or of the plain greedy on the case."""
    generator = torch.Generator().manual_seed(0)
    made = torch.empty(case.compared if plain else case.classes, case.n, case.d)
    for vectors in made:
        cluster(vectors, generator)
    features = made.to(device)
    graph_cut(features[0, :64])
    cuda = features.is_cuda
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[1]) * resource.getpagesize()
    held_there = torch.cuda.memory_allocated() if cuda else 0

    seconds, exact = [], True
    for _ in range(1 if plain else case.repeats):
        if plain:
            found = [textbook(one) for one in features]
            seconds.append(sum(estimate for _, estimate in found) * case.classes / case.compared)
            exact = case.classes == case.compared and all(len(picks) == case.n for picks, _ in found)
            continue
        started = time.perf_counter()
        for one in features:
            if case.rule == "graph_cut":
                graph_cut(one, budget=case.budget, memory=case.memory)
            else:
                row_sum(one, memory=case.memory)
        seconds.append(time.perf_counter() - started)

    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held
    there = torch.cuda.max_memory_allocated() - held_there if cuda else 0
    return Cost(statistics.median(seconds), host / 1e6, there / 1e6, exact)


def measure_score(name: str, groups: int, n: int) -> Cost:
    """In a process of its own: a score of n vectors in groups of equal size, by one thread."""
    torch.set_num_threads(1)
    features = cluster(torch.empty(n, 128), torch.Generator().manual_seed(0))
    SCORES[name](features[:64])
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[1]) * resource.getpagesize()
    started = time.process_time()
    for k in range(groups):
        SCORES[name](features[k::groups])
    seconds = time.process_time() - started
    return Cost(seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - held) / 1e6, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    device = parser.parse_args().device
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"products on: {name}; {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'':51} {'MB beyond features':>20} {'plain greedy':>18}")
    print(f"{'rule':9} {'classes × n × d':>20} {'picks':>7} {'limit MB':>8} {'s':>8}", end="")
    print(f" {'host':>9} {'device':>8} {'s':>9} {'MB':>8} {'ratio':>7}  target")
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:
        for case in CASES:
            ours = fresh.submit(measure, case, device, False).result()
            size = f"{case.classes:,} × {case.n:,} × {case.d}"
            picks = "" if case.rule == "row_sum" else f"{case.budget or case.n:,}"
            print(f"{case.rule:9} {size:>20} {picks:>7} {case.memory / 1e6:>8.0f} {ours.seconds:>8.2f}", end="")
            there = f"{ours.device:.0f}" if device == "cuda" else ""
            print(f" {ours.host:>9.0f} {there:>8}", end="", flush=True)
            if case.compared:
                plain = fresh.submit(measure, case, device, True).result()
                shown = f"{'' if plain.exact else '≈ '}{plain.seconds:.1f}"
                print(f" {shown:>9} {plain.host + plain.device:>8.0f} {plain.seconds / ours.seconds:>7.0f}", end="")
            else:
                print(f" {'':>26}", end="")
            print(f"  {case.target}", flush=True)
        print("\n50,000 × 128, one thread: seconds of the processor, MB beyond features")
        for name in SCORES:
            ten, one = (fresh.submit(measure_score, name, groups, 50_000).result() for groups in (10, 1))
            print(f"{name:18} ten groups {ten.seconds:6.1f} s {ten.host:6.0f} MB", end="")
            print(f"   one group {one.seconds:6.1f} s {one.host:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
