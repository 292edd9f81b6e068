"""Numbers of two protocols are never averaged, nor put in one another's place."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ssl_lightning.config.components import make
from ssl_lightning.config.resolve import resolve
from ssl_lightning.data.dataset import ImageDataset
from ssl_lightning.data.sources.image_folder import ImageFolder
from ssl_lightning.evaluation.protocol import Protocol, protocol_in, protocol_of, same
from ssl_lightning.pipeline.parts import identity_of
from ssl_lightning.reports.comparison import untrained_encoders
from ssl_lightning.runs.run import Run
from tests.composing import composed
from tests.data.synthetic import write_image_folder
from tests.reports.test_report import Command, Folder, config_of, forget, markdown, report, results_of, rows, sweep

__all__ = ["forget", "sweep"]


def settings(*overrides: str) -> Protocol:
    return protocol_of(resolve(composed(*overrides))["evaluation"], "digits")


@pytest.mark.nightly
def test_settings_that_are_not_the_standard_ones_name_a_protocol():
    standard = settings()
    assert (standard.settings, standard.name("digits")) == ({}, "standard")
    assert settings("evaluation.untrained=true") == standard  # what is evaluated too
    assert settings("evaluation.k=20", "evaluation.few_shots=[5]") == standard
    other = settings("evaluation.k=1", "evaluation.few_shots=[1,5]")
    assert other.name("digits") == "few_shots=[1, 5], k=1"
    assert other.name("cifar10") == "on digits, few_shots=[1, 5], k=1"
    assert settings("evaluation=none").name("digits") == "RanksOnly"
    assert settings("evaluation=sgd").settings == {"linear": "sgd", "few_percents": []}
    digests = {one.digest for one in (standard, other, settings("evaluation=none"), settings("evaluation=sgd"))}
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("dataset", "reading"),
    [
        ("digits", {"image_size": 8, "channels": 1, "validation_fraction": 0.1}),
        ("cifar10", {"image_size": 32, "channels": 3, "validation_fraction": 0.1}),
    ],
)
def test_what_is_added_to_datasets_makes_no_other_protocol(dataset, reading):
    """Runs of former versions would be evaluated again, and stand in tables of their own."""
    config = resolve(composed(f"dataset={dataset}"))
    made = protocol_of(config["evaluation"], make(config["dataset"]))
    assert (made.reading, made.settings, made.content) == (reading, {}, "")


def test_a_protocol_is_kept_and_read():
    made = Protocol("digits", "abc", {"k": 1})
    assert protocol_in({"protocol": json.loads(json.dumps(made.as_dict()))}) == made
    former = {"evaluation": resolve(composed("evaluation.k=1"))["evaluation"], "identity": {"dataset": "digits"}}
    assert protocol_in(former) == Protocol("digits", "", {"k": 1})
    assert same(made, protocol_in(former))
    assert not same(made, Protocol("digits", "other", {"k": 1}))
    assert not same(made, Protocol("cifar10", "abc", {"k": 1}))


def further(run, top1: float, name: str, protocol: Protocol, **more: object) -> None:
    """A further evaluation, as it is kept in a run's folder."""
    results = run.results()
    kept = {"protocol": protocol.as_dict(), "metrics": {"linear/top1": top1}, "spectra": results["spectra"]} | more
    file = run.evaluation_file(name)
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(kept))


