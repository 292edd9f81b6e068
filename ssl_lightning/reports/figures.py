"""Plots as PNG files. Nothing depends on matplotlib's global state, or on a matplotlibrc of the user's."""

import itertools
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib import colormaps, style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

from ssl_lightning.files import replacing
from ssl_lightning.reports.comparison import scale_of
from ssl_lightning.reports.costs import COSTS, SECONDS, known, pareto_front
from ssl_lightning.reports.labels import Rows, folded
from ssl_lightning.runs.metrics import read_metrics

if TYPE_CHECKING:
    from ssl_lightning.reports.cells import Cell
    from ssl_lightning.reports.records import Curve
    from ssl_lightning.runs.run import Run

MARKERS = "osD^vP*X"
DASHES = ("-", "--", "-.", ":")
FLOOR = 1e-8
"""What is less is drawn so: float32 cannot tell it from nothing."""
LETTERS_AN_INCH = 12  # of a title
SMALL_LETTERS_AN_INCH = 14

WATCHED = {"r": "representation", "z": "embedding", "r_rest": "representation after d0"}
"""What spectra are watched of in training, with what it is called."""


class Plot(NamedTuple):
    """PNG files of one plot: panels side by side, and below each other for a window as wide as a hand.

    Args:
        about: what it is of, where there are several such: a dataset, and how encoders were evaluated.
    """

    wide: Path
    narrow: Path
    about: str


_DARK, _LIGHT = (colormaps["tab20"](range(i, 20, 2)) for i in (0, 1))
own_style = partial(style.context, ["default", {"axes.prop_cycle": cycler(color=[*_DARK, *_LIGHT])}])
"""A context, or a decorator, of what draws."""


@own_style()
def run_figures(run: "Run", results: Mapping[str, Any]) -> dict[str, Path]:
    """Training curves and spectra of one run."""
    figures = {}
    rows = read_metrics(run.metrics_file)
    if rows:
        names = [n for n in ("loss", "online/val_top1") if any(row.get(n) for row in rows)]
        figure, axes = panels(len(names))
        for name, axis in zip(names, axes, strict=True):
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            axis.plot(*zip(*points, strict=True))
            axis.set(xlabel="optimizer step", ylabel=name)
        figures["curves"] = save(figure, run.folder / "figures" / "curves.png", run.id)
    figure, axes = panels(len(results["spectra"]))
    for (name, values), axis in zip(results["spectra"].items(), axes, strict=True):
        _spectrum(axis, [values], label=None, colour="C0")
        axis.set_title(f"{name}: RankMe {results['metrics'][f'{name}/rankme']:.1f} of {len(values)}")
    figures["spectrum"] = save(figure, run.folder / "figures" / "spectrum.png", run.id)
    return figures


@own_style()
def accuracy_against_fraction(
    cells: Sequence["Cell"],
    untrained: Mapping[str, Mapping[str, Sequence[float]]],
    metrics: Mapping[str, str],
    path: Path,
    title: str,
    narrow: bool = False,
) -> Path:
    """One line a method (and subset and variant), error bars of one standard deviation over seeds.

    Args:
        untrained: metrics of untrained encoders, one value a seed, by backbone.
        metrics: what is drawn, with the names of their columns in tables.

    Where all cells have one fraction, accuracies stand side by side instead, a row for each line.
    """
    lines = _lines(cells)
    fractions = sorted({cell.fraction for cell in cells})
    figure, axes = panels(len(metrics), narrow)
    rows = Rows(list(lines), narrow)
    if len(fractions) == 1:
        rows.fit(figure, len(axes))
    for (metric, column), axis in zip(metrics.items(), axes, strict=True):
        name, scale = _axis_of(cells, metric, column), scale_of(column)
        for i, (line, members) in enumerate(lines.items()):
            points = sorted((cell.fraction, *cell.statistics(metric)) for cell in members)
            x, mean, deviation = (np.array(values) for values in zip(*points, strict=True))
            mean, error = scale * mean, scale * np.nan_to_num(deviation)
            style: Any = {"label": line, "marker": MARKERS[i % len(MARKERS)], "capsize": 3, "markersize": 5}
            if len(fractions) == 1:
                axis.errorbar(mean, [rows.at[i]], xerr=error, color=f"C{i}", **style)
            else:
                axis.errorbar(x, mean, error, color=f"C{i}", **style)
        if len(fractions) == 1:
            rows.label(axis, narrow or axis is axes[0])
            axis.set_xlabel(f"{name}, fraction {fractions[0]:g}")
            axis.locator_params(axis="x", nbins=4)  # numbers of four digits beside one another
        else:
            axis.set(xlabel="fraction of the training images", ylabel=name)
            axis.set_xlim(left=0)
        for (backbone, measured), style in zip(untrained.items(), itertools.cycle(("--", ":", "-.")), strict=False):
            if measured.get(metric):
                mark = axis.axvline if len(fractions) == 1 else axis.axhline
                label = f"untrained encoder {backbone}".strip()
                mark(scale * float(np.mean(measured[metric])), color="grey", linestyle=style, label=label)
    if len(fractions) > 1 or untrained:
        handles, labels = axes[0].get_legend_handles_labels()
        shown = len(labels) if len(fractions) > 1 else len(untrained)  # rows have names; untrained encoders come first
        _legend_below(figure, handles[:shown], labels[:shown], columns=3)
    return save(figure, path, title)


