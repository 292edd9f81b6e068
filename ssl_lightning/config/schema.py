"""What a run consists of."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt


@dataclass(frozen=True)
class Component:
    """Marks a field of the schema as a mapping with a `_target_` that makes an instance of the class `kind`.

    A `late` one is not imported and checked before `check_late` is called, when it is known to be needed: provided
    that nothing makes it before, so the component whose argument it is has `_recursive_: false`.
    """

    kind: str
    late: bool = False


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
class TrainConfig:
    """`conf/train.yaml`; see there for what each key means."""

    seed: Annotated[int, Ge(0)]
    sweep: str
    batch_size: Annotated[int, Gt(0)]
    budget: Literal["epochs", "steps"]
    compile: bool
    float32_matmul: Literal["highest", "high", "medium"]
    channels_last: bool
    debug: bool
    backbone: Annotated[Any, Component("torch.nn.Module")]
    dataset: Annotated[Any, Component("ssl_lightning.data.dataset.ImageDataset")]
    subset: Annotated[Any, Component("ssl_lightning.subsets.rule.SubsetRule")]
    augment: Annotated[Any, Component("ssl_lightning.data.views.Augment")]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe")]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod")]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer")]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite")]
    callbacks: dict[str, Annotated[Any, Component("lightning.pytorch.Callback")]]
    logger: dict[str, Annotated[Any, Component("lightning.pytorch.loggers.Logger")]]
    checkpoint: Checkpointing
    paths: Paths


@dataclass
class SelectConfig(TrainConfig):
    """`conf/select.yaml`: the same, but what only a training needs is not looked at."""

    backbone: Annotated[Any, Component("torch.nn.Module", late=True)]
    optimizer: Annotated[Any, Component("ssl_lightning.optim.recipe.OptimizerRecipe", late=True)]
    method: Annotated[Any, Component("ssl_lightning.methods.method.SSLMethod", late=True)]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer", late=True)]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite", late=True)]
    callbacks: dict[str, Annotated[Any, Component("lightning.pytorch.Callback", late=True)]]
    logger: dict[str, Annotated[Any, Component("lightning.pytorch.loggers.Logger", late=True)]]


@dataclass
class EvaluateConfig:
    """`conf/evaluate.yaml`; see there for what each key means."""

    run: str | None
    batch_size: Annotated[int, Gt(0)]
    debug: bool
    encoder: Annotated[Any, Component("ssl_lightning.evaluation.sources.EncoderSource")]
    evaluation: Annotated[Any, Component("ssl_lightning.evaluation.suite.EvaluationSuite")]
    trainer: Annotated[Any, Component("lightning.pytorch.Trainer", late=True)]
    paths: Paths
    dataset: Annotated[Any, Component("ssl_lightning.data.dataset.ImageDataset")] = None
