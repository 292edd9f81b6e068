"""SAS's selection beside the greedy of textbooks: `benchmarks.selection` on classes that take it seconds.

Each figure is of a fresh process. `python -m benchmarks.selection` has the sizes of docs/selection.md, and memory: a
process begins with the peak of the one that starts it, which is large here.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from benchmarks.peers.figures import Figures, Options, Row, contest
from benchmarks.selection import Case, measure

SMALL = (Case("graph_cut", 100, classes=2, compared=2),)
CASES = (
    Case("graph_cut", 2_000, repeats=3, compared=1),
    Case("graph_cut", 1_281, classes=20, compared=4),
)


def rows(options: Options) -> Iterator[Row]:
    with ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as fresh:

        def figures(case: Case, plain: bool) -> Callable[[], Figures]:
            def measured() -> Figures:
                cost = fresh.submit(measure, case, "cpu", plain).result()
                return {"seconds": cost.seconds}

            return measured

        for case in SMALL if options.small else CASES:
            what = f"{case.classes} × {case.n:,} × {case.d}, all ranked"
            plain = "plain greedy" + (f" (from {case.compared} classes)" if case.compared < case.classes else "")
            yield from contest(what, {"ours": figures(case, False), plain: figures(case, True)}, options.turns)
