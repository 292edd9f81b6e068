"""The way from settings to the experiments' numbers and pictures, top to bottom."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ssl_lightning.config.components import make
from ssl_lightning.errors import UserError
from ssl_lightning.files import write_json
from ssl_lightning.theory.experiments import ALIVE, Aligned, Alignment, Augmented, Depth, Spectra, StrongAugmentation

if TYPE_CHECKING:
    from rich.table import Table

FILE = "theory.json"


def theory(config: Mapping[str, Any]) -> Path:
    """Makes the experiments of a resolved config, prints them, and writes numbers and pictures. Returns the folder.

    Raises:
        UserError: settings do not go together, training diverges, or the folder cannot be written to.
    """
    augmentation: StrongAugmentation = make(config["augmentation"])
    depth: Depth = make(config["depth"])
    alignment: Alignment = make(config["alignment"])
    seed, to = config["seed"], Path(config["to"])
    with _one_thread():
        with _named("augmentation"):
            augmented = augmentation.run(seed)
        with _named("depth"):
            spectra = depth.run(seed)
        with _named("alignment"):
            aligned = alignment.run(seed)
    _describe(augmented, augmentation.dimensions - augmentation.noisy, spectra, aligned)

    numbers: dict[str, Augmented | Spectra | Aligned] = {
        "augmentation": augmented,
        "depth": spectra,
        "alignment": aligned,
    }
    written: dict[str, Any] = {"seed": seed, "torch": torch.__version__}
    for name, found in numbers.items():
        written[name] = {"settings": config[name], **{key: _plain(value) for key, value in found._asdict().items()}}
    write_json(to / FILE, written)
    for file in (to / FILE, *_pictures(to, augmented, augmentation.noisy, spectra, aligned)):
        print(file, flush=True)
    return to


@contextlib.contextmanager
def _named(experiment: str) -> Iterator[None]:
    """What is raised says in which experiment; each has an lr."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{experiment}: {error}") from None


def _pictures(to: Path, augmented: Augmented, noisy: int, spectra: Spectra, aligned: Aligned) -> list[Path]:
    from ssl_lightning.reports.theory import alignment_over_time, over_noise, spectra_by_depth  # late: matplotlib

    return [
        over_noise(augmented, noisy, to / "augmentation.png"),
        spectra_by_depth(spectra, to / "depth.png"),
        alignment_over_time(aligned, to / "alignment.png"),
    ]


def _describe(augmented: Augmented, clean: int, spectra: Spectra, aligned: Aligned) -> None:
    from rich.console import Console

    last, first = f"σ{clean}", f"σ{clean + 1}"
    values = augmented.singular_values
    by_noise = _table(
        "strong augmentation: one layer",
        {
            "noise": [f"{noise:g}" for noise in augmented.noise],
            "largest σ": values[:, 0],
            last: values[:, clean - 1],
            first: values[:, clean],
            f"{last}/{first}": augmented.gap,
        },
    )
    by_depth = _table(
        "implicit regularisation: next to no noise",
        {
            "layers": list(map(str, spectra.layers)),
            "largest σ": spectra.singular_values[:, 0],
            "effective rank": torch.tensor(spectra.effective_rank),
            f"σk ≥ {ALIVE:g} σ1": list(map(str, spectra.alive)),
        },
    )
    left = aligned.diagonal[-1, aligned.alive :]
    others = f"; the mean of the other {len(left)} is {left.mean():.2f}" if len(left) else ""
    console = Console(highlight=False)
    console.print(by_noise, "", by_depth, "", sep="\n")
    console.print(
        f"alignment |V₂ᵀU₁| of two layers: at least {aligned.diagonal[-1, : aligned.alive].min():.3f} "
        f"in the {aligned.alive} directions with σk ≥ {ALIVE:g} σ1{others}\n",
        soft_wrap=True,
    )


def _table(title: str, columns: Mapping[str, Tensor | Sequence[str]]) -> "Table":
    from rich import box
    from rich.table import Table

    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for name in columns:
        made.add_column(name, justify="right")
    for row in zip(*columns.values(), strict=True):
        made.add_row(*(value if isinstance(value, str) else f"{value:.2f}" for value in row))
    return made


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Matrices of 16×16 are done before a second thread has begun."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value
