"""What a ranking prefers: a description for the terminal, and two pictures."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from ssl_lightning.data.dataset import Split
from ssl_lightning.subsets.latent import purity
from ssl_lightning.subsets.ranking import Ranking, turning_points

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROWS = 10  # latent classes in a table
SHEET_CLASSES, SHEET_IMAGES = 8, 10
PARTS = 10  # of a curve
FIRST = 20  # a best score so many times the median would flatten a curve


def describe(ranking: Ranking, labels: Int64[np.ndarray, " n"], name: str) -> None:
    """Prints what the ranking is called, of what it is, latent classes with purity, quota and redundancy, and the
    scores along it."""
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"{name} ranking of {ranking.fingerprint}", style="bold", markup=False)
    classes, group, sizes = np.unique(ranking.latent_class, return_inverse=True, return_counts=True)
    several = f"{len(sizes)} latent classes of {sizes.min():,} to {sizes.max():,} images"
    console.print(
        (f"{several} (median {np.median(sizes):,.0f}), " if len(sizes) > 1 else "one latent class, ")
        + f"purity {_number(purity(ranking.latent_class, labels))}"
    )
    for line in _composition(ranking):
        console.print(line)
    turning = turning_points(ranking)
    cut = _is_graph_cut(ranking)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("latent class", "images", "purity", *(["best score", "worst score"] if ranking.scored else [])):
        table.add_column(column, justify="right")
    if cut:
        table.add_column("first negative at", justify="right")
    shown = np.sort(np.argsort(-sizes, kind="stable")[:ROWS])
    for k in shown:
        members = group == k
        scores = ranking.score[members]
        table.add_row(
            str(classes[k]),
            f"{sizes[k]:,}",
            _number(purity(ranking.latent_class[members], labels[members])),
            *([f"{scores.max():.4g}", f"{scores.min():.4g}"] if ranking.scored else []),
            *([_share(turning[k])] if cut else []),
        )
    console.print(table)
    if len(sizes) > ROWS:
        console.print(f"and {len(sizes) - ROWS} more latent classes")
    if not ranking.scored:
        return
    curve = Table(box=None, padding=(0, 1, 0, 0), title="mean score of each tenth of the ranking", title_justify="left")
    parts = np.array_split(ranking.score[ranking.order], min(PARTS, len(ranking)))
    for end in np.cumsum([len(part) for part in parts]):
        curve.add_column(f"{end / len(ranking):.0%}", justify="right")
    means = [float(part.mean()) for part in parts]
    curve.add_row(*(f"{mean:.0f}" if abs(mean) >= 100 else f"{mean:.3g}" for mean in means))  # 80 columns hold these
    console.print(curve)
    if cut:
        console.print(
            f"first negative gain at {_share(turning.min())}, in the median class {_share(np.median(turning))}"
        )


def _classes(number: int) -> str:
    return "the one latent class gives" if number == 1 else f"{number:,} latent classes give"


def _composition(ranking: Ranking) -> Iterator[str]:
    """What a quota and redundancy make of the order within latent classes."""
    if ranking.keys is not None and (quota := ranking.provenance["parameters"].get("quota")):
        settings = ", ".join(f"{key} {value}" for key, value in quota.items() if key != "name")
        half = ranking.mask(0.5 * ranking.max_fraction)
        _, counts = np.unique(ranking.latent_class[half.positions], return_counts=True)
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", quota["name"]).lower()
        yield (
            f"quota {name}{f' ({settings})' if settings else ''}: of the best "
            f"{half.fraction:.0%}, {_classes(len(counts))} {counts.min():,} to {counts.max():,}"
        )
    if (redundant := ranking.provenance.get("redundant")) is not None:
        yield f"{redundant:,} of {len(ranking):,} images are redundant, and come last"


def gain_curve(ranking: Ranking, path: Path) -> Path:
    """Scores along each latent class that a contact sheet shows, and where the first of a class is negative."""
    from ssl_lightning.reports.figures import own_style, panels, save  # late: matplotlib takes a second to import

    with own_style():
        figure, (axis,) = panels(1)
        for k, members in _largest(ranking).items():
            axis.plot((np.arange(len(members)) + 0.5) / len(members), ranking.score[members], linewidth=1, label=str(k))
        if _is_graph_cut(ranking):
            axis.axhline(0, color="grey", linewidth=0.8)
            turning = float(np.median(turning_points(ranking)))
            axis.axvline(turning, color="grey", linestyle="--", linewidth=0.8, label=f"median turn {turning:.2f}")
        axis.set(xlabel="fraction of the latent class", ylabel="score")
        middle = float(np.median(np.abs(ranking.score)))
        if ranking.score.min() >= 0 and 0 < FIRST * middle < ranking.score.max():  # the first of a greedy covers most
            axis.set_yscale("symlog", linthresh=middle)
        axis.legend(fontsize="x-small", title="latent class", title_fontsize="x-small")
        return save(figure, path, f"{ranking.provenance['rule']}: scores from best to worst")


def contact_sheet(ranking: Ranking, split: Split, path: Path) -> Path:
    """The best and the worst images of the largest latent classes, a row a class."""
    from matplotlib.figure import Figure

    from ssl_lightning.reports.figures import own_style, save

    with own_style():
        chosen = _largest(ranking)
        figure = Figure(figsize=(10, 0.5 + 0.5 * len(chosen)), layout="constrained")
        for axis, title, end in zip(
            figure.subplots(1, 2, squeeze=False)[0],
            ("best, from the first", "worst, to the last"),
            (0, -1),
            strict=True,
        ):
            rows = [members[:SHEET_IMAGES] if end == 0 else members[-SHEET_IMAGES:] for members in chosen.values()]
            show_tiles(axis, split, rows, [str(k) for k in chosen])
            axis.set_title(title, fontsize="small")
        return save(figure, path, f"{ranking.provenance['rule']}: images of the {len(chosen)} largest latent classes")


def show_tiles(
    axis: "Axes",
    split: Split,
    rows: Sequence[Int64[np.ndarray, " _"]],
    names: Sequence[str],
    columns: int = SHEET_IMAGES,
) -> None:
    """Images side by side, a row for each name. Of images of more than three channels, the first three are shown; of
    two, the first."""
    size = split.images.shape[-1] + 1
    shown = slice(3 if split.images.shape[1] >= 3 else 1)
    sheet = np.full((size * len(rows), size * columns, 3), 255, np.uint8)
    for row, positions in enumerate(rows):
        for column, image in enumerate(split.images[np.array(positions)][:, shown].permute(0, 2, 3, 1).numpy()):
            sheet[row * size : (row + 1) * size - 1, column * size : (column + 1) * size - 1] = image
    axis.imshow(sheet, interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks((np.arange(len(rows)) + 0.5) * size, names, fontsize="x-small")
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _largest(ranking: Ranking) -> dict[int, Int64[np.ndarray, " m"]]:
    """The members of the largest latent classes, best first."""
    classes, sizes = np.unique(ranking.latent_class, return_counts=True)
    chosen = np.sort(classes[np.argsort(-sizes, kind="stable")[:SHEET_CLASSES]])
    in_order = ranking.latent_class[ranking.order]
    return {int(k): ranking.order[in_order == k] for k in chosen}


def _is_graph_cut(ranking: Ranking) -> bool:
    """Whether the sign of a score says whether an image still raises the objective."""
    return ranking.provenance["parameters"].get("rule") == "graph_cut"


def _number(value: float) -> str:
    return "–" if value != value else f"{value:.3f}"


def _share(value: float) -> str:
    return "–" if value >= 1 else f"{value:.2f}"
