"""A wandb workspace and a wandb report on the runs of a report, by the classes of `wandb-workspaces`."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ssl_lightning.evaluation.protocol import protocol_in
from ssl_lightning.loggers.wandb_run import BY_FRACTION, GROUPED, STEP
from ssl_lightning.reports.records import Record

if TYPE_CHECKING:
    from wandb_workspaces.reports.v2 import Report
    from wandb_workspaces.workspaces import Workspace

ACCURACIES = ("linear/top1", "linear_sgd/top1", "knn/top1", "classifier/top1")
"""What is drawn against the fraction, as far as runs have it."""
WITHOUT_LABELS = "representation/rankme"
CURVES = ("loss", "online/val_top1", "lr")
COSTS = {"cost/train_seconds": "seconds", "cost/images_seen": "images", "cost/gradient_evaluations": "passes"}
SPREAD: dict[str, Any] = {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
"""Of panels that draw several seeds as one line."""
COLUMNS = 2
WIDTH, HEIGHT = 24 // COLUMNS, 8
"""Of a panel in a report, of which the whole is 24 wide."""


@dataclass(frozen=True)
class Shown:
    """What there is to be shown of runs that were evaluated under one protocol.

    Args:
        protocol: in words.
        digest: of it.
        metrics: of these runs, the most telling first.
        sweeps: wandb groups of the runs.
        name: of the data.
    """

    protocol: str
    digest: str
    metrics: Sequence[str]
    curves: Sequence[str]
    costs: Sequence[str]
    sweeps: Sequence[str]
    name: str


def shown_of(records: Iterable[Record]) -> list[Shown]:
    """One a protocol, most runs first: numbers of two are never averaged. Runs without results count nowhere."""
    measured = [record for record in records if record.results]
    digests = Counter(protocol_in(record.results).digest for record in measured)
    shown = []
    for digest, _ in digests.most_common():
        mine = [record for record in measured if protocol_in(record.results).digest == digest]
        known = {name for record in mine for name in record.results["metrics"]}
        metrics = [name for name in ACCURACIES if name in known] or [WITHOUT_LABELS]
        drawn = {curve.name for record in mine for curve in record.curves}
        costs = {f"cost/{name}" for record in mine for name in record.results["cost"]}
        words = protocol_in(mine[0].results).name(mine[0].results["identity"]["dataset"])
        shown.append(
            Shown(
                words,
                digest,
                metrics,
                [name for name in CURVES if name in drawn],
                [name for name in COSTS if name in costs],
                sorted({sweep_of(record) for record in mine}),
                ", ".join(sorted({record.results["identity"]["dataset"] for record in mine})),
            )
        )
    return shown


def sweep_of(record: Record) -> str:
    """As in wandb, where it is the group."""
    return str(record.config.get("sweep") or record.run.folder.parent.name)


def workspace(shown: Shown, entity: str, project: str) -> "Workspace":
    """A saved view: sections of panels, and a table of runs that begins with what tells cells apart."""
    import wandb_workspaces.workspaces as ws

    first = f"summary:{shown.metrics[0]}"
    pinned = ["run:displayName", *(f"config:{key}.value" for key in GROUPED[:5]), first]
    return ws.Workspace(
        entity=entity,
        project=project,
        name=_plain(_title(shown)),
        sections=[ws.Section(name=name, panels=panels, is_open=True) for name, panels in _panels(shown).items()],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=1000),
        runset_settings=ws.RunsetSettings(filters=_filter(shown), pinned_columns=pinned),
    )


def report(shown: Sequence[Shown], entity: str, project: str) -> "Report":
    """A page: for each protocol the same panels, a grid of the cells, and the runs."""
    import wandb_workspaces.reports.v2 as wr

    blocks: list[Any] = [wr.TableOfContents()]
    for one in shown:
        blocks += [wr.H1(text=_title(one)), wr.P(text=f"Evaluation: {one.protocol}. Mean and s.d. over seeds.")]
        for name, panels in _panels(one).items():
            cells = name in BY_CELL
            runs = wr.Runset(  # of the report's own project
                name="cells" if cells else "runs",
                filters=_filter(one),
                groupby=["config.cell"] if cells else [],
                pinned_columns=[f"config:{key}.value" for key in GROUPED[:5]],
                visible_columns=[f"summary:{metric}" for metric in (*one.metrics, *one.costs)],
            )
            blocks += [wr.H2(text=name), wr.PanelGrid(runsets=[runs], panels=_placed(panels))]
    title = ", ".join(dict.fromkeys(one.name for one in shown))
    return wr.Report(
        entity=entity, project=project, title=f"ssl_lightning: {title}"[:128], blocks=blocks, width="fluid"
    )


GRID = "Grid"
BY_CELL = ("Learning curves", GRID)
"""Sections of the report whose runs are grouped by cell."""


def _panels(shown: Shown) -> dict[str, list[Any]]:
    """By sections, in the order of reading."""
    import wandb_workspaces.reports.v2 as wr

    method, fraction = wr.Config("method"), wr.Config("fraction")
    first = shown.metrics[0]
    against_fraction = [
        wr.LinePlot(
            title=f"{metric} against fraction",
            x="fraction",
            y=[f"{BY_FRACTION}{metric}"],
            groupby=method,
            title_x="fraction",
            title_y=metric,
            **SPREAD,
        )
        for metric in shown.metrics
    ]
    curves = [
        wr.LinePlot(title=f"{name} over {axis}", x=key, y=[name], groupby=wr.Config("cell"), title_x=axis, **SPREAD)
        for name in shown.curves
        for axis, key in (("optimizer steps", STEP), ("epochs", "epoch"))
        if axis == "optimizer steps" or name != "lr"
    ]
    columns: list[Any] = [
        *(wr.Config(key) for key in GROUPED[:5]),
        *(wr.SummaryMetric(name) for name in (*shown.costs[:1], WITHOUT_LABELS, *shown.metrics)),
    ]
    coordinates = [wr.ParallelCoordinatesPlotColumn(metric=metric) for metric in dict.fromkeys(columns)]
    costs = [
        wr.ScatterPlot(
            title=f"{first} against {COSTS[name]}", x=wr.SummaryMetric(name), y=wr.SummaryMetric(first), log_x=True
        )
        for name in shown.costs
    ]
    return {
        "Accuracy against fraction": [
            *against_fraction,
            wr.ScatterPlot(title=f"{first}, run by run", x=fraction, y=wr.SummaryMetric(first)),
        ],
        GRID: [
            wr.BarPlot(title=f"{metric} by cell", metrics=[metric], groupby=wr.Config("cell"), **SPREAD)
            for metric in shown.metrics
        ],
        "Parallel coordinates": [wr.ParallelCoordinatesPlot(title="identity, cost, metrics", columns=coordinates)],
        "Spectra": [wr.MediaBrowser(title="spectra", media_keys=["figures/spectrum"], num_columns=4)],
        **({"Learning curves": curves} if curves else {}),
        **({"Cost": costs} if costs else {}),
    }


def _placed(panels: Sequence[Any]) -> list[Any]:
    """Side by side; one alone takes the whole width."""
    import wandb_workspaces.reports.v2 as wr

    for number, panel in enumerate(panels):
        row, column = divmod(number, COLUMNS)
        width = WIDTH if len(panels) > 1 else WIDTH * COLUMNS
        panel.layout = wr.Layout(x=column * WIDTH, y=row * HEIGHT, w=width, h=HEIGHT)
    return list(panels)


def _title(shown: Shown) -> str:
    return f"{shown.name} ({shown.protocol})"


def _plain(text: str) -> str:
    """wandb takes no symbols in the name of a view, `=` among them."""
    letters = (" " if unicodedata.category(letter).startswith("S") else letter for letter in text)
    return "".join(letters)[:128]


def _filter(shown: Shown) -> str:
    """Of the sweeps, what was evaluated under the protocol."""
    groups = ", ".join(map(repr, shown.sweeps))
    return f"Metric('Group') in [{groups}] and SummaryMetric('protocol.digest') == {shown.digest!r}"
