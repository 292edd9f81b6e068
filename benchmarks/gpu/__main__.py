"""What only a GPU shows, in ten minutes on one: whether it computes what it should, and how fast.

    python -m benchmarks.gpu [--minutes 10] [--only bf16-channels_last storage] [--folder cifar10] [--output gpu.json]

Parts run one after another, each in a process of its own: one that fails, crashes or hangs costs itself alone. What is
right comes first, then figures, the most valuable first: SimCLR, ResNet-18 and noise of CIFAR-10's shapes (or the
images of --folder: train/<class>/*, test/<class>/*, 32×32), batch 512, in each precision, memory format and mode of
torch.compile, each beside the bare loop in the same mode; other methods, evaluation, and where images lie. Tables are
printed at the end; the JSON file is written after each part. First epochs, and windows, are left out; a figure is the
median of the others, with the device's work done at their ends.

Without a GPU, or with --toy, everything is of a toy size on the CPU, and the figures are worth nothing.
"""

import argparse
import signal
import sys
from pathlib import Path

import torch

from benchmarks.gpu.parts import BY_NAME, PARTS
from benchmarks.gpu.running import TOYS, Record, run_all
from benchmarks.gpu.tables import goals, show
from ssl_lightning.files import write_json


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=10.0, help="what goes on for longer is ended, the rest left out (10)"
    )
    parser.add_argument("--only", nargs="+", choices=BY_NAME, metavar="PART", help=f"of: {', '.join(BY_NAME)}")
    parser.add_argument("--folder", type=Path, help="of images; by default they are noise in memory")
    parser.add_argument("--toy", action="store_true", help="a toy size on the CPU, as without a GPU")
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="JSON file (gpu.json)")
    arguments = parser.parse_args()
    toy = arguments.toy or not torch.cuda.is_available()
    folder = arguments.folder and arguments.folder.resolve()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the part that is running ends too
    chosen = arguments.only or [part.name for part in PARTS if part.on_cpu or not toy]
    note = TOYS if toy else "Of one GPU"
    print(f"{note}: {len(chosen)} parts.", flush=True)

    def content(records: list[Record]) -> dict[str, object]:
        return {"note": note, "toy": toy, "parts": records, "goals": [] if toy else goals(records)}

    def tell(records: list[Record]) -> None:
        write_json(arguments.output, content(records))
        last = records[-1]
        print(f"{last['name']}: {last['status']} {last.get('error', last.get('figures', ''))}", flush=True)

    records = run_all([BY_NAME[name] for name in chosen], toy, folder, 60 * arguments.minutes, tell)
    show(content(records))
    print(f"{arguments.output} holds these figures.")
    sys.exit(any(record["status"] in ("failed", "out of time") for record in records))


if __name__ == "__main__":
    main()