def test_each_protocol_has_its_cells_its_table_and_its_figures(command: Command, sweep: Folder):
    first, second = sweep.finish(0.5, seed=1), sweep.finish(0.7, seed=2)
    third = sweep.finish(0.1, "evaluation.k=1", seed=3)  # its own protocol from the start
    further(first, 0.2, "a", Protocol("digits", "", {"k": 1}))
    further(second, 0.9, "b", Protocol("fashion_mnist", "", {}))
    further(third, 0.6, "c", Protocol("digits", "", {}))
    values = {cell.protocol: sorted(cell.values("linear/top1")) for cell in sweep.cells()}
    assert values == {"standard": [0.5, 0.6, 0.7], "k=1": [0.1, 0.2], "on fashion_mnist": [0.9]}

    out = report(command)
    text, _, seconds = markdown(sweep).partition("\n## Seconds\n")
    assert seconds.count("\n### evaluation: ") == 3
    tables = dict(part.split("\n", 1) for part in text.split("## evaluation: ")[1:])
    assert [(name, [row["linear %"] for row in rows(table)]) for name, table in tables.items()] == [
        ("standard", ["60.0 ± 10.0"]),
        ("k=1", ["15.0 ± 7.1"]),
        ("on fashion_mnist", ["90.0"]),
    ]
    assert [line for line in out.splitlines() if "evaluation:" in line]
    assert out.count("evaluation: k=1") == 2  # of the comparison, and of seconds
    assert (sweep.folder / "report" / "accuracy_against_fraction.png").exists()
    assert (sweep.folder / "report" / "accuracy_against_fraction_k-1.png").exists()
    assert (sweep.folder / "report" / "accuracy_against_fraction_on-fashion_mnist.png").exists()


def test_one_protocol_that_is_not_the_standard_one_is_named(command: Command, sweep: Folder):
    sweep.finish(0.5, "evaluation.k=1", seed=1)
    report(command)
    assert "## evaluation: k=1" in markdown(sweep)


def test_the_same_evaluation_made_again_counts_once(sweep: Folder):
    run = sweep.finish(0.5)
    further(run, 0.4, "again", Protocol("digits", "", {}))
    (cell,) = sweep.cells()
    assert cell.values("linear/top1") == [0.5]


def test_data_that_a_former_version_did_not_name_are_those_of_the_others(sweep: Folder):
    for seed, content in ((1, ""), (2, "abc")):
        run = sweep.finish(0.5, seed=seed)
        results = results_of(run.config(), 0.5)
        if content:
            results["protocol"] = Protocol("digits", content, {}).as_dict()
        run.finish(results)
    (cell,) = sweep.cells()
    assert len(cell.results) == 2
    run = sweep.finish(0.5, seed=3)
    run.finish(results_of(run.config(), 0.5) | {"protocol": Protocol("digits", "other", {}).as_dict()})
    assert len(sweep.cells()) == 3  # now nobody knows


@pytest.mark.nightly
def test_lengths_that_differ_are_named_and_join_no_line(command: Command, sweep: Folder):
    """Runs of different fractions are one curve only where they were trained equally long."""
    sweep.finish(0.5, "trainer.max_epochs=3", fraction=0.2)
    sweep.finish(0.6, "trainer.max_epochs=4", fraction=0.5)
    sweep.finish(0.7, "trainer.max_epochs=4", fraction=1.0)
    sweep.finish(0.7, "method=directclr", "trainer.max_epochs=4", fraction=1.0)
    lines = {cell.line: cell.fraction for cell in sweep.cells()}
    assert sorted(lines) == ["directclr max_epochs=4", "simclr max_epochs=3", "simclr max_epochs=4"]
    report(command)
    assert {row["variant"] for row in rows(markdown(sweep))} == {"max_epochs=3", "max_epochs=4"}


def test_untrained_encoders_of_two_backbones_are_two(sweep: Folder):
    for width, top1 in ((8, 0.3), (16, 0.4)):
        for seed in (1, 2):
            sweep.finish(0.5, f"backbone.width={width}", seed=seed, untrained=top1 + seed / 100)
    measured = untrained_encoders(sweep.cells())
    assert measured["width=8"]["linear/top1"] == pytest.approx([0.31, 0.32])
    assert measured["width=16"]["linear/top1"] == pytest.approx([0.41, 0.42])
    assert len(measured) == 2