def _short(value: float, _: object) -> str:
    """0.5, 20, 128k: no prefix for less than one, which no cost is counted in."""
    return f"{value:g}" if value < 1000 else EngFormatter(sep="")(value)


@own_style()
def accuracy_against_cost(
    cells: Sequence["Cell"], metric: str, column: str, path: Path, title: str, narrow: bool = False
) -> Path:
    """A point a cell, a panel a kind of cost that is known of all and differs; a line joins the fractions of a method,
    a grey one the cells than which none is both cheaper and better, in their means."""
    scale = scale_of(column)
    lines = _lines(cells)
    costs = {cost: {known(cell, cost) for cell in cells} for cost in COSTS}
    shown = {cost: COSTS[cost] for cost, of in costs.items() if 0 not in of and len(of) > 1} or {
        "train_seconds": SECONDS
    }
    figure, axes = panels(len(shown), narrow)
    for (cost, name), axis in zip(shown.items(), axes, strict=True):
        for i, (line, members) in enumerate(lines.items()):
            points = sorted((known(cell, cost), *cell.statistics(metric), cell.fraction) for cell in members)
            x, y, error, fractions = (np.array(values) for values in zip(*points, strict=True))
            marker = MARKERS[i % len(MARKERS)]
            style: Any = {"color": f"C{i}", "marker": marker, "capsize": 2, "markersize": 5, "zorder": 3}
            y = scale * y
            axis.errorbar(x, y, scale * np.nan_to_num(error), label=line, **style)
            for at_x, at_y, fraction in zip(x, y, fractions, strict=True) if len(points) > 1 else ():
                axis.annotate(
                    f"{fraction:g}", (at_x, at_y), textcoords="offset points", xytext=(5, -11), fontsize="x-small"
                )
        front = pareto_front([(known(cell, cost), scale * cell.statistics(metric)[0]) for cell in cells])
        front_x, front_y = zip(*front, strict=True) if front else ((), ())
        axis.plot(front_x, front_y, color="grey", linewidth=4, alpha=0.35, label="Pareto front of means", zorder=1)
        axis.set(xlabel=name, ylabel=_axis_of(cells, metric, column), xscale="log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter(_short)
        axis.xaxis.set_minor_formatter(NullFormatter())  # its numbers would overlap
    _legend_below(figure, *axes[0].get_legend_handles_labels(), columns=3)
    return save(figure, path, title)


@own_style()
def log_spectra(cells: Sequence["Cell"], path: Path, title: str, narrow: bool = False) -> Path:
    """Spectra of representations and embeddings at each line's largest fraction, a thin line a seed."""
    figure, axes = panels(2, narrow)
    for name, axis in zip(("representation", "embedding"), axes, strict=True):
        for i, (label, cell) in enumerate(_largest(cells)):
            spectra = [results["spectra"][name] for results in cell.results if name in results["spectra"]]
            _spectrum(axis, spectra, label, f"C{i}", DASHES[i % len(DASHES)])
        axis.set_title(name)
    _legend_below(figure, *axes[0].get_legend_handles_labels(), columns=3)
    return save(figure, path, title)


def has_ranks(cells: Sequence["Cell"]) -> bool:
    """Whether the rank of something was watched in training."""
    return any(_ranks(cell, what) for cell in cells for what in WATCHED)


@own_style()
def rank_over_training(cells: Sequence["Cell"], path: Path, title: str, narrow: bool = False) -> Path:
    """RankMe on the validation images at each line's largest fraction, a thin line a seed."""
    watched = [what for what in WATCHED if any(_ranks(cell, what) for cell in cells)]
    figure, axes = panels(len(watched), narrow)
    for what, axis in zip(watched, axes, strict=True):
        for i, (label, cell) in enumerate(_largest(cells)):
            for number, curve in enumerate(_ranks(cell, what)):
                once = None if number else label
                marker = MARKERS[i % len(MARKERS)]
                axis.plot(
                    curve.steps, curve.values, label=once, color=f"C{i}", linewidth=1, marker=marker, markersize=3
                )
        axis.set(title=WATCHED[what], xlabel="optimizer step", ylabel=f"RankMe of {what.partition('_')[0]}")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
    labelled = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    _legend_below(figure, list(labelled.values()), list(labelled), columns=3)
    return save(figure, path, title)


def _axis_of(cells: Sequence["Cell"], metric: str, column: str) -> str:
    """What is written at an axis: the column of the tables, and what the bars are, where there are some."""
    bars = any(len(cell.values(metric)) > 1 for cell in cells)
    return f"{column} (test{', ± s.d. over seeds' * bars})"


def _largest(cells: Sequence["Cell"]) -> list[tuple[str, "Cell"]]:
    """The cell of each line with the largest fraction, and its label: with the fraction, where there are others."""
    largest = {line: max(members, key=lambda member: member.fraction) for line, members in _lines(cells).items()}
    alone = len({cell.fraction for cell in cells}) == 1
    return [(line if alone else f"{line}, fraction {cell.fraction:g}", cell) for line, cell in largest.items()]


def _ranks(cell: "Cell", what: str) -> list["Curve"]:
    """A curve a seed."""
    return [curve for record in cell.records for curve in record.curves if curve.name == f"spectrum/{what}/rankme"]


def _spectrum(
    axis: Axes, spectra: Sequence[Sequence[float]], label: str | None, colour: str, dashes: str = "-"
) -> None:
    for i, values in enumerate(spectra):
        share = np.array(values) / max(values[0], 1e-300)
        index, once = np.arange(1, len(values) + 1), label if i == 0 else None
        axis.plot(index, np.maximum(share, FLOOR), label=once, color=colour, linestyle=dashes, linewidth=1)
    least = min((np.asarray(line.get_ydata()).min() for line in axis.get_lines()), default=1.0)
    note = " (10⁻⁸: that or less)" if least <= FLOOR else ""
    axis.set(xlabel="k", ylabel=f"singular value σₖ / σ₁{note}", yscale="log")


def _legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int) -> None:
    """A legend that covers nothing: the figure grows with it. Fewer columns where labels are long."""
    letters = SMALL_LETTERS_AN_INCH * figure.get_figwidth()
    while columns > 1 and max(map(len, labels), default=0) > letters / columns - 6:
        columns -= 1
    shown = [folded(label, round(letters / columns) - 6) for label in labels]
    rows = [shown[i : i + columns] for i in range(0, len(shown), columns)]
    lines = sum(max(label.count("\n") + 1 for label in row) for row in rows)
    figure.set_figheight(figure.get_figheight() + 0.2 * lines)
    figure.legend(handles, shown, loc="outside lower center", ncols=columns, fontsize="small")


def _lines(cells: Sequence["Cell"]) -> dict[str, list["Cell"]]:
    lines: dict[str, list[Cell]] = {}
    for cell in cells:
        lines.setdefault(cell.line, []).append(cell)
    return lines


def panels(number: int, narrow: bool = False) -> tuple[Figure, list[Axes]]:
    """Side by side, or below each other."""
    size = (4.2, 3.2 * number + 0.4) if narrow else (5 * number, 3.8)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(*((number, 1) if narrow else (1, number)), squeeze=False).ravel()
    for axis in axes:
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, list(axes)


def save(figure: Figure, path: Path, title: str) -> Path:
    letters = int(LETTERS_AN_INCH * figure.get_figwidth())
    figure.suptitle(folded(title, letters, 8), fontsize="medium")
    for text in figure.findobj(Text):
        if "$" in text.get_text() and "mathdefault" not in text.get_text():
            text.set_parse_math(False)  # what a user has named so is no formula
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    return path
