"""What a wandb run says of a run: the same whether it is logged while it trains or built anew from its folder."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ssl_lightning.config.identity import digest_of, without
from ssl_lightning.evaluation.protocol import protocol_in
from ssl_lightning.runs.reading import stopped_early
from ssl_lightning.runs.results import costs
from ssl_lightning.runs.run import Identity

LONGEST_TAG = 64
"""Letters that wandb takes."""
STEP = "trainer/global_step"
"""Column of optimizer steps, as Lightning names it; `epoch` is that of epochs."""
GROUPED = ("method", "dataset", "subset", "fraction", "seed", "budget", "digest")
"""What of an identity is a plain value in the config of a wandb run."""
SETTINGS = "settings"
"""Key of that config below which the resolved config stands: `method` is a name beside it, and a mapping in it."""
BY_FRACTION = "by_fraction/"
"""Beginning of the metrics that are logged once more, in a row with `fraction`: the only axis on which wandb draws a
mean and a spread over runs is a column of their histories."""
_LONGEST = 55
"""Letters of a run's name in the id of its wandb run, of which there may be 64."""


def wandb_id(name: str, sweep: str) -> str:
    """Of the run of this name in this sweep. The same run in another sweep has another, since only one history fits
    into a wandb run."""
    readable = re.sub("[^A-Za-z0-9_.-]", "-", name)[-_LONGEST:].lstrip("-.")
    return f"{readable}-{digest_of([sweep, name])[:8]}"


def wandb_arguments_of(name: str, identity: Identity, sweep: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """What `wandb.init` takes for a run.

    Args:
        name: of the run.
        config: resolved.
    """
    return {
        "id": wandb_id(name, sweep),
        "name": name,
        "group": sweep,
        "job_type": identity.method,
        "tags": [tag[:LONGEST_TAG] for tag in (identity.dataset, identity.subset) if tag],
        "config": {
            **{key: getattr(identity, key) for key in GROUPED},
            "cell": cell_name(identity, config),
            "sweep": sweep,
            "run": name,
            SETTINGS: dict(config),
        },
    }


def cell_name(identity: Identity, config: Mapping[str, Any]) -> str:
    """The same for runs that differ in seeds alone."""
    common = without(config, [*identity.ignored, *identity.seeds])
    fraction = "all" if identity.fraction is None else f"{identity.fraction:g}"
    digest = digest_of([common, dict(identity.contents)])[:8]
    return "-".join((identity.method, identity.dataset, identity.subset, fraction, digest))


def row_by_fraction(results: Mapping[str, Any]) -> dict[str, float]:
    """Empty where the fraction is not known."""
    fraction = results["identity"].get("fraction")
    metrics = {f"{BY_FRACTION}{name}": value for name, value in results["metrics"].items()}
    return {} if fraction is None else {"fraction": fraction, **metrics}


def found_out(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the config of a wandb run says otherwise once its mask is known: of which rule, and of which fraction."""
    return {key: results["identity"][key] for key in ("subset", "fraction") if key in results.get("identity", {})}


def wandb_summary(results: Mapping[str, Any], evaluations: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """All metrics and costs, and under which protocol each was measured: metrics of the run's own results by their
    names under `protocol`, further ones as `evaluations/<dataset>-<digest>/<metric>` under `protocols`.

    Args:
        evaluations: under other protocols.
    """
    pretrained = results["identity"]["dataset"]
    own = protocol_in(results)
    summary: dict[str, Any] = {**results["metrics"], **costs(results)}
    summary["status"] = "stopped" if stopped_early(results) else "finished"
    summary["protocol"] = {"name": own.name(pretrained), **own.as_dict()}
    for made in evaluations:
        protocol = protocol_in(made)
        key = f"{protocol.dataset}-{protocol.digest}"
        summary |= {f"evaluations/{key}/{name}": value for name, value in made["metrics"].items()}
        summary.setdefault("protocols", {})[key] = {"name": protocol.name(pretrained), **protocol.as_dict()}
    return summary