def test_protocols_whose_long_names_begin_alike_have_figures_of_their_own(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    for last in (1, 2):
        further(run, last / 10, f"{last}", Protocol("digits", "", {"l2_grid": [0.1] * 20 + [last]}))
    report(command)
    assert len(list((sweep.folder / "report").glob("accuracy_against_fraction*.png"))) == 3


def test_how_images_were_read_is_a_part_of_the_protocol(command: Command, sweep: Folder):
    """One run that was evaluated on squares of several sizes is no mean over seeds."""
    run = sweep.finish(0.5)
    for i, reading in enumerate(({"image_size": 8, "square": 1.0}, {"image_size": 16, "square": 1.0}), 1):
        further(run, i / 10, f"{i}", Protocol("own", "abc", {}, reading))
    further(run, 0.9, "again", Protocol("own", "abc", {}, {"image_size": 16, "square": 1.0}))
    values = {cell.protocol: cell.values("linear/top1") for cell in sweep.cells()}
    assert values == {"standard": [0.5], "on own, image_size=8": [0.1], "on own, image_size=16": [0.2]}


def test_readings_of_other_data_are_no_difference(sweep: Folder):
    for dataset, size in (("digits", 8), ("fashion_mnist", 28)):
        run = sweep.finish(0.5, f"dataset={dataset}", seed=size)
        run.finish(run.results() | {"protocol": Protocol(dataset, "", {}, {"image_size": size}).as_dict()})
    assert {cell.protocol for cell in sweep.cells()} == {"standard"}


def test_a_dataset_says_how_it_is_read(tmp_path):
    def folder(**others):
        return ImageFolder(
            name="own", root=str(tmp_path), cache=str(tmp_path), image_size=8, channels=1, num_classes=2,
            mean=(0.5,), std=(0.5,), **others
        )  # fmt: skip

    write_image_folder(tmp_path, num_train=4, num_test=4, num_classes=2, channels=1)
    plain = protocol_of({}, folder()).reading
    assert plain == {"image_size": 8, "channels": 1, "validation_fraction": 0.1, "square": 1.0}
    assert protocol_of({}, folder(workers=3, resident_gib=1.0)).reading == plain
    assert protocol_of({}, folder(square=0.5)).reading != plain


@dataclass(kw_only=True)
class Own(ImageDataset):
    """A dataset of a user's, with parameters of any kind."""

    folder: Path
    look: Callable[[int], int]
    part: str = "upper"
    shares: tuple[float, ...] = (0.5, 0.5)

    def prepare(self):
        raise NotImplementedError

    read = count_classes = prepare


def test_parameters_that_are_no_plain_values_are_no_part_of_a_protocol(tmp_path):
    own = Own(
        name="own", image_size=8, channels=1, num_classes=2, mean=(0.5,), std=(0.5,), folder=tmp_path, look=abs
    )  # fmt: skip
    made = protocol_of({}, own)
    assert made.reading == {
        "image_size": 8, "channels": 1, "validation_fraction": 0.1, "part": "upper", "shares": [0.5, 0.5]
    }  # fmt: skip
    assert protocol_in({"protocol": json.loads(json.dumps(made.as_dict()))}) == made


def test_what_methods_do_not_imply_is_named_where_it_differs_between_them(sweep: Folder):
    sweep.finish(0.5, "backbone.width=4", "optimizer.lr=0.01", untrained=0.3)
    sweep.finish(0.6, "method=directclr", "backbone.width=16", "optimizer.lr=0.02", untrained=0.8)
    assert [cell.variant for cell in sweep.cells()] == ["width=16, lr=0.02", "width=4, lr=0.01"]
    measured = {name: metrics["linear/top1"] for name, metrics in untrained_encoders(sweep.cells()).items()}
    assert measured == {"width=4": [0.3], "width=16": [0.8]}


def test_data_that_have_changed_under_their_name_are_told_apart(command: Command, sweep: Folder):
    """Other test images are another protocol; other training images, or other code, another cell."""
    first, second = sweep.finish(0.5, seed=1), sweep.finish(0.7, seed=2)
    for run, top1 in ((first, 0.2), (second, 0.4)):
        results = run.results()
        run.finish(results | {"protocol": Protocol("digits", "before", {}).as_dict()})
        further(run, top1, "mended", Protocol("digits", "mended", {}))
    values = {cell.protocol: sorted(cell.values("linear/top1")) for cell in sweep.cells()}
    assert sorted(values.values()) == [[0.2, 0.4], [0.5, 0.7]]
    assert all(re.fullmatch("standard, data [0-9a-f]{4}", name) for name in values)
    report(command)
    assert markdown(sweep).count("\n## evaluation: standard, data ") == 2


def test_runs_that_have_read_other_data_are_no_seeds_of_one_cell(command: Command, sweep: Folder):
    for top1, read in ((0.5, {"data": "aaaaaaaa"}), (0.7, {"data": "bbbbbbbb"}), (0.9, {"data": "bbbbbbbb"})):
        config = config_of(seed=round(10 * top1))
        identity = identity_of(config, read)
        run = Run(sweep.folder / identity.run_name)
        with run.locked(identity, config):
            run.finish(results_of(config, top1))
    assert {cell.variant: sorted(cell.values("linear/top1")) for cell in sweep.cells()} == {
        "data=aaaaaaaa": [0.5],
        "data=bbbbbbbb": [0.7, 0.9],
    }


def test_an_evaluation_of_another_protocol_has_its_own_seconds(sweep):
    run = sweep.finish(0.5)
    results = run.results()
    run.finish(results | {"cost": results["cost"] | {"evaluation_seconds": 3.0}})
    further(run, 0.6, "timed", settings("evaluation.k=1"), cost={"evaluation_seconds": 4.0, "train_seconds": 99.0})
    further(run, 0.7, "untimed", settings("evaluation.k=2"))
    seconds = {cell.values("linear/top1")[0]: cell.values("evaluation_seconds", cost=True) for cell in sweep.cells()}
    assert seconds == {0.5: [3.0], 0.6: [4.0], 0.7: []}
    assert all(cell.values("train_seconds", cost=True) == [10.0] for cell in sweep.cells())


def test_transfer_puts_other_data_beside_those_of_pretraining(command: Command, sweep: Folder):
    first, second = sweep.finish(0.5, seed=1), sweep.finish(0.7, seed=2)
    other = sweep.finish(0.8, "method=directclr", seed=1)
    sweep.finish(0.4, "method=byol", seed=1)  # was evaluated on its own data alone
    further(second, 0.9, "b", Protocol("fashion_mnist", "", {}))
    further(other, 0.3, "c", Protocol("fashion_mnist", "", {}))
    further(first, 0.2, "d", Protocol("digits", "", {"k": 1}))
    further(first, 0.1, "e", Protocol("fashion_mnist", "", {"k": 1}))
    report(command)
    text = markdown(sweep).partition("\n## Transfer\n")[2].partition("\n## Seconds\n")[0]
    assert rows(text) == [
        {
            "method": method,
            "fraction": "1",
            "linear % own data": own,
            "linear % on fashion_mnist": moved,
            "linear % on digits, k=1": settings_alone,
            "linear % on fashion_mnist, k=1": few,
            "k-NN % own data": neighbours,
        }
        for method, own, moved, few, settings_alone, neighbours in (
            ("directclr", "80.0", "30.0", "–", "–", "40.0"),
            ("simclr", "60.0 ± 14.1", "90.0", "10.0", "20.0", "30.0 ± 7.1"),
        )
    ]
    assert r"\caption{Transfer: linear and k-NN \% on other data.}" in (sweep.folder / "report/report.tex").read_text()


@pytest.mark.nightly
def test_encoders_that_have_all_other_data_have_mean_ranks(command: Command, sweep: Folder):
    """Of settings that are the same everywhere nothing is said, and their own data are among the others."""
    accuracies = {  # on digits, its own; on cifar10; on svhn
        "simclr": (0.9, 0.5, 0.3),
        "byol": (0.8, 0.5, 0.6),
        "directclr": (0.7, 0.4, 0.2),
        "simsiam": (0.99, 0.99, None),
    }
    settings = {"few_percents": []}
    for method, values in accuracies.items():
        run = sweep.finish(0.5, f"method={method}")
        for name, top1 in zip(("digits", "cifar10", "svhn"), values, strict=True):
            if top1 is not None:
                metrics = {"linear/top1": top1, "knn/top1": 1 - top1}
                further(run, top1, name, Protocol(name, "", settings), metrics=metrics)
    report(command)
    text = markdown(sweep).partition("\n## Transfer\n")[2].partition("\n## Seconds\n")[0]
    found = {row.pop("method"): row for row in rows(text)}
    assert {method: row["linear mean rank"] for method, row in found.items()} == {
        "simclr": "1.50",  # (1 + 1.5 + 2) / 3
        "byol": "1.50",  # (2 + 1.5 + 1) / 3
        "directclr": "3.00",
        "simsiam": "–",
    }
    assert {method: row["k-NN mean rank"] for method, row in found.items()} == {
        "simclr": "2.50",
        "byol": "2.50",
        "directclr": "1.00",
        "simsiam": "–",
    }
    columns = ["own data", "on digits", "on cifar10", "on svhn"]
    ranks = ["linear mean rank", "k-NN mean rank"]
    assert list(found["byol"]) == [
        "fraction",
        *ranks,
        *(f"{probe} % {column}" for probe in ("linear", "k-NN") for column in columns),
    ]
    assert found["byol"]["k-NN % on svhn"] == "40.0"


def universal(run, top1: float, sigma: float, where: str = "digits") -> None:
    metrics = {"linear/top1": top1, "knn/top1": top1, "sigma_ssl/5": sigma, "sigma_supervised/5_gain": 0.25}
    columns = {"linear/top1": "linear %", "sigma_ssl/5": "σ, T=5", "sigma_supervised/5_gain": "gain at T=5 %"}
    protocol = Protocol(where, "", {"suite": "Universality"})
    further(run, top1, "u", protocol, metrics=metrics, columns=columns, explanation="σ: of <so many> tasks.")


@pytest.mark.nightly
def test_universality_stands_beside_the_accuracy_on_other_data(command: Command, sweep: Folder):
    for seed in (1, 2):
        run = sweep.finish(0.5, seed=seed)
        universal(run, 0.9, 0.1 * seed)
        for name, top1 in (("digits", 0.7), ("cifar10", 0.6), ("svhn", 0.2 * seed)):
            further(run, top1, name, Protocol(name, "", {"few_percents": []}))
    lacking = sweep.finish(0.5, "method=byol")
    universal(lacking, 0.8, 0.5)
    further(lacking, 0.3, "svhn", Protocol("svhn", "", {"few_percents": []}))
    universal(sweep.finish(0.5, "method=simsiam"), 0.1, 0.1)  # was tried on no other data
    report(command)
    text = markdown(sweep)
    joined = text.partition("\n## Universality and transfer\n")[2].partition("\n## ")[0]
    assert rows(joined) == [
        {"method": "byol", "fraction": "1", "linear %": "80.0", "σ, T=5": "0.5000"}
        | {"mean linear % elsewhere": "–", "linear % on svhn": "30.0", "linear % on cifar10": "–"},
        {"method": "simclr", "fraction": "1", "linear %": "90.0 ± 0.0", "σ, T=5": "0.1500 ± 0.0707"}
        | {"mean linear % elsewhere": "45.0", "linear % on svhn": "30.0 ± 14.1", "linear % on cifar10": "60.0 ± 0.0"},
    ]
    assert "No difference is tested here." in joined
    # What the columns of an evaluation are stands below its own table, and not only what those of the standard are.
    (table,) = (part for part in text.split("\n## ") if part.startswith("evaluation: Universality"))
    assert "σ: of &lt;so many&gt; tasks. Mean ± s.d. over seeds (n − 1); seconds: of this evaluation" in table
    assert table.count("seconds: training of one run") == 0


def test_two_protocols_are_not_averaged_over_data(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    universal(run, 0.9, 0.1)
    further(run, 0.6, "a", Protocol("cifar10", "", {"k": 1}))
    further(run, 0.4, "b", Protocol("svhn", "", {}))
    report(command)
    (row,) = rows(markdown(sweep).partition("\n## Universality and transfer\n")[2].partition("\n## ")[0])
    assert row["mean linear % elsewhere"] == "–"
    assert {row["linear % on svhn"], row["linear % on cifar10, k=1"]} == {"40.0", "60.0"}


def test_without_other_data_there_is_no_transfer(command: Command, sweep: Folder):
    run = sweep.finish(0.5)
    further(run, 0.2, "a", Protocol("digits", "", {"k": 1}))
    report(command)
    assert "## Transfer" not in markdown(sweep)


def test_the_linear_probe_by_sgd_is_shown(command: Command, sweep):
    """In a table of its own, where the exact one has no place; plots of it are not empty."""
    protocol = Protocol("digits", settings={"linear": "sgd", "few_percents": []})
    for method, seed, top1 in (("simclr", 1, 0.5), ("simclr", 2, 0.6), ("byol", 1, 0.7), ("byol", 2, 0.8)):
        run = sweep.finish(0.3, f"method={method}", seed=seed)
        metrics = {"linear_sgd/top1": top1, "knn/top1": 0.4}
        further(run, 0.0, "digits-1", protocol, metrics=metrics, test_images=540)
    report(command)
    of_sgd = markdown(sweep).partition("linear=sgd\n")[2]
    shown = {row["method"]: row for row in rows(of_sgd)[:2]}
    assert shown["simclr"]["linear SGD %"] == "55.0 ± 7.1"
    assert shown["byol"]["linear SGD %"] == "75.0 ± 7.1"
    assert "linear %" not in shown["byol"]
    assert re.search(r"its linear %: ±(1\.86|2\.14) at", of_sgd)  # 75 %, or 55 %, of 540 images
    assert "linear SGD" not in (sweep.folder / "report" / "runs.csv").read_text()


def test_a_table_of_the_page_names_other_data_and_settings(command: Command, sweep):
    """Also where all of it is under one protocol."""
    run = sweep.finish(0.3, seed=1)
    of_mine = {"metrics": {"own/share": 0.5}, "columns": {"own/share": "own %"}}
    of_others = {"metrics": {"more/share": 0.5}, "columns": {"more/share": "more %"}}
    further(run, 0.0, "digits-1", Protocol("digits", settings={"suite": "Aaa"}), **of_mine)
    further(run, 0.0, "other-1", Protocol("other", settings={"suite": "Bbb", "limit": 3}), **of_others)
    report(command)
    page = (sweep.folder / "report" / "report.html").read_text(encoding="utf-8")
    tables = page.partition('"further"')[2] or page
    assert "on other, Bbb, limit=3" in tables.partition("more %")[2].partition('"explanation"')[0]
    assert '"protocol"' not in tables.partition("own %")[0].rpartition('"Aaa"')[2]


def test_the_table_of_runs_has_what_they_were_trained_with(command: Command, sweep):
    """And no empty columns of what was measured further; the standard evaluation stands first."""
    run = sweep.finish(0.3, seed=1)
    suite = Protocol("digits", settings={"suite": "Aaa"})
    further(run, 0.0, "digits-1", suite, metrics={"own/share": 0.5}, columns={"own/share": "own %"})
    report(command)
    (row,) = rows(markdown(sweep).partition("## evaluation: Aaa")[0])
    assert "linear %" in row
    head = (sweep.folder / "report" / "runs.csv").read_text().splitlines()[0].split(",")
    assert "own %" not in head
    assert {"linear %", "k-NN %", "5-shot %", "RankMe r"} <= set(head)
