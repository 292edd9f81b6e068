"""A report compares what is comparable, computes what it says, and drops nothing."""

import statistics
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from hydra.core.hydra_config import HydraConfig
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.transforms import Bbox
from PIL import Image

from ssl_lightning.config.identity import component_name, locate
from ssl_lightning.config.places import CONF
from ssl_lightning.files import replacing
from ssl_lightning.pipeline.parts import identity_of
from ssl_lightning.reports.cells import cells_of
from ssl_lightning.reports.figures import accuracy_against_cost, accuracy_against_fraction, log_spectra, panels, save
from ssl_lightning.reports.records import records_of
from ssl_lightning.runs.run import Run, find_runs
from tests.composing import resolved
from tests.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


def config_of(*overrides: str, seed: int = 0, fraction: float = 1.0) -> dict[str, Any]:
    config = deepcopy(resolved(*overrides))
    config["seed"] = config["subset"]["seed"] = seed
    config["subset"]["fraction"] = fraction
    return config


def results_of(config: Mapping[str, Any], top1: float, seconds: float = 10.0) -> dict[str, Any]:
    return {
        "schema": 2,
        "run": "",
        "identity": {
            "method": component_name(config["method"]),
            "dataset": config["dataset"]["name"],
            "subset": locate(config["subset"]["_target_"]).name,
            "fraction": config["subset"]["fraction"],
            "seed": config["seed"],
            "budget": config["budget"],
        },
        "mask": {"size": round(1000 * config["subset"]["fraction"]), "digest": "0" * 16, "rule": "random"},
        "metrics": {
            "linear/top1": top1,
            "knn/top1": top1 / 2,
            "linear_5shot/top1": top1 / 4,
            "representation/rankme": 100 * top1,
            "embedding/rankme": 50 * top1,
        },
        "spectra": {"representation": [3.0, 2.0, 1.0], "embedding": [2.0, 1.0, 0.0]},
        "cost": {"train_seconds": seconds},
        "evaluation": config["evaluation"],
    }


class Folder:
    """Writes runs of one sweep, as if they had been trained."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def begin(self, *overrides: str, **options: Any) -> Run:
        """A run that was started and interrupted."""
        config = config_of(*overrides, **options)
        identity = identity_of(config, {})
        run = Run(self.folder / identity.run_name)
        with run.locked(identity, config):
            return run

    def finish(self, top1: float, *overrides: str, untrained: float | None = None, **options: Any) -> Run:
        seconds = options.pop("seconds", 10.0)
        run = self.begin(*overrides, **options)
        results = results_of(run.config(), top1, seconds)
        if untrained is not None:
            results["untrained"] = {"linear/top1": untrained, "knn/top1": untrained / 2}
        run.finish(results)
        return run

    def fail(self, error: Exception, *overrides: str, **options: Any) -> Run:
        config = config_of(*overrides, **options)
        run = self.begin(*overrides, **options)
        with pytest.raises(type(error)), run.locked(identity_of(config, {}), config):
            raise error
        return run

    def cells(self) -> list[Any]:
        return cells_of(records_of(find_runs([self.folder])))


def blank(figure: Any, path: Path, title: str) -> Path:
    with replacing(path) as temporary:
        Image.new("RGB", (1, 1)).save(temporary, format="png")
    return path


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    """Its figures are left blank: most of the time of a report goes into them."""
    monkeypatch.setattr("ssl_lightning.reports.figures.save", blank)
    return Folder(tmp_path / "runs" / "grid")


@pytest.fixture
def drawn(sweep: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not left blank."""
    monkeypatch.setattr("ssl_lightning.reports.figures.save", save)


def report(command: Command, *arguments: str) -> str:
    outcome = command("ssl-report", *(arguments or ("runs/grid",)))
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return outcome.out


def markdown(sweep: Folder) -> str:
    return (sweep.folder / "report" / "report.md").read_text(encoding="utf-8")


