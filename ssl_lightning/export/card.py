"""A model card: what an exported encoder is, made from its run's results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ssl_lightning.evaluation.protocol import protocol_in
from ssl_lightning.reports.tables import plain
from ssl_lightning.runs.reading import stopped_early
from ssl_lightning.runs.run import Identity

WHAT = ("method", "dataset", "subset", "fraction", "seed", "budget")
LICENCE = "No licence is given here: choose one that your code and the data allow, and write it in this place."


def card(
    results: Mapping[str, Any],
    run: str,
    identified: Identity,
    data: str,
    files: Sequence[str],
    lines: Sequence[str],
    steps: str,
) -> str:
    """Markdown, with the front matter that model hubs read. Whatever the results of somebody else's run say is text.

    Args:
        results: of the run.
        run: its name.
        identified: what its config says it is.
        data: its images, in words.
        files: what lies beside.
        lines: Python that loads them.
        steps: what is done with an image before.
    """
    identity, mask, cost = (results.get(part, {}) for part in ("identity", "mask", "cost"))
    what = {key: identity[key] for key in WHAT if key in identity}
    protocol = protocol_in(results)
    environment = results.get("environment") or {}
    versions = environment.get("versions")
    training = {
        **what,
        "digest of the run": identified.digest,
        "trained on": f"{mask.get('size')} of the images of {data}",
        "digest of their positions": mask.get("digest"),
        **{f"digest of {key}": digest for key, digest in identified.contents.items()},
        "optimizer steps": _steps(results),
    }
    return "\n".join(
        [
            "---",
            "library_name: ssl-lightning",
            "tags: [self-supervised-learning, image-feature-extraction]",
            "# license: yours to choose",
            "---",
            "",
            f"# {text_of(run)}",
            "",
            f"An image encoder, trained by {text_of(what.get('method', 'an unnamed method'))} on images of "
            f"{text_of(what.get('dataset', 'an unnamed dataset'))}, without a classifier.",
            "",
            "## Use",
            "",
            f"{', '.join(f'`{name}`' for name in files)} lie beside this file.",
            "",
            "```python",
            *lines,
            "```",
            "",
            f"Before: {steps} `preprocessing.json` says it to programs.",
            "",
            "## Training",
            "",
            *table(("", ""), training.items()),
            f"Made with {pairs(versions) or 'unknown versions'}, on "
            f"{text_of(environment.get('device', 'an unknown device'))}.",
            "",
            "## Metrics",
            "",
            "Of the frozen encoder: final weights, full test split. Evaluation: "
            f"{text_of(protocol.name(str(identity.get('dataset', ''))))}, protocol {protocol.digest}.",
            "",
            *_metrics(results),
            "## Cost",
            "",
            *table(("", ""), ((key.replace("_", " "), value) for key, value in cost.items())),
            "## Licence",
            "",
            LICENCE,
            "",
        ]
    )


def _steps(results: Mapping[str, Any]) -> str:
    steps, planned = results.get("cost", {}).get("optimizer_steps"), results.get("planned_steps")
    return f"{steps}, of {planned} planned: training was stopped" if stopped_early(results) else str(steps)


def _metrics(results: Mapping[str, Any]) -> list[str]:
    """Beside those of the same network before training, where they are known."""
    before = results.get("untrained")
    if not isinstance(before, Mapping):
        return table(("metric", "value"), results["metrics"].items())
    rows = ((name, value, before.get(name, "")) for name, value in results["metrics"].items())
    return table(("metric", "value", "untrained"), rows)


def table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *([text_of(value) for value in row] for row in rows)]
    return [*(f"| {' | '.join(line)} |" for line in lines), ""]


def pairs(values: Any) -> str:
    return ", ".join(f"{text_of(k)} {text_of(v)}" for k, v in values.items()) if isinstance(values, Mapping) else ""


def text_of(value: Any) -> str:
    said = f"{value:.4g}" if type(value) is float else "" if value is None else str(value)
    return plain(" ".join(said.split()))
