"""ssl-report --wandb: workspaces and a report in wandb, on what a report compares."""

import importlib.util
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_lightning.errors import UserError
from ssl_lightning.explaining import in_one_line
from ssl_lightning.files import read_text, write_json
from ssl_lightning.lightning_internals import place_of, specification, take_the_place_of

if TYPE_CHECKING:
    from ssl_lightning.reports.records import Record

SPECIFICATION = "wandb_dashboard.json"
"""What wandb is to show, in its own format, beside a report."""
PLACES = "wandb_places.json"
"""Where it was saved: the next time changes that."""
UNKNOWN = "entity"
"""Stands for the user or team while there is no login."""


def dashboard(folders: Sequence[Path], output: Path | None = None, project: str = "") -> None:
    """Saves a workspace for each protocol and one report; or, without a login or a server that answers, only writes
    what they would be, and says how to save them.

    Args:
        output: folder of the report; None for that of `ssl-report`.
        project: `project` or `entity/project` of wandb; empty for where the runs were logged.

    Raises:
        UserError: `wandb-workspaces` is not installed; or the runs lie in several projects, or have no results.
    """
    if importlib.util.find_spec("wandb_workspaces") is None:
        raise UserError("--wandb needs a package that is not installed: pip install 'ssl-lightning[wandb-workspaces]'")
    from ssl_lightning.pipeline.report import report_folder
    from ssl_lightning.reports.records import records_of
    from ssl_lightning.reports.workspace import report, shown_of, workspace
    from ssl_lightning.runs.run import find_runs

    records = records_of(find_runs(list(folders)))
    shown = shown_of(records)
    if not shown:
        raise UserError("No run has results that wandb could show. Let one finish first.")
    entity, _, name = (project or _project_of(records)).rpartition("/")
    user, why = _login(entity)
    entity = user or UNKNOWN
    views = [*(workspace(one, entity, name) for one in shown), report(shown, entity, name)]
    output = output or report_folder(folders[0])
    content = {
        "project": f"{entity}/{name}",
        "workspaces": [specification(view) for view in views[:-1]],
        "report": specification(views[-1]),
    }
    write_json(output / SPECIFICATION, content)
    if not why:
        why = _save(views, output / PLACES, f"{entity}/{name}")
    if why:
        print(
            f"Nothing was saved in wandb: {why}. What would be is in {output / SPECIFICATION}. After `wandb login`, "
            "where its server answers, the same command saves it; ssl-sync uploads the runs that it shows.",
            flush=True,
        )


def _project_of(records: Sequence["Record"]) -> str:
    """Where the runs were logged, or would be."""
    from ssl_lightning.pipeline.sync import destination

    places = Counter("/".join(filter(None, destination(record.run, record.config))) for record in records)
    if len(places) > 1:
        raise UserError(
            f"The runs lie in {len(places)} projects of wandb: {', '.join(sorted(places))}. Choose the one to show "
            "them in: --wandb PROJECT; ssl-sync --project brings them there."
        )
    return next(iter(places))


def _login(entity: str) -> tuple[str, str]:
    """User or team to save for; and why that cannot be, where it cannot."""
    import wandb

    try:
        settings = wandb.setup(wandb.Settings(silent=True)).settings
        if settings.mode not in ("online", "run"):
            return entity, f"wandb is {settings.mode}, by WANDB_MODE or its settings"
        if not wandb.login(prompt=False, verify=True):
            return entity, f"there is no login for {settings.base_url}"
        return entity or str(wandb.Api().default_entity or ""), ""
    except Exception as error:
        return entity, in_one_line(error)


def _save(views: Sequence[Any], places: Path, project: str) -> str:
    """Returns why it failed, if it did. What was saved before is changed, and not saved a second time."""
    former = _former(places, project)
    saved: dict[str, Mapping[str, str]] = dict(former)
    for number, view in enumerate(views):
        name = f"{type(view).__name__.lower()} {number}"
        take_the_place_of(view, former.get(name, {}))
        try:
            view.save()
        except Exception as error:
            return in_one_line(error)
        saved[name] = place_of(view)
        write_json(places, {"project": project, "saved": saved})
        print(f"{type(view).__name__}: {view.url}", flush=True)
    return ""


def _former(places: Path, project: str) -> dict[str, dict[str, str]]:
    try:
        content = json.loads(read_text(places, 2**20))
        if content["project"] != project:
            return {}
        return {
            str(name): {str(key): value for key, value in place.items() if isinstance(value, str)}
            for name, place in content["saved"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