def rows(text: str) -> list[dict[str, str]]:
    """The Markdown table's rows, by column; not those of differences, transfer and seconds, unless these are all that
    is there."""
    for title in ("Seconds", "Transfer", "Differences from"):
        text = text.partition(f"\n## {title}")[0]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    head, _, *body = lines
    return [dict(zip(head, row, strict=True)) for row in body]


# Cells


def test_runs_that_differ_in_seeds_alone_are_one_cell(sweep):
    for seed, top1 in ((1, 0.5), (2, 0.6), (3, 0.9)):
        sweep.finish(top1, seed=seed)
    (cell,) = sweep.cells()
    assert cell.values("linear/top1") == [0.5, 0.6, 0.9]
    mean, deviation = cell.statistics("linear/top1")
    assert mean == pytest.approx((0.5 + 0.6 + 0.9) / 3)
    # s² = ((−1/6)² + (−1/15)² + (7/30)²) / 2
    assert deviation == pytest.approx(((1 / 6**2 + 1 / 15**2 + 49 / 30**2) / 2) ** 0.5)
    assert (cell.variant, cell.shown) == ("", ())


def test_one_seed_has_no_deviation(sweep):
    sweep.finish(0.5)
    (cell,) = sweep.cells()
    mean, deviation = cell.statistics("linear/top1")
    assert mean == 0.5
    assert deviation != deviation
    assert cell.statistics("absent")[0] != cell.statistics("absent")[0]


def test_what_does_not_change_the_encoder_does_not_split_a_cell(sweep):
    sweep.finish(0.5, seed=1)
    sweep.finish(0.6, "trainer.log_every_n_steps=3", "callbacks=none", "checkpoint.every_steps=1", seed=2)
    (cell,) = sweep.cells()
    assert len(cell.results) == 2


def test_cells_that_differ_otherwise_are_told_apart_by_what_varies(sweep):
    sweep.finish(0.5, "method.temperature=0.1")
    sweep.finish(0.6, "method.temperature=0.1", seed=1)
    sweep.finish(0.7, "method.temperature=0.5")
    sweep.finish(0.8, "method.temperature=0.5", "backbone.width=8")
    labels = {cell.variant: cell.values("linear/top1") for cell in sweep.cells()}
    assert labels == {
        "width=16, temperature=0.1": [0.5, 0.6],
        "width=16, temperature=0.5": [0.7],
        "width=8, temperature=0.5": [0.8],
    }


def test_a_variant_names_an_optimizer_once(sweep):
    sweep.finish(0.5, "optimizer.lr=0.1")
    sweep.finish(0.6, "optimizer.lr=0.2")
    sweep.finish(0.7, "method=gessl", "optimizer.lr=0.1")
    sweep.finish(0.8, "method=gessl", "optimizer.lr=0.2")
    assert [(cell.identity["method"], cell.variant) for cell in sweep.cells()] == [
        ("gessl-simclr", "lr=0.1"),
        ("gessl-simclr", "lr=0.2"),
        ("simclr", "lr=0.1"),
        ("simclr", "lr=0.2"),
    ]


def test_a_variant_names_a_component_by_its_class(sweep):
    """What the choice implies is left out, what was set beside it is not."""
    sweep.finish(0.5, "projector@method.projector=none")
    sweep.finish(0.6, "projector@method.projector=linear")
    sweep.finish(0.7, "method.projector.outputs=4")
    sweep.finish(0.8, "method.projector.outputs=8")
    assert {cell.variant: cell.values("linear/top1") for cell in sweep.cells()} == {
        "projector=none": [0.5],
        "projector=linear": [0.6],
        "projector=mlp, outputs=4": [0.7],
        "projector=mlp, outputs=8": [0.8],
    }


def test_a_variant_tells_classes_of_one_name_apart(sweep):
    sweep.finish(0.5, "optimizer=sgd")
    sweep.finish(0.6, "optimizer=adamw")
    sweep.finish(0.7, "optimizer=adamw", "optimizer.algorithm._target_=torch.optim.adamw.AdamW")
    words = {word for cell in sweep.cells() for word in cell.variant.split(", ") if word.startswith("algorithm=")}
    assert words == {"algorithm=SGD", "algorithm=torch.optim.AdamW", "algorithm=torch.optim.adamw.AdamW"}


