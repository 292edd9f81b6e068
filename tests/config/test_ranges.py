"""Every number that a component takes has its range, and is refused outside of it before anything starts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from annotated_types import Gt
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from ssl_lightning.config.components import locate, targets
from ssl_lightning.config.markers import hints_of
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from ssl_lightning.evaluation.evaluator import Evaluator
from ssl_lightning.pipeline.trainer import TrainerSettings
from ssl_lightning.ranges import DISTINCT
from tests.composing import composed, resolved
from tests.config.configs import NEEDED, PLACES, refused


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


WRONG = [
    *(f"method.temperature={value}" for value in ("-1", "0", "1e-9", "nan", "inf")),
    *("method=directclr method.temperature=0", "method=directclr method.d0=0"),
    *(f"method=gessl method.{key}" for key in ("tasks=0", "inner_steps=-1", "inner_lr=0", "future_steps=-1")),
    *(f"method=gessl method.{key}" for key in ("weight_base=-1", "weight_meta=-0.5", "temperature=0", "inner_lr=inf")),
    *("method.projector.hidden=0", "method.projector.outputs=0", "method.projector.layers=-1"),
    *(
        "projector@method.projector=fixed_low_rank_diagonal +method.projector.rank=0",
        "projector@method.projector=fixed_low_rank +method.projector.rank=0",
        "projector@method.projector=linear +method.projector.outputs=0",
    ),
    *("backbone.width=0", "backbone.width=-16"),
    *(f"backbone=vit_tiny backbone.{key}=0" for key in ("patch_size", "width", "depth", "heads", "image_size")),
    *("backbone=wide_resnet backbone.depth=0", "backbone=wide_resnet backbone.widening=0"),
    *("backbone=timm backbone.architecture=resnet18 backbone.channels=0",),
    *(f"{key}={value}" for key in ("seed", "subset.seed", "evaluation.seed") for value in ("-1", "4294967296")),
    "augment.views=[]",
    *(f"optimizer.lr={value}" for value in ("-1", "0", "nan", "inf")),
    *(
        "optimizer.weight_decay=-1",
        "optimizer.warmup_epochs=-3",
        "optimizer.warmup_ratio=2",
        "optimizer.final_ratio=-0.1",
    ),
    *("optimizer=lars optimizer.algorithm.trust_coefficient=0", "optimizer=lars optimizer.algorithm.momentum=1"),
    *("optimizer=muon optimizer.algorithm.momentum=1", "optimizer=muon optimizer.algorithm.betas=[0.9]"),
    "schedule=one_cycle optimizer.schedules.lr.rise=1.5",
    *("selection=infobatch selection.ratio=1.0", "selection=infobatch selection.until=1.5"),
    *("selection=scan selection.ratio=0.6", "selection=scan selection.cycle=0", "selection=scan selection.warmup=-1"),
    *("selection=coarse_to_fine selection.fraction=0.0", "selection=coarse_to_fine selection.keep=middle"),
    *("resolution=progressive resolution.start=0.0", "resolution=progressive resolution.multiple=0"),
    *("trainer.max_epochs=0", "trainer.max_epochs=-2", "trainer.max_steps=0", "trainer.log_every_n_steps=0"),
    *("trainer.limit_train_batches=0", "trainer.limit_train_batches=1.5", "trainer.limit_train_batches=-0.5"),
    *("trainer.gradient_clip_val=0", "trainer.accumulate_grad_batches=0"),
    *("evaluation.k=0", "evaluation.temperature=0", "evaluation.draws=0", "evaluation.epochs=0", "evaluation.seed=-1"),
    *(
        "evaluation.l2_grid=[]",
        "evaluation.l2_grid=[0.0]",
        "evaluation.learning_rates=[-1.0]",
        "evaluation.few_shots=[0]",
    ),
    *("evaluation.few_shots=[5,1,5]", "evaluation.l2_grid=[0.1,0.1]"),
    *("evaluation.few_percents=[101.0]", "evaluation.few_percents=[0.0]", "evaluation.probe_batch_size=0"),
    *("dataset.mean=[33.3]", "dataset.mean=[-0.1]", "dataset.std=[0.0]", "dataset.std=[64.0]", "dataset.image_size=0"),
    *("dataset.validation_fraction=0.0", "dataset.validation_fraction=1.0", "dataset.num_classes=0"),
    *("subset.fraction=0", "subset.fraction=1.5", "subset.seed=-1", "batch_size=0", "seed=-1"),
    *("subset=sas subset.looks=0", "subset=sas subset.threshold=1.0", "subset=el2n subset.runs=0"),
    *("checkpoint.every_minutes=-1", "checkpoint.every_steps=0", "callbacks.online_probe.lr=0"),
]


@pytest.mark.one_in(9)
@pytest.mark.parametrize("overrides", WRONG)
def test_what_is_out_of_range_is_refused_by_its_name(overrides):
    *others, last = overrides.split(" ")
    key = last.lstrip("+").partition("=")[0]
    message = refused(*others, last)
    assert f"{key} is " in message, message
    assert "should be" in message or "should have" in message, message
    assert last in message  # where it was written


@pytest.mark.parametrize("overrides", ["augment=simclr_cifar"])
@pytest.mark.parametrize(
    "change", [{"copies": 0}, {"flip_probability": 1.5}, {"hue": 0.6}, {"brightness": -1.0}, {"size": 0}]
)
def test_views_out_of_range_are_refused(overrides, change):
    config = composed(overrides)
    config.augment.views[0].update(change)
    with pytest.raises(UserError, match=rf"augment\.views\.0\.{next(iter(change))} is"):
        resolve(config)


def test_no_end_is_refused():
    with pytest.raises(UserError, match="name no end"):
        TrainerSettings(max_epochs=-1)
    assert TrainerSettings(max_epochs=-1, max_steps=5).arguments()["max_steps"] == 5


def test_lists_of_evaluations_hold_each_value_once():
    """Each is measured, under a name of its own."""
    lists = {}
    for file in sorted((CONF / "evaluation").glob("*.yaml")):
        for _, target in targets(OmegaConf.to_container(OmegaConf.load(file))):
            kind = locate(target)
            if issubclass(kind, Evaluator):
                lists |= {f"{kind.__name__}.{name}": hint for name, hint in hints_of(kind).items() if is_list(hint)}
    assert {"Universality.steps", "Corruptions.kinds", "EvaluationSuite.few_shots"} <= set(lists)
    assert [name for name, hint in lists.items() if DISTINCT not in get_args(hint)] == []


def is_list(hint: Any) -> bool:
    return get_origin(get_args(hint)[0] if get_origin(hint) is Annotated else hint) is Sequence


# All of them


def bounded(hint: Any) -> bool:
    """Whether no part of a hint is a number without a range."""
    if get_origin(hint) is Annotated:
        bare, *marks = get_args(hint)
        return any(hasattr(mark, name) for mark in marks for name in ("gt", "ge", "lt", "le")) or bounded(bare)
    if get_origin(hint) is Literal:
        return True
    if hint in (int, float):
        return False
    return all(bounded(part) for part in get_args(hint) if part is not Ellipsis)


def components() -> Iterator[tuple[str, Any]]:
    """Everything of the package that an option of a group names."""
    seen = set()
    for file in sorted(CONF.glob("*/*.yaml")):
        group, option = file.parent.name, file.stem
        if group in ("hydra", "experiment"):
            continue
        overrides = NEEDED.get(f"{group}={option}", [])
        try:
            config = resolved(*([f"{group}={option}"] if group not in PLACES else []), *overrides)
        except Exception:
            continue
        for target in _targets(config):
            if target.startswith("ssl_lightning.") and target not in seen:
                seen.add(target)
                yield target, locate(target)


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node["_target_"]
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


INTERVALS = ("crop_scale", "crop_ratio", "blur_sigma")
"""Pairs, which are checked together."""


def test_every_number_has_a_range():
    found = {
        f"{target}.{name}": hint
        for target, made in components()
        for name, hint in hints_of(made).items()
        if name not in ("return", "num_features", *INTERVALS) and not bounded(hint)
    }
    assert found == {}


def test_a_number_without_a_range_is_found():
    assert bounded(Annotated[float, Gt(0)] | None)
    assert bounded(Literal[1, 2])
    assert not bounded(Annotated[list[float], "mark"])
    assert not bounded(int | str)
