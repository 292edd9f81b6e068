"""What a run consists of."""

from dataclasses import dataclass, field, make_dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from ssl_lightning.config.markers import After, Content, Place, Seed
from ssl_lightning.ranges import SeedNumber


@dataclass(frozen=True)
class Component:
    """Marks a field of the schema as a mapping with a `_target_` that makes an instance of the class `kind`.

    Args:
        kind: dotted name of the class.
        late: it is not imported and checked with the config, but by whoever needs it.
        beside: a dataclass of further settings that stand beside the component's own and are not handed to it.
        optional: it may be null.
        advice: a sentence where something else was given.
        optional_for_result: what it makes counts for the identity of a run only where it can change the result.
    """

    kind: str
    late: bool = False
    beside: type | None = None
    optional: bool = False
    optional_for_result: bool = False
    advice: str = ""


DATASET = "ssl_lightning.data.dataset.ImageDataset"
TRAINER = "ssl_lightning.pipeline.trainer.TrainerSettings"
SUITE = "ssl_lightning.evaluation.suite.EvaluationSuite"
EVALUATOR = "ssl_lightning.evaluation.evaluator.Evaluator"
FURTHER = "After training: ssl-evaluate run=<folder> evaluation=<this one>."
CALLBACK = "lightning.pytorch.Callback"
LOGGER = "lightning.pytorch.loggers.Logger"


@dataclass
class Paths:
    runs: str
    data: str
    cache: str


@dataclass
class Checkpointing:
    every_minutes: Annotated[float, Ge(0)]
    every_steps: Annotated[int, Gt(0)] | None


@dataclass
class Cut:
    """What is cut from a ranking, and the runs that the ranking is made with: beside the rule of `subset`.

    `name` is that of the subset in folders and tables; None: of the rule's class.
    `proxy` names a finished `run`, or says in what the run that is trained for the ranking differs from this one.
    `embedder` is the same of a run by whose embeddings images are grouped before proxies learn the groups.
    """

    fraction: Annotated[float, Gt(0), Le(1)] | None = 1.0
    budget: Literal["exact", "floor"] = "exact"
    name: Annotated[str | None, Place] = None
    proxy: Annotated["Proxy | None", Content] = None  # type: ignore[valid-type]  # made below, of TrainConfig's fields
    embedder: Annotated["Proxy | None", Content] = None  # type: ignore[valid-type]


@dataclass
class Evaluated:
    """What is evaluated on: beside the suite of `evaluation`. None: what is pretrained on."""

    dataset: Annotated[Any, Component(DATASET, optional=True)] = None


@dataclass
class Listed(Evaluated):
    """What ssl-evaluate evaluates on: `datasets`, by name, rather than one."""

    datasets: dict[str, Annotated[Any, Component(DATASET)]] | None = None


@dataclass
class TrainConfig:
    """`conf/train.yaml`; see there for what each key means."""

    seed: Annotated[SeedNumber, Seed]
    sweep: Annotated[str, Place]
    batch_size: Annotated[int, Gt(0)]
    budget: Literal["epochs", "steps", "compute"]
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None
    float32_matmul: Literal["highest", "high", "medium"]
    channels_last: bool
    debug: Annotated[bool, Place]
    backbone: Annotated[Any, Component("torch.nn.Module")]
    dataset: Annotated[Any, Component(DATASET)]
    subset: Annotated[Any, Component("ssl_lightning.subsets.rule.SubsetRule", beside=Cut)]
    augment: Annotated[Any, Component("ssl_lightning.data.views.Augment")]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe")]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod")]
    trainer: Annotated[Any, Component(TRAINER)]
    evaluation: Annotated[Any, Component(SUITE, beside=Evaluated, advice=FURTHER), After]
    callbacks: dict[str, Annotated[Any, Component(CALLBACK, optional_for_result=True)]]
    logger: Annotated[dict[str, Annotated[Any, Component(LOGGER)]], Place]
    checkpoint: Annotated[Checkpointing, Place]
    paths: Annotated[Paths, Place]
    force: Annotated[bool, Place] = False
    init: Annotated[str | None, Content] = None
    extend: Annotated[bool, Place] = False
    objective: Annotated[str, Place] = "linear/val_top1"
    resolution: Annotated[Any, Component("ssl_lightning.data.resolution.Resolution", optional=True)] = None
    selection: Annotated[Any, Component("ssl_lightning.selection.rule.SelectionRule", optional=True)] = None


@dataclass
class SelectConfig(TrainConfig):
    """`conf/select.yaml`: the same, but what only a training needs is not looked at. Beside that, what is done
    with a ranking."""

    backbone: Annotated[Any, Component("torch.nn.Module", late=True)]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe", late=True)]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod", late=True)]
    evaluation: Annotated[Any, Component(SUITE, late=True, beside=Evaluated)]
    callbacks: dict[str, Annotated[Any, Component(CALLBACK, late=True)]]
    logger: dict[str, Annotated[Any, Component(LOGGER, late=True)]]
    export: str | None = None
    lists: list[str] = field(default_factory=list)


@dataclass
class EvaluateConfig:
    """`conf/evaluate.yaml`; see there for what each key means."""

    run: str | None
    batch_size: Annotated[int, Gt(0)]
    debug: bool
    encoder: Annotated[Any, Component("ssl_lightning.evaluation.sources.EncoderSource")]
    evaluation: Annotated[Any, Component(EVALUATOR, beside=Listed)]
    trainer: Annotated[Any, Component(TRAINER)]
    paths: Paths
    dataset: Annotated[Any, Component(DATASET, optional=True)] = None


@dataclass
class ExportConfig:
    """`conf/export.yaml`; see there for what each key means."""

    run: str
    format: Literal["safetensors", "torchvision", "timm", "onnx"]
    to: str
    trusted: list[str]
    debug: bool


@dataclass
class TheoryConfig:
    """`conf/theory.yaml`; see there for what each key means."""

    seed: SeedNumber
    to: str
    augmentation: Annotated[Any, Component("ssl_lightning.theory.experiments.StrongAugmentation")]
    depth: Annotated[Any, Component("ssl_lightning.theory.experiments.Depth")]
    alignment: Annotated[Any, Component("ssl_lightning.theory.experiments.Alignment")]
    debug: bool


Proxy = make_dataclass(
    "Proxy",
    [
        ("run", "str | None", field(default=None)),
        *((name, "object", field(default=None)) for name in TrainConfig.__annotations__),
    ],
)
"""The keys of a run, each of them optional, and the folder of a finished `run` instead. Their values are checked with
those of the run that is trained, when it is known to be needed."""

SETTINGS: tuple[type, ...] = (Paths, Checkpointing, Proxy)
"""Mappings without a `_target_`."""

_NAMED = ("projector", "latent", "quota", "redundancy", "pseudo_labels", "proxy", "dataset", "nuisance")
NAMED_COMPONENTS = {name: name for name in _NAMED} | {"base": "method", "embedder": "proxy"}
"""Keys inside a component that also accept the name of an option of a group: `method.base=directclr`."""
