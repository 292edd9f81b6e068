"""All that is measured, in order: what must be right, then figures, the most valuable first."""

from benchmarks.gpu.around import evaluation, storage
from benchmarks.gpu.correctness import resumed, same_draws, tests, twice
from benchmarks.gpu.modes import MODES
from benchmarks.gpu.pair import two_processes
from benchmarks.gpu.setting import Part

PARTS = (
    Part("tests", "correctness", tests, 180.0),
    Part("same_draws", "correctness", same_draws),
    Part("resumed", "correctness", resumed, 120.0),
    Part("twice", "correctness", twice),
    Part("two_processes", "correctness", two_processes),
    *(mode.part() for mode in MODES[:4]),
    Part("evaluation", "around training", evaluation, 120.0),
    *(mode.part() for mode in MODES[4:8]),
    Part("storage", "around training", storage, 120.0),
    *(mode.part() for mode in MODES[8:]),
)
BY_NAME = {part.name: part for part in PARTS}
