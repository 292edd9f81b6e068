"""A ranking as a folder to hand on: data and a card, without code and without places of this machine."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_lightning.errors import UserError
from ssl_lightning.export.card import pairs, table, text_of
from ssl_lightning.export.folder import CARD, digest_of_card, former, whole
from ssl_lightning.files import write_json, write_text
from ssl_lightning.subsets.ranking import RANKING_FILE, Ranking

PROVENANCE = "provenance.json"
MADE_BY = "ssl-select"
MADE_ANEW = ("seconds", "proxy_seconds", "versions")
"""Of a provenance, what may differ though the ranking is the same."""
LICENCE = "No licence is given here: choose one that the data allow, and write it in this place."


def publish(ranking: Ranking, to: Path) -> None:
    """Writes `ranking.npz`, which `subset=file` reads, `provenance.json` and `README.md` into the folder `to`, whole or
    not at all.

    Raises:
        UserError: the folder holds something else, or the ranking of another rule or of other images.
    """
    ranking = replace(ranking, provenance=_without_places(ranking.provenance))
    there = former(to, PROVENANCE, MADE_BY, "export")
    if there is not None and _what(there) != _what(ranking.provenance):
        raise UserError(
            f"export={to} holds another ranking: {text_of(there.get('rule'))} of {text_of(_dataset(there))}. Choose a "
            "folder for each, in a multirun such as 'export=published/${hydra:runtime.choices.subset}'."
        )
    text = card_of_ranking(ranking)
    with whole(to) as folder:
        ranking.save(folder / RANKING_FILE)
        write_json(folder / PROVENANCE, {**ranking.provenance, "made_by": MADE_BY, "card": digest_of_card(text)})
        write_text(folder / CARD, text)


def _what(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in provenance.items() if key not in (*MADE_ANEW, "made_by", "card")}


def _dataset(provenance: Mapping[str, Any]) -> Any:
    made_for = provenance.get("fingerprint")
    return made_for.get("name") if isinstance(made_for, Mapping) else None


def _without_places(value: Any) -> Any:
    """Absolute paths, which a rule of the user's own may have among its settings, by their last part."""
    if isinstance(value, Mapping):
        return {key: _without_places(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_places(item) for item in value]
    return Path(value).name if isinstance(value, str) and os.path.isabs(value) else value


def card_of_ranking(ranking: Ranking) -> str:
    """Markdown: what the ranking is, and the lines that use it. Whatever its provenance says is text."""
    said = ranking.provenance
    made_for = ranking.fingerprint
    dataset, digest = (made_for.name, made_for.digest) if made_for else ("unnamed data", "unknown")
    reach = f" It goes up to the fraction {ranking.max_fraction:g}." if ranking.max_fraction < 1 else ""
    fraction = min(0.3, ranking.max_fraction)
    nuisance = made_for.split.partition("-")[2] if made_for else ""  # of its usual settings, or others
    option = f" dataset.nuisance={text_of(nuisance)}" * bool(nuisance)
    facts = {
        "rule": said.get("rule"),
        "seed": said.get("seed"),
        "dataset": dataset,
        "split": made_for and made_for.split,
        "images": len(ranking),
        "nuisance": pairs(said.get("nuisance")),
        "digest of labels and images": digest,
        "digest of proxies and files": said.get("content"),
        "seconds of ranking": said.get("seconds"),
        "seconds of training its proxies": said.get("proxy_seconds"),
    }
    return "\n".join(
        [
            f"# {text_of(said.get('rule'))} ranking of {text_of(dataset)}",
            "",
            f"The positions of the {len(ranking):,} training images of {text_of(dataset)}, counted from 0, best first."
            f"{reach}",
            "",
            "## Use",
            "",
            "In this folder, on the same images, which are known by their digest:",
            "",
            "```",
            f"ssl-train dataset={text_of(dataset)}{option} subset=file subset.path=. subset.fraction={fraction:g}",
            "```",
            "",
            "With NumPy alone:",
            "",
            "```python",
            "import numpy as np",
            "",
            f'ranking = np.load("{RANKING_FILE}")  # no pickle',
            'order = ranking["order"]  # positions, best first',
            'score = ranking["score"]  # of each position, larger is better; NaN where the rule has none',
            'groups = ranking["latent_class"]  # of each position',
            f"kept = np.sort(order[: round({fraction:g} * len(order))])",
            "```",
            "",
            "## Provenance",
            "",
            *table(("", ""), ((key, value) for key, value in facts.items() if value not in (None, ""))),
            *table(("setting", "value"), _flat(said.get("parameters", {}))),
            f"Made with {pairs(said.get('versions')) or 'unknown versions'}. `{PROVENANCE}` says it to programs.",
            "",
            "## Licence",
            "",
            LICENCE,
            "",
        ]
    )


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values."""
    if isinstance(value, Mapping) and (value or not key):
        for name, item in value.items():
            yield from _flat(item, f"{key}.{name}" if key else str(name))
    else:
        yield key, "null" if value is None else value
