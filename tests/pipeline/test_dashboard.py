"""ssl-report --wandb: what wandb is to show is what its own classes take, and is saved once."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ssl_lightning.loggers.wandb_run import BY_FRACTION, wandb_arguments_of
from ssl_lightning.pipeline import dashboard
from tests.pipeline.test_sync import log
from tests.reports.test_report import Folder, blank

SPECIFICATION = Path("runs/grid/report", dashboard.SPECIFICATION)


pytestmark = pytest.mark.usefixtures("no_login")


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.setattr("ssl_lightning.reports.figures.save", blank)
    return Folder(tmp_path / "runs" / "grid")


@pytest.fixture
def workspaces() -> None:
    pytest.importorskip("wandb_workspaces", reason="the extra wandb-workspaces is not installed")


@pytest.fixture
def runs(sweep: Folder) -> list[Any]:
    made = [
        sweep.finish(0.5 * fraction + seed / 100, seed=seed, fraction=fraction)
        for fraction in (0.5, 1.0)
        for seed in (1, 2)
    ]
    for run in made:
        log(run, 2, 4)
    return made


def panels(section: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"viewType": panel["viewType"], **panel["config"]} for panel in section["panels"]]


def sections(workspace: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    return {one["name"]: panels(one) for one in workspace["spec"]["section"]["panelBankConfig"]["sections"]}


def test_the_specification_is_what_wandbs_classes_take(runs, command, workspaces):
    from wandb_workspaces.reports.v2.internal import ReportViewspec
    from wandb_workspaces.workspaces.internal import WorkspaceViewspec

    done = command("ssl-report", "runs/grid", "--wandb")
    assert done.code == 0, done.err
    assert "Nothing was saved in wandb: there is no login for http://127.0.0.1:9." in done.out
    assert "wandb login" in done.out
    content = json.loads(SPECIFICATION.read_text())
    (workspace,) = content["workspaces"]
    for spec, kind in ((workspace["spec"], WorkspaceViewspec), (content["report"], ReportViewspec)):
        taken = kind.model_validate(spec).model_dump_json(by_alias=True, exclude_none=True)
        assert json.loads(taken.replace('"inlineComments":[],', "").replace(',"inlineComments":[]', "")) == spec
    shown = sections(workspace)
    assert list(shown) == [
        *("Accuracy against fraction", "Grid", "Parallel coordinates", "Spectra", "Learning curves", "Cost")
    ]
    linear, knn, scatter = shown["Accuracy against fraction"]
    assert (linear["xAxis"], linear["metrics"]) == ("fraction", [f"{BY_FRACTION}linear/top1"])
    assert knn["metrics"] == [f"{BY_FRACTION}knn/top1"]
    assert (linear["groupBy"], linear["groupAgg"], linear["groupArea"]) == ("method.value", "mean", "stddev")
    assert (scatter["xAxis"], scatter["yAxis"]) == ("config:fraction.value", "summary:linear/top1")
    curves = {(panel["xAxis"], *panel["metrics"]): panel["groupBy"] for panel in shown["Learning curves"]}
    assert curves == {("trainer/global_step", "loss"): "cell.value", ("epoch", "loss"): "cell.value"}
    accessors = [column["accessor"] for column in shown["Parallel coordinates"][0]["columns"]]
    assert accessors[:5] == [f"config:{key}.value" for key in ("method", "dataset", "subset", "fraction", "seed")]
    assert shown["Spectra"][0]["mediaKeys"] == ["figures/spectrum"]
    assert shown["Cost"][0]["xAxis"] == "summary:cost/train_seconds"
    (runset,) = workspace["spec"]["section"]["runSets"]
    assert [(one["key"]["name"], one["value"]) for one in runset["filters"]["filters"]] == [
        *(("group", ["default"]), ("protocol.digest", protocol_of(runs[0])))
    ]


def protocol_of(run: Any) -> str:
    from ssl_lightning.evaluation.protocol import protocol_in

    return protocol_in(run.results()).digest


def test_every_name_that_a_panel_uses_is_one_that_a_run_has(runs, command, workspaces):
    from ssl_lightning.loggers.wandb_run import row_by_fraction, wandb_summary

    assert command("ssl-report", "runs/grid", "--wandb").code == 0
    text = SPECIFICATION.read_text()
    identity, config = runs[0].described()
    told = wandb_arguments_of(runs[0].id, identity, "default", config)["config"]
    results = runs[0].results()
    known = {
        *(f"config:{key}.value" for key in told),
        *(f"summary:{key}" for key in wandb_summary(results)),
        *("run:displayName", "run:createdAt"),
    }
    used = set(re.findall(r'"((?:config|summary|run):[^"]+)"', text))
    assert used
    assert used <= known
    assert row_by_fraction(results)[f"{BY_FRACTION}linear/top1"] == results["metrics"]["linear/top1"]


def test_protocols_have_a_workspace_each(sweep, command, workspaces):
    sweep.finish(0.5, seed=1)
    sweep.finish(0.6, "evaluation.k=5", seed=2)
    assert command("ssl-report", "runs/grid", "--wandb").code == 0
    one, other = json.loads(SPECIFICATION.read_text())["workspaces"]
    assert {one["displayName"], other["displayName"]} == {"digits (standard)", "digits (k 5)"}


def test_with_a_login_it_is_saved_and_then_changed(runs, command, workspaces, wandb_server):
    for _ in range(2):
        done = command("ssl-report", "runs/grid", "--wandb", "team/ssl_lightning")
        assert done.code == 0, done.err
        assert f"Workspace: {wandb_server.address}/team/ssl_lightning?nw=" in done.out
    first, page, again, page_again = wandb_server.views
    assert (again["id"], again["name"]) == ("view1", first["name"])
    assert page_again["id"] == "view2"
    assert [view["type"] for view in wandb_server.views] == ["project-view", "runs"] * 2
    assert page["entityName"] == "team"
    content = json.loads(SPECIFICATION.read_text())
    assert sections({"spec": json.loads(again["spec"])}) == sections(content["workspaces"][0])


def test_without_the_package(runs, command, monkeypatch):
    monkeypatch.setattr(dashboard.importlib.util, "find_spec", lambda name: None)
    done = command("ssl-report", "runs/grid", "--wandb")
    assert done.code == 1
    assert "pip install 'ssl-lightning[wandb-workspaces]'" in done.err
