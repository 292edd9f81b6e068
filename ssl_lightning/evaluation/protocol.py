"""How an encoder was evaluated. Numbers of two protocols are never averaged, nor put in one another's place."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from ssl_lightning.config.identity import digest_of, sources
from ssl_lightning.config.markers import IRRELEVANT, hints_of, marker_of
from ssl_lightning.data.dataset import ImageDataset, SplitName
from ssl_lightning.evaluation.evaluator import Evaluator
from ssl_lightning.evaluation.suite import EvaluationSuite

STANDARD = "standard"
OF_ENCODERS = ("name", "mean", "std", "stem", "num_classes", "nuisance", "pseudo_labels")
"""Parameters of a dataset that say what an encoder is made for or of, or follow from the data."""


@dataclass(frozen=True)
class Protocol:
    """
    Args:
        dataset: name of what was evaluated on.
        content: digests of its images and labels, and of a user's own suite; empty where nobody has kept it.
        settings: in which the evaluation differs from the standard one, or of another `suite`, from its defaults.
        reading: how images were read and split, such as their size; empty where nobody has kept it.
    """

    dataset: str
    content: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Eight hex digits."""
        return digest_of([self.dataset, self.content, self.settings, self.reading])[:8]

    def name(self, pretrained: str) -> str:
        """In words, for encoders that were trained on the dataset of this name."""
        words = [] if self.dataset == pretrained else [f"on {self.dataset}"]
        words += [str(self.settings["suite"])] if "suite" in self.settings else []
        words += [f"{key}={_text(value)}" for key, value in sorted(self.settings.items()) if key != "suite"]
        return ", ".join(words) or STANDARD

    def as_dict(self) -> dict[str, Any]:
        return {
            "digest": self.digest,
            "dataset": self.dataset,
            "content": self.content,
            "settings": dict(self.settings),
            "reading": dict(self.reading),
        }


def protocol_of(
    evaluation: Mapping[str, Any], dataset: ImageDataset | str, evaluator: type[Evaluator] = EvaluationSuite
) -> Protocol:
    """Of the resolved config of an evaluator, which is of this class; of a dataset's name alone, without what there is
    to know of the data."""
    hints = hints_of(evaluator)
    standard = {one.name: one.default for one in fields(evaluator)}
    settings: dict[str, Any] = {}
    for key, value in evaluation.items():
        if key != "dataset" and not key.startswith("_") and marker_of(hints.get(key)) not in IRRELEVANT:
            settings |= _differences(key, value, standard.get(key))
    suite = str(evaluation.get("_target_", "")).rpartition(".")[2]
    if suite not in ("", EvaluationSuite.__name__):
        settings["suite"] = suite
    if isinstance(dataset, str):
        return Protocol(dataset, "", settings)
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    own = sorted(sources(dict(evaluation)).values()) if "suite" in settings else []
    content = "-".join(filter(None, (*map(dataset.content_digest, splits), *own)))
    return Protocol(dataset.name, content, settings, _reading(dataset))


def _differences(key: str, value: Any, standard: Any) -> dict[str, Any]:
    """The setting, where it is another; of a component of the standard's class, its own settings that are."""
    kind = type(standard)
    named = f"{kind.__module__}.{kind.__qualname__}"
    if is_dataclass(standard) and isinstance(value, Mapping) and value.get("_target_") == named:
        inner = {one.name: one.default for one in fields(standard)} | dict(value)
        usual = {one.name: getattr(standard, one.name) for one in fields(standard)}
        return {f"{key}.{name}": inner[name] for name in usual if _plain(inner[name]) != _plain(usual[name])}
    return {} if _plain(value) == _plain(standard) else {key: value}


def _reading(dataset: ImageDataset) -> dict[str, Any]:
    """Parameters of the dataset by which an encoder sees other images of the same data, or probes another part; those
    that are no plain values, as a dataset of a user's may have, left out."""
    hints = hints_of(type(dataset))
    values = {
        one.name: _plain(getattr(dataset, one.name))
        for one in fields(dataset)
        if one.init and one.name not in OF_ENCODERS and marker_of(hints.get(one.name)) not in IRRELEVANT
    }
    return {name: value for name, value in values.items() if _is_written(value)}


def protocol_in(results: Mapping[str, Any]) -> Protocol:
    """Of an evaluation as it was kept; files of former versions hold the config of the suite instead."""
    if "protocol" in results:
        kept = results["protocol"]
        return Protocol(kept["dataset"], kept["content"], kept["settings"], kept.get("reading", {}))
    evaluation = results.get("evaluation") or {}
    dataset = (evaluation.get("dataset") or {}).get("name") or results.get("dataset") or results["identity"]["dataset"]
    return protocol_of(evaluation, dataset)


def same(one: Protocol, other: Protocol) -> bool:
    """Whether numbers of both may stand for one another, as far as is known of the data."""
    return (one.dataset, one.settings) == (other.dataset, other.settings) and all(
        mine == others or not mine or not others
        for mine, others in ((one.content, other.content), (one.reading, other.reading))
    )


def _is_written(value: Any) -> bool:
    """Whether a JSON file gives it back."""
    if isinstance(value, list):
        return all(map(_is_written, value))
    return value is None or type(value) in (str, bool, int, float)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _text(value: Any) -> str:
    if isinstance(value, Mapping):  # a component
        return f"{str(value.get('_target_', '')).rpartition('.')[2]} {digest_of([value])[:4]}".strip()
    return "[" + ", ".join(map(_text, value)) + "]" if isinstance(value, list | tuple) else f"{value}"