def test_variants_of_many_settings_say_what_is_unusual(sweep, command: Command):
    """One factor at a time: what more than half of a method's cells have is said once, below the table."""
    for seed in (1, 2):
        sweep.finish(0.5, seed=seed)
        sweep.finish(0.6, "optimizer.lr=0.1", seed=seed)
        sweep.finish(0.7, "method.temperature=0.5", seed=seed)
        sweep.finish(0.7, "batch_size=128", seed=seed)
    sweep.finish(0.8, "method=directclr", seed=1)
    cells = sweep.cells()
    assert [(cell.identity["method"], cell.variant) for cell in cells] == [
        ("directclr", "batch_size=256, lr=0.003"),
        ("simclr", ""),
        ("simclr", "batch_size=128"),
        ("simclr", "lr=0.1"),
        ("simclr", "temperature=0.5"),
    ]
    assert [len(cell.results) for cell in cells] == [1, 2, 2, 2, 2]
    usual = "batch_size=256, temperature=0.2, lr=0.003"
    assert [cell.usual for cell in cells] == ["", *[usual] * 4]
    said = " ".join(command("ssl-report", str(sweep.folder)).out.split())
    assert said.count(f"Variants of simclr leave out what most of them share: {usual}.") == 1
    sweep.finish(0.9, "batch_size=128", "optimizer.lr=0.1", seed=1)  # no value of the batch size is that of more
    sweep.finish(0.9, "batch_size=128", "optimizer.lr=0.2", seed=1)
    variants = [cell.variant for cell in sweep.cells() if cell.identity["method"] == "simclr"]
    assert len(set(variants)) == 6
    assert sum("batch_size" in variant for variant in variants) == 6


def test_methods_fractions_and_datasets_need_no_variant(sweep):
    sweep.finish(0.5, fraction=0.5)
    sweep.finish(0.6, fraction=1.0)
    sweep.finish(0.7, "method=directclr", fraction=1.0)
    cells = sweep.cells()
    assert [cell.variant for cell in cells] == [""] * 3
    assert [cell.line for cell in cells] == ["directclr", "simclr", "simclr"]
    assert [cell.fraction for cell in cells] == [1.0, 0.5, 1.0]
    assert {cell.shown for cell in cells} == {("method", "fraction")}
    sweep.finish(0.8, "dataset=cifar10", "augment=digits")
    assert {cell.shown for cell in sweep.cells()} == {("method", "dataset", "fraction")}


def test_equal_epochs_and_equal_steps_are_not_one_cell(sweep):
    sweep.finish(0.5)
    sweep.finish(0.6, "budget=steps")
    assert [cell.line for cell in sweep.cells()] == ["simclr equal epochs", "simclr equal steps"]


# Tables


def test_means_and_deviations_in_the_table(command, sweep):
    values = [0.512, 0.634, 0.687]
    for seed, top1 in enumerate(values):
        sweep.finish(top1, seed=seed, fraction=0.2, seconds=10.0 + seed)
    sweep.finish(0.75, fraction=1.0)
    out = report(command)
    several, single = rows(markdown(sweep))
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert several == {
        "method": "simclr",
        "fraction": "0.2",
        "images": "200",
        "seeds": "3",
        "linear %": f"{100 * mean:.1f} ± {100 * deviation:.1f}",
        "k-NN %": f"{50 * mean:.1f} ± {50 * deviation:.1f}",
        "5-shot %": f"{25 * mean:.1f} ± {25 * deviation:.1f}",
        "RankMe r": f"{100 * mean:.1f} ± {100 * deviation:.1f}",
        "seconds": "11.0 ± 1.0",
    }
    assert single["linear %"] == "75.0"
    assert single["seeds"] == "1"
    assert several["linear %"] in out
    assert "dataset digits, subset random, equal epochs, 1–3 seeds" in out


