"""Training in each mode, beside the bare loop and the views by themselves."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch

from benchmarks.gpu.setting import Figures, Part, Setting
from benchmarks.training import bare, ssl_train, views

PRECISIONS = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
COMPILED = (None, "default", "reduce-overhead", "max-autotune")
METHODS = ("directclr", "gessl")


@dataclass(frozen=True)
class Mode:
    """How a run computes: `precision` is one of `PRECISIONS`.

    All but fp32 let what is left of float32 be TF32, in products and convolutions; PyTorch by itself, in convolutions.
    """

    precision: str = "bf16"
    channels_last: bool = True
    compile: str | None = None
    method: str = "simclr"

    @property
    def name(self) -> str:
        method = () if self.method == "simclr" else (self.method,)
        memory = ("channels_last",) if self.channels_last else ()
        return "-".join((*method, self.precision, *memory, *((self.compile,) if self.compile else ())))

    @property
    def overrides(self) -> list[str]:
        """For ssl-train."""
        return [
            f"method={self.method}",
            f"trainer.precision={PRECISIONS[self.precision]}",
            f"float32_matmul={'highest' if self.precision == 'fp32' else 'high'}",
            f"channels_last={str(self.channels_last).lower()}",
            *([f"compile={self.compile}"] if self.compile else []),
        ]

    def enter(self) -> None:
        """What a run does not choose, in this process."""
        torch.backends.cudnn.allow_tf32 = self.precision != "fp32"

    def part(self) -> Part:
        limit = {None: 90.0, "max-autotune": 300.0}.get(self.compile, 180.0)
        if self.method == "gessl" or self.precision == "fp32":  # which take several times as long
            limit = max(limit, 180.0)
        on_cpu = self.precision in ("fp32", "bf16") and self.compile is None
        return Part(self.name, "training", self.measure, limit, on_cpu)

    def measure(self, setting: Setting) -> Iterator[Figures]:
        """Of ssl-train over its later epochs; the bare loop; what a step spends outside of that loop's work; views."""
        self.enter()
        left_out = 2 if self.compile and self.compile != "default" else 1
        epochs = left_out + (1 if setting.toy else 4)
        config = setting.config(*self.overrides, f"trainer.max_epochs={epochs}")
        trained = ssl_train(config, left_out)
        yield trained
        theirs = bare(config, setting.device, setting.steps)
        of_bare = trained["images_per_second"] / theirs
        yield {"bare_images_per_second": theirs, "of_bare": of_bare, "outside_share": 1 - of_bare}
        step = setting.batch / trained["images_per_second"]
        yield {"views_share": views(config, setting.device, setting.steps) / step}


VALUABLE = [
    *(Mode(precision) for precision in ("bf16", "fp32", "tf32", "fp16")),
    Mode(compile="default"),
    *(Mode(method=method) for method in METHODS),
    Mode(compile="reduce-overhead"),
    *(Mode(precision, channels_last=False) for precision in ("bf16", "fp32", "tf32", "fp16")),
    Mode(compile="max-autotune"),
]
PRODUCT = [Mode(*how) for how in product(("bf16", "fp16", "tf32", "fp32"), (True, False), COMPILED)]
MODES = [*VALUABLE, *(mode for mode in PRODUCT if mode not in VALUABLE)]
"""The most valuable ones first."""
