"""The numbers that a report shows: of cells and of runs, a row each, by column."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ssl_lightning.reports.cells import Cell
from ssl_lightning.reports.records import Record
from ssl_lightning.runs.former import identity_of_folder

METRICS = {
    "linear/top1": "linear %",
    "knn/top1": "k-NN %",
    "linear_5shot/top1": "5-shot %",
    "representation/rankme": "RankMe r",
}
LINEAR = {"linear/top1": METRICS["linear/top1"], "linear_sgd/top1": "linear SGD %"}
"""The linear probe, by how it was trained."""
CLASSIFIER = {"classifier/top1": "classifier %"}  # shown where a method has it
TIMES = {
    "selection_seconds": "selection",
    "proxy_seconds": "proxies",
    "train_seconds": "training",
    "waiting_seconds": "waiting",
    "evaluation_seconds": "evaluation",
}
SOMETIMES = {"watching_seconds": "watching", "selecting_seconds": "selecting"}  # shown where a run has done it
IMAGE_PASSES = "image passes"
EXPLANATION_OF_TIMES = (
    "Seconds of one run, means over seeds. selection: making the ranking, once for all runs that share it; proxies: "
    "training what it is made with; waiting: for data, a part of training; evaluation: of the frozen encoder."
)
EXPLANATIONS_OF_SOMETIMES = {
    "watching_seconds": " watching: measuring spectra between steps of training, no part of it.",
    "selecting_seconds": " selecting: choosing the images of each epoch, a part of training.",
}
EXPLANATION_OF_FURTHER = "Mean ± s.d. over seeds (n − 1); seconds: of this evaluation, of one run."
MISSING = "–"


class Quantity(NamedTuple):
    """What is shown of a number, and what it is sorted by: None where it is missing. Of a mean over several seeds, also
    its deviation. `strong`: whether it is to be seen at once."""

    text: str
    value: float | None
    deviation: float | None = None
    strong: bool = False


Row = Mapping[str, str | Quantity]
"""By column; the rows of a table have the same."""


def comparison(cells: Sequence[Cell], protocols: bool | None = None) -> list[Row]:
    """The untrained encoders of each dataset and protocol, where they were measured, and the cells, which are of one of
    `kinds`.

    Args:
        protocols: whether protocols have a column; None: where they differ.
    """
    rows: list[Row] = []
    metrics, seconds = metrics_of(cells), "evaluation_seconds" if columns_of(cells) else "train_seconds"
    shown = shown_of(cells)
    protocols = _differ(cells) if protocols is None else protocols
    variants = any(cell.variant for cell in cells)
    passes = {IMAGE_PASSES: "images_seen"} if _has(cells, "images_left_out") else {}
    for here in alike(cells):
        dataset, protocol = here[0].identity["dataset"], {"protocol": here[0].protocol} if protocols else {}
        rows += [
            {"method": "untrained"}
            | {key: dataset if key == "dataset" else "" for key in shown}
            | protocol
            | ({"variant": backbone} if variants else {})
            | {"fraction": quantity(), "images": quantity()}
            | {"seeds": quantity(max(map(len, untrained.values())), "d")}
            | {column: mean_of(*_statistics(untrained.get(name, [])), column) for name, column in metrics.items()}
            | {column: quantity() for column in (*passes, "seconds")}
            for backbone, untrained in untrained_encoders(here).items()
        ]
        rows += [
            what_of(cell, shown, protocol, variants)
            | {"images": quantity(cell.results[0]["mask"]["size"], "d")}
            | {"seeds": quantity(len(cell.results), "d")}
            | {column: mean_of(*cell.statistics(name), column) for name, column in metrics.items()}
            | {column: quantity(cell.statistics(name, cost=True)[0], ".0f") for column, name in passes.items()}
            | {"seconds": mean_of(*cell.statistics(seconds, cost=True), "seconds")}
            for cell in here
        ]
    return rows


def times(cells: Sequence[Cell]) -> list[Row]:
    """Where the time of a run of each cell went: seconds, mean over seeds."""
    shown, variants = shown_of(cells), any(cell.variant for cell in cells)
    return [
        what_of(cell, shown, {"protocol": cell.protocol} if _differ(cells) else {}, variants)
        | {
            column: mean_of(*cell.statistics(name, cost=True), "seconds")
            for name, column in columns_of_times(cells).items()
        }
        for cell in cells
    ]


def _differ(cells: Sequence[Cell]) -> bool:
    """Whether they were evaluated under several protocols."""
    return len({cell.protocol for cell in cells}) > 1


def says_more(cells: Sequence[Cell]) -> bool:
    """Whether protocols say more than the suite that a title names: other data, or settings that are not its own."""
    return any(cell.protocol != cell.suite for cell in cells)


def columns_of_times(cells: Sequence[Cell]) -> dict[str, str]:
    return TIMES | {name: column for name, column in SOMETIMES.items() if _has(cells, name)}


def explanation_of_times(cells: Sequence[Cell]) -> str:
    words = [EXPLANATIONS_OF_SOMETIMES[name] for name in columns_of_times(cells) if name in SOMETIMES]
    return "".join([EXPLANATION_OF_TIMES, *words])


def _has(cells: Sequence[Cell], cost: str) -> bool:
    return any(cell.values(cost, cost=True) for cell in cells)


def shown_of(cells: Sequence[Cell]) -> list[str]:
    """Parts of the identity that have a column, as they differ."""
    return [key for key in ("dataset", "subset", "budget") if key in cells[0].shown] if cells else []


def what_of(cell: Cell, shown: Sequence[str], protocol: dict[str, str], variants: bool) -> dict[str, str | Quantity]:
    """The columns that tell cells apart."""
    return (
        {"method": cell.identity["method"]}
        | {key: str(cell.identity[key]) for key in shown}
        | protocol
        | ({"variant": cell.variant or MISSING} if variants else {})
        | {"fraction": quantity(cell.fraction, "g")}
    )


def table_of_runs(records: Sequence[Record], cells: Sequence[Cell]) -> list[Row]:
    """All runs, finished or not, with what they were evaluated by when they were trained."""
    measured_by = {name for record in records for name in record.results.get("metrics", {})}
    standard = metrics_of([cell for cell in cells if not columns_of([cell])])
    metrics = {name: column for name, column in standard.items() if name in measured_by or name in METRICS}
    variants = {record.run.id: cell.variant for cell in cells for record in cell.records}
    has_variants, has_errors = any(variants.values()), any(record.error for record in records)
    has_progress = any(record.progress for record in records)
    rows: list[Row] = []
    for record in records:
        what = record.results.get("identity") or _identity(record)
        measured, cost = record.results.get("metrics", {}), record.results.get("cost", {})
        rows.append(
            {"status": record.status}
            | ({"progress": record.progress} if has_progress else {})
            | {key: str(what.get(key, MISSING)) for key in ("method", "dataset", "subset")}
            | ({"variant": variants.get(record.run.id) or MISSING} if has_variants else {})
            | {"fraction": quantity(what.get("fraction"), "g"), "seed": quantity(what.get("seed"), "d")}
            | {column: mean_of(measured.get(name), math.nan, column) for name, column in metrics.items()}
            | {"seconds": quantity(cost.get("train_seconds"), ".1f")}
            | {"images/s": quantity(cost.get("images_per_second"), ".0f")}
            | {"id": record.run.id}
            | ({"error": record.reason} if has_errors else {})
        )
    return rows


def alike(cells: Sequence[Cell]) -> list[list[Cell]]:
    """What may stand in one table: cells of one dataset under one protocol, in their order."""
    tables: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        tables.setdefault((cell.identity["dataset"], cell.protocol), []).append(cell)
    return list(tables.values())


def classifies(cells: Sequence[Cell]) -> bool:
    return any(cell.values(name) for cell in cells for name in CLASSIFIER)


def untrained_encoders(cells: Sequence[Cell]) -> dict[str, dict[str, list[float]]]:
    """By backbone, metrics with one value a seed: methods of one seed start from the same encoder."""
    found: dict[str, dict[Any, Mapping[str, float]]] = {}
    for cell in cells:
        for results in cell.results:
            if "untrained" in results:
                found.setdefault(cell.backbone, {})[results["identity"]["seed"]] = results["untrained"]
    metrics = metrics_of(cells)
    return {
        backbone: {name: [m[name] for m in by_seed.values() if name in m] for name in metrics}
        for backbone, by_seed in found.items()
    }


def metrics_of(cells: Sequence[Cell]) -> dict[str, str]:
    """Names of metrics, with those of their columns, of which those of shares end in %."""
    return columns_of(cells) or standard_metrics(cells) | (CLASSIFIER if classifies(cells) else {})


def standard_metrics(cells: Sequence[Cell]) -> dict[str, str]:
    """Of the standard evaluation: the linear probes that there are first, the exact one where there are none."""
    probes = [name for name in LINEAR if any(cell.values(name) for cell in cells)] or list(METRICS)[:1]
    return {name: LINEAR[name] for name in probes} | {
        name: column for name, column in METRICS.items() if name not in LINEAR
    }


def columns_of(cells: Sequence[Cell]) -> dict[str, str]:
    """Those of an evaluation beside the standard one, as it has said itself."""
    return {name: column for cell in cells for made in cell.results for name, column in made.get("columns", {}).items()}


def explanation_of(cells: Sequence[Cell]) -> str:
    """Of the table of an evaluation beside the standard one, as it has said itself."""
    said = dict.fromkeys(str(made.get("explanation", "")) for cell in cells for made in cell.results)
    return " ".join([*filter(None, said), EXPLANATION_OF_FURTHER])


def kinds(cells: Sequence[Cell]) -> list[list[Cell]]:
    """What may stand in one table, as it has the same columns: the standard evaluation first."""
    found: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        found.setdefault(tuple(columns_of([cell])), []).append(cell)
    return sorted(found.values(), key=lambda here: bool(columns_of(here)))


def _identity(record: Record) -> Mapping[str, Any]:
    """Of a run that has no results; a folder with a config of something else has none."""
    if record.identity.method:
        return vars(record.identity)
    return identity_of_folder(record.run.id)


def _statistics(values: Sequence[float]) -> tuple[float, float]:
    mean = statistics.fmean(values) if values else math.nan
    return mean, statistics.stdev(values) if len(values) > 1 else math.nan


def mean_of(mean: float | None, deviation: float, column: str) -> Quantity:
    """Shares in %, where they are measured; with their deviation, where there is one."""
    if mean is None or mean != mean:
        return quantity()
    scale, form = scale_of(column), form_of(column)
    shown = quantity(scale * mean, form)
    if deviation != deviation:
        return shown
    return shown._replace(text=f"{shown.text} ± {scale * deviation:{form}}", deviation=scale * deviation)


def scale_of(column: str) -> int:
    return 100 if column.endswith("%") else 1


def form_of(column: str) -> str:
    """How numbers are written: a digit after the point of what is in %, of ranks and seconds, four of σ, else three."""
    if column.startswith("σ"):
        return ".4f"
    return ".1f" if column.endswith("%") or column in (METRICS["representation/rankme"], "seconds") else ".3f"


def quantity(value: float | None = None, form: str = "") -> Quantity:
    if value is None:
        return Quantity(MISSING, None)
    return Quantity(f"{value:{form}}", value if math.isfinite(value) else None)