def test_a_metric_that_was_not_measured_is_a_dash(command, sweep):
    run = sweep.finish(0.5)
    results = run.results()
    del results["metrics"]["linear_5shot/top1"]
    run.finish(results)
    report(command)
    (row,) = rows(markdown(sweep))
    assert row["5-shot %"] == "–"
    assert row["linear %"] == "50.0"


def test_the_untrained_encoder_is_one_row_with_one_value_a_seed(command, sweep):
    for method in ("simclr", "directclr"):
        for fraction in (0.5, 1.0):
            for seed, untrained in ((1, 0.3), (2, 0.5)):
                sweep.finish(0.8, f"method={method}", seed=seed, fraction=fraction, untrained=untrained)
    report(command)
    table = rows(markdown(sweep))
    (untrained,) = (row for row in table if row["method"] == "untrained")
    assert untrained["seeds"] == "2"
    assert untrained["linear %"] == f"40.0 ± {100 * statistics.stdev([0.3, 0.5]):.1f}"
    assert untrained["RankMe r"] == untrained["seconds"] == "–"
    assert len(table) == 5


def test_each_dataset_has_its_table_and_figures(command, sweep):
    sweep.finish(0.5)
    sweep.finish(0.6, "dataset=cifar10")
    report(command)
    text = markdown(sweep)
    heads = [line for line in text.splitlines() if line.startswith("| method")]
    assert len(heads) == 2 * 2  # the comparison, and seconds
    for dataset in ("digits", "cifar10"):
        assert (sweep.folder / f"report/accuracy_against_fraction_{dataset}.png").exists()


def times(sweep: Folder) -> list[dict[str, str]]:
    return rows(markdown(sweep).partition("\n## Seconds\n")[2])


def test_where_the_time_of_a_cell_went(command, sweep):
    for seed in (1, 2):
        run = sweep.finish(0.5, seed=seed, fraction=0.5, seconds=10.0 * seed)
        results = run.results()
        results["cost"] |= {"waiting_seconds": 2.0 * seed, "selection_seconds": 4.0, "proxy_seconds": 200.0}
        run.finish(results | {"cost": results["cost"] | {"evaluation_seconds": 6.0 + seed}})
    sweep.finish(0.6, fraction=1.0)  # of a former version
    out = report(command)
    half, whole = times(sweep)
    assert half == {
        "method": "simclr",
        "fraction": "0.5",
        "selection": "4.0 ± 0.0",
        "proxies": "200.0 ± 0.0",
        "training": "15.0 ± 7.1",
        "waiting": "3.0 ± 1.4",
        "evaluation": "7.5 ± 0.7",
    }
    missing = dict.fromkeys(("selection", "proxies", "waiting", "evaluation"), "–")
    assert whole == {"method": "simclr", "fraction": "1", "training": "10.0", **missing}
    lines = [line.split() for line in out.partition("seconds of one run")[2].splitlines()]
    assert ["simclr", "0.5", "4.0", "200.0", "15.0", "3.0", "7.5"] in lines
    assert ["1", "–", "–", "10.0", "–", "–"] in lines


@pytest.mark.nightly
def test_where_the_time_went_fits_80_columns_too(command, sweep):
    """With all the columns that there may be, and a variant of long words."""
    for name in ("A" * 40, "B" * 40):
        run = sweep.finish(
            0.5, "+callbacks.lr._target_=lightning.pytorch.callbacks.Timer", f"+callbacks.lr.interval={name}"
        )
        times = dict.fromkeys(("selection_seconds", "proxy_seconds", "evaluation_seconds", "watching_seconds"), 1234.5)
        run.finish(run.results() | {"cost": {"train_seconds": 12345.6, "waiting_seconds": 0.5, **times}})
    out = report(command)
    assert max(map(len, out.splitlines())) <= 80
    assert out.count("12345.6") == 4
    assert any(line.endswith(" 1234.5") and "12345.6" in line for line in out.splitlines())


@pytest.mark.nightly
def test_the_terminal_s_table_fits_80_columns(command, sweep, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for method in ("simclr", "directclr", "gessl"):
        for fraction in (0.05, 1.0):
            for temperature in (0.1, 0.2):
                for seed in (1, 2):
                    sweep.finish(
                        0.61 + 0.1 * seed,
                        f"method={method}",
                        f"method.temperature={temperature}",
                        seed=seed,
                        fraction=fraction,
                        seconds=1234.5 + 10 * seed,
                        untrained=0.4 + 0.1 * seed,
                    )
    out = report(command)
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out
    assert out.count("76.0 ± 7.1") == 12  # of 0.71 and 0.81
    start = next(line.index("fraction") for line in out.splitlines() if "linear %" in line)
    compared, _, _ = out.partition("seconds of one run")
    labels = "".join(line[:start].strip() for line in compared.splitlines())
    for method in ("simclr", "directclr", "gessl-simclr"):
        for temperature in (0.1, 0.2):
            assert labels.count(f"{method}temperature={temperature}") == 1 + (method == "simclr")


def test_figures_are_pictures(command, sweep, drawn):
    sweep.finish(0.5, fraction=0.5)
    sweep.finish(0.6, "method=directclr", untrained=0.3)
    report(command)
    names = ("accuracy_against_fraction", "accuracy_against_cost", "log_spectra")
    assert {file.stem for file in (sweep.folder / "report").glob("*.png")} == set(names)
    for name in names:
        assert f"![{name}]({name}.png)" in markdown(sweep)
        with Image.open(sweep.folder / f"report/{name}.png") as image:
            assert image.format == "PNG"
            image.load()
            assert min(image.size) > 100
            assert len(image.convert("L").getcolors()) > 10  # not blank


# What is not in the table


def test_nothing_is_dropped(command, sweep):
    sweep.finish(0.5)
    begun = sweep.begin(seed=1)
    failed = sweep.fail(ValueError("no luck"), seed=2)
    running = sweep.begin(seed=3)
    config = config_of(seed=3)
    with running.locked(identity_of(config, {}), config):
        out = report(command)
    text = markdown(sweep)
    assert "3 of 4 runs are not in the table:" in text
    assert f"- unfinished: {begun.id}" in text.splitlines()
    assert f"- failed: {failed.id}: ValueError: no luck (" in text
    assert f"- running: {running.id}" in text.splitlines()
    assert "3 of 4 runs are not in the table:" in out
    for status, run in (("unfinished", begun), ("failed", failed), ("running", running)):
        assert f"{status}: {run.id}" in out


def test_a_failed_run_that_is_started_again_is_no_failure(sweep):
    failed = sweep.fail(ValueError("no luck"))
    assert failed.status == "failed"
    with failed.locked(identity_of(config_of(), {}), config_of()):
        assert failed.status == "running"
    assert failed.status == "unfinished"
    failed.finish(results_of(config_of(), 0.5))
    assert failed.status == "finished"


def test_a_folder_with_no_finished_run(command, sweep):
    begun = sweep.begin()
    out = report(command)
    assert "1 of 1 runs are not in the table" in out
    assert "No finished runs" in markdown(sweep)
    assert begun.id in markdown(sweep)


# Folders


def test_several_folders_and_an_output(command, sweep, tmp_path):
    sweep.finish(0.5)
    other = Folder(tmp_path / "runs" / "other")
    other.finish(0.7, seed=1)
    report(command, "runs/grid", "runs/other", "--output", "compared")
    (row,) = rows((tmp_path / "compared/report.md").read_text())
    assert row["linear %"].startswith("60.0 ± ")
    assert row["seeds"] == "2"
    assert not (sweep.folder / "report").exists()


def test_a_run_named_twice_counts_once(command, sweep):
    sweep.finish(0.5)
    report(command, "runs", "runs/grid")
    (row,) = rows((sweep.folder.parent / "report/report.md").read_text())
    assert row["seeds"] == "1"


@pytest.mark.nightly
def test_a_report_made_again_is_the_same(command, sweep, drawn):
    sweep.finish(0.5)
    report(command)
    first = markdown(sweep)
    report(command)
    assert markdown(sweep) == first


@pytest.mark.parametrize(
    ("folder", "reason"), [("empty", "There are no runs in empty"), ("absent", "absent is no folder")]
)
def test_a_folder_without_runs(command, tmp_path, folder, reason):
    (tmp_path / "empty").mkdir()
    outcome = command("ssl-report", folder)
    assert outcome.code != 0
    assert outcome.err.startswith(f"Error: {reason}")
    assert outcome.err.count("\n") == 1
    assert outcome.out == ""
    assert not list(tmp_path.rglob("report.md"))


def test_a_run_that_two_sweeps_have_made_is_one_seed(command, sweep, tmp_path):
    """Their configs differ in nothing that can change the encoder, so the second tells nothing about its variance."""
    sweep.finish(0.5, seed=1)
    other = Folder(tmp_path / "runs" / "other")
    other.finish(0.5, seed=1)
    sweep.finish(0.7, seed=2)
    command("ssl-report", str(sweep.folder), str(other.folder), "--output", "both")
    (row,) = rows((tmp_path / "both/report.md").read_text(encoding="utf-8"))
    assert (row["seeds"], row["linear %"]) == ("2", "60.0 ± 14.1")


def test_a_long_title_is_folded_and_not_cut(tmp_path):
    figure, _ = panels(1)
    save(figure, tmp_path / "figure.png", f"digits (l2_grid=[{', '.join(['0.001'] * 20)}]): accuracy against cost")
    title = figure.get_suptitle()
    assert title.count("\n") == 3
    drawn = figure._suptitle.get_window_extent(FigureCanvasAgg(figure).get_renderer())
    assert 0 <= drawn.x0 < drawn.x1 <= figure.bbox.width


@pytest.mark.nightly
def test_numbers_at_an_axis_stand_apart(sweep: Folder, monkeypatch):
    """Accuracies of one fraction that are close to one another have many digits."""
    boxes: list[list[Bbox]] = []

    def look(figure, path, title):
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        boxes.extend(
            [tick.get_window_extent(renderer) for tick in axis.get_xticklabels() if tick.get_text()]
            for axis in figure.axes
        )
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", look)
    for i, top1 in enumerate((0.8648, 0.8704, 0.8759, 0.8852)):
        sweep.finish(top1, f"optimizer.lr=0.0012345{i}", "method=gessl")
    metrics = {"linear/top1": "linear %", "knn/top1": "k-NN %", "linear_5shot/top1": "5-shot %"}
    accuracy_against_fraction(sweep.cells(), {}, metrics, sweep.folder / "figure.png", "a title")
    for some in boxes:
        assert len(some) > 1
        assert all(left.x1 < right.x0 for left, right in pairwise(some))


def test_axes_are_in_the_units_of_the_tables(sweep: Folder, monkeypatch):
    """And say what their bars are, where there are several seeds."""
    seen: list[tuple[set[str], float]] = []

    def look(figure, path, title):
        axis = figure.axes[0]
        values = [float(line.get_ydata()[0]) for line in axis.get_lines() if line.get_xdata().size]
        seen.append(({axis.get_xlabel(), axis.get_ylabel()}, max(values)))
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", look)
    path, columns = sweep.folder / "figure.png", {"linear/top1": "linear %"}
    for fraction in (0.1, 0.5):
        sweep.finish(0.5, seed=1, fraction=fraction)
    for bars, seed in (("", None), (", ± s.d. over seeds", 2)):
        if seed is not None:
            sweep.finish(0.7, seed=seed, fraction=0.5)
        seen.clear()
        accuracy_against_fraction(sweep.cells(), {}, columns, path, "")
        accuracy_against_cost(sweep.cells(), "linear/top1", "linear %", path, "")
        assert [value for _, value in seen] == pytest.approx([50, 60 if bars else 50])
        assert all(f"linear % (test{bars})" in labels for labels, _ in seen)


def test_as_many_methods_as_there_are_have_colours_of_their_own(sweep: Folder, monkeypatch):
    colours: list[str] = []

    def look(figure, path, title):
        colours.extend(to_hex(line.get_color()) for line in figure.axes[0].get_lines() if line.get_marker() != "None")
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", look)
    names = sorted(file.stem for file in (CONF / "method").glob("*.yaml"))
    for name in names:
        sweep.finish(0.5, f"method={name}")
    accuracy_against_fraction(sweep.cells(), {}, {"linear/top1": "linear %"}, sweep.folder / "figure.png", "")
    assert len(set(colours)) == len(names) > 10


@pytest.mark.parametrize("narrow", [False, True])
def test_labels_of_rows_do_not_overlap(sweep: Folder, monkeypatch, narrow):
    boxes: list[Bbox] = []

    def look(figure, path, title):
        figure.set_dpi(100)
        FigureCanvasAgg(figure).draw()
        boxes.extend(label.get_window_extent() for label in figure.axes[0].get_yticklabels() if label.get_text())
        return path

    monkeypatch.setattr("ssl_lightning.reports.figures.save", look)
    sweep.finish(0.5)
    (cell,) = sweep.cells()
    settings = ", ".join(f"a_setting_with_a_name={number}" for number in range(5))
    cells = [replace(cell, variant=f"{settings}, last={number}") for number in range(9)]
    metrics = {"linear/top1": "linear %", "knn/top1": "k-NN %"}
    accuracy_against_fraction(cells, {}, metrics, sweep.folder / "figure.png", "", narrow)
    boxes.sort(key=lambda box: box.y0)
    assert len(boxes) == 9
    assert all(low.y1 <= high.y0 for low, high in pairwise(boxes))


# What users have named and configured


def test_figures_know_nothing_of_the_users_style(sweep: Folder, drawn, monkeypatch):
    """Of a matplotlibrc that asks for LaTeX, which is not there, and names that look like formulas."""
    monkeypatch.setitem(matplotlib.rcParams, "text.usetex", True)
    monkeypatch.setitem(matplotlib.rcParams, "figure.dpi", 10)
    path = sweep.folder / "figure.png"
    sweep.finish(0.5, "optimizer.lr=0.1", seed=1)
    sweep.finish(0.7, "optimizer.lr=0.2", seed=2)
    cells = [replace(cell, variant=f"path=$x_${{ {i}") for i, cell in enumerate(sweep.cells())]
    for draw in (
        lambda: accuracy_against_fraction(cells, {}, {"linear/top1": "linear %"}, path, "a title of $5"),
        lambda: accuracy_against_cost(cells, "linear/top1", "linear %", path, "$"),
        lambda: log_spectra(cells, path, "$$"),
    ):
        draw()
        with Image.open(path) as image:
            assert image.width >= 500


@pytest.mark.parametrize("length", [10, 100, 2000])
def test_long_names_are_folded_and_cut(sweep: Folder, drawn, length):
    path = sweep.folder / "figure.png"
    for fraction in (0.1, 0.5):
        sweep.finish(0.5, seed=1, fraction=fraction)
    cells = [replace(cell, variant="word " * (length // 5)) for cell in sweep.cells()]
    for some in (cells, cells[:1]):
        accuracy_against_fraction(some, {}, {"linear/top1": "linear %"}, path, "word " * length)
        with Image.open(path) as image:
            assert (image.width, image.height < 1200) == (600, True)


def test_what_an_embedder_is_does_not_name_a_cell(sweep: Folder):
    """That there is one, `pseudo_labels` says."""
    sweep.finish(0.5, "subset=el2n")
    sweep.finish(0.5, "subset=elfs")
    names = {cell.line for cell in sweep.cells()}
    assert names == {
        "simclr keep=easiest",
        "simclr keep=hardest, pseudo_labels=RandomInGroups, quota=DoubleEnd",
    }
