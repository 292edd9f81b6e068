"""What may change an encoder is part of a run's identity, and nothing else; one walker over signatures finds it."""

import dataclasses
import inspect
import typing
from copy import deepcopy
from functools import cache
from typing import Annotated, Any

import lightning as L
import numpy as np
import pytest
from omegaconf import OmegaConf

from ssl_lightning.config.check import own
from ssl_lightning.config.components import targets
from ssl_lightning.config.identity import changes_training, described, locate, marked, run_digest, sources, without
from ssl_lightning.config.markers import (
    IRRELEVANT,
    MARKERS,
    After,
    Content,
    Place,
    Seed,
    Speed,
    Unset,
    hints_of,
    marker_of,
)
from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import Cut, TrainConfig
from ssl_lightning.pipeline.parts import Parts, identity_of, parts_of, subset_of
from tests.composing import composed, resolved
from tests.config.configs import NEEDED, OF_EVALUATE, forget, proxy_of
from tests.data.synthetic import write_image_folder

__all__ = ["forget"]


def digest(*overrides: str) -> str:
    """Of the config, and of the runs that a ranking is made with."""
    config = resolved(*overrides)
    _, proxies = subset_of(config, lambda config: pytest.fail("nothing is to be trained"))
    return run_digest(config, TrainConfig, {"proxies": [proxy.digest for proxy in proxies]})


@cache
def cell(*overrides: str) -> str:
    """Equal for runs of one cell of a report."""
    config = resolved(*overrides)
    left_out = (*IRRELEVANT, Seed)
    return repr(without(config, [key for key, marker in marked(config, TrainConfig) if marker in left_out]))


def parts(*overrides: str) -> Parts:
    return parts_of(resolved(*overrides), lambda config: pytest.fail("nothing is to be trained"), alone=True)


# Runs


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    "overrides",
    [
        ("sweep=other",),
        ("debug=true",),
        ("paths.runs=a", "paths.data=b", "paths.cache=c"),
        ("logger=wandb",),
        ("checkpoint.every_steps=1", "checkpoint.every_minutes=1.0"),
        ("evaluation.k=3", "evaluation.untrained=true"),
        ("evaluation=none",),
        ("evaluation.dataset=fashion_mnist",),
        ("callbacks=none",),
        ("+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor",),
        ("trainer.log_every_n_steps=3",),
        ("trainer.enable_progress_bar=false",),
        ("trainer.profiler=simple",),
        (
            "++trainer.profiler._target_=lightning.pytorch.profilers.PyTorchProfiler",
            "++trainer.profiler.profile_memory=true",
        ),
        ("trainer.benchmark=true",),
        ("trainer.detect_anomaly=true",),
        ("trainer.devices=2",),  # counts as the number of processes: see below
        ("trainer.accelerator=cpu",),  # likewise
        ("dataset=cifar10", "dataset.root=elsewhere", "dataset.download=true"),
        ("dataset=fashion_mnist", "dataset.root=elsewhere"),
        ("dataset=stl10", "dataset.root=elsewhere", "dataset.cache=elsewhere"),
        (
            *("dataset=imagenet", "dataset.root=elsewhere", "dataset.cache=elsewhere", "dataset.workers=3"),
            *("dataset.storage=streamed", "dataset.resident_gib=1.0"),  # the digest of the data says which it is
        ),
        (  # so does it of these
            *("dataset=imagenet", "dataset.split=0.2", "dataset.split_seed=1", "dataset.labels=list.csv"),
            "dataset.white=4095",
        ),
        ("subset=grand", "subset.chunk=16"),
        ("subset=sas", "subset.cache=elsewhere", "subset.accelerator=cpu", "subset.memory_gib=1"),
        ("subset=sas", "subset.quota=proportional", "subset.redundancy=none"),
        ("subset=sas", "+subset.proxy.evaluation.k=3", "+subset.proxy.trainer.enable_progress_bar=false"),
    ],
    ids=lambda overrides: overrides[-1],
)
def test_what_cannot_change_the_encoder_is_no_part_of_the_digest(overrides):
    options = [item for item in overrides if item.startswith(("dataset=", "subset="))]
    assert digest(*overrides) == digest(*options)
    assert overrides[0].startswith("evaluation") or cell(*overrides) == cell(*options)


SELECTING = (
    "subset.rule=row_sum",
    "subset.looks=3",
    "subset.layer=embedding",
    "subset.threshold=0.1",
    "subset.tie_break=random",
    "subset.max_fraction=0.5",
    "subset.latent=kmeans",
    "subset.latent=few_labels",
    "subset.latent=one",
    "subset.latent=hierarchical_kmeans",
    "subset.quota=balanced",
    "subset.quota=density",
    "subset.quota=strata",
    "+subset.quota={_target_: ssl_lightning.subsets.strata.Strata, cut: 0.2}",
    "subset.redundancy=semdedup",
    "subset.seed=1",
    "subset.proxy=supervised",
    "subset.proxy.seed=1",
    "subset.proxy.trainer.max_epochs=3",
    "subset.proxy.batch_size=64",
    "subset.proxy.trainer.precision=bf16-mixed",
    "+subset.proxy.channels_last=false",
    "subset.proxy.optimizer.lr=0.1",
    "subset.proxy.method.temperature=0.3",
    "+subset.proxy.callbacks.mine._target_=ssl_lightning.subsets.forgetting.ForgettingEvents",
)


@pytest.mark.nightly
def test_what_may_change_a_ranking_changes_the_digest():
    digests = [digest("subset=sas", *change) for change in [(), *((override,) for override in SELECTING)]]
    assert len(set(digests)) == 1 + len(SELECTING)


RELEVANT = (
    "seed=1",
    "batch_size=128",
    "budget=steps",
    "compile=default",
    "channels_last=false",
    "float32_matmul=high",
    "method=directclr",
    "method=gessl",
    "method.temperature=0.3",
    "method.loss=info_nce",
    "method.projector=linear",
    "method.projector.hidden=64",
    "backbone.width=8",
    "backbone=resnet18",
    "dataset=fashion_mnist",
    "dataset.validation_fraction=0.2",
    "dataset.nuisance=long_tail",
    "dataset.nuisance=duplicates",
    "nuisance@dataset.nuisance=noise",
    "subset.fraction=0.5",
    "subset.seed=1",
    "subset.budget=floor",
    "subset=random_balanced",
    "augment.views.0.flip_probability=0.3",
    "augment=simclr_cifar",
    "resolution=progressive",
    "selection=infobatch",
    "selection=scan",
    "selection=coarse_to_fine",
    "optimizer.lr=0.1",
    "optimizer.algorithm.betas=[0.5,0.999]",
    "optimizer=lars",
    "optimizer=muon",
    "schedule=one_cycle",
    "trainer.max_epochs=7",
    "trainer.max_steps=7",
    "trainer.precision=bf16-mixed",
    "trainer.gradient_clip_val=1.0",
    "+trainer.sync_batchnorm=true",
    "trainer.limit_train_batches=2",
    "trainer.gradient_clip_algorithm=value",
    "trainer.deterministic=true",
    "+callbacks.mean._target_=lightning.pytorch.callbacks.WeightAveraging",
    "+callbacks.stop={_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: loss}",
    "+callbacks.mine={_target_: tests.parts.Poison, step: 3}",
)


def _override(override: str) -> str:
    return f"++{override}" if "flip_probability" in override else override


@pytest.mark.one_in(2)
@pytest.mark.parametrize("override", RELEVANT)
def test_what_may_change_the_encoder_changes_the_digest(override):
    assert digest(_override(override)) != digest()


@pytest.mark.parametrize("given", [(), ("subset=sas",)], ids=str)
@pytest.mark.parametrize(
    "key", ["limit_train_batches", "gradient_clip_val", "gradient_clip_algorithm", "deterministic"]
)
def test_null_is_as_if_it_were_not_there(key, given):
    """A run whose config lacks it keeps its name; so does one that its ranking is made with."""
    config = resolved(*given)
    assert config["trainer"][key] is None
    lacking = without(config, [f"trainer.{key}"])
    assert run_digest(lacking, TrainConfig, {}) == run_digest(config, TrainConfig, {})
    if given:
        assert proxy_of(lacking).digest == proxy_of(config).digest
    compared = [without(one, identity_of(one).ignored) for one in (lacking, config)]  # by reports
    assert compared[0] == compared[1]


@pytest.mark.parametrize("subset", ["random", "random_balanced", "sas", "prototypes", "el2n", "forgetting"])
def test_a_rule_without_quota_redundancy_and_groups_of_its_own_is_what_it_was_before_there_were_these(subset):
    config = resolved(f"subset={subset}")
    names = [key for key in ("quota", "redundancy", "latent") if config["subset"].get(key, 0) is None]
    assert "quota" in names
    lacking = without(config, [f"subset.{name}" for name in names])
    assert run_digest(lacking, TrainConfig, {}) == run_digest(config, TrainConfig, {})
    compared = [without(one, identity_of(one).ignored) for one in (lacking, config)]  # by reports
    assert compared[0] == compared[1]
    rules = [
        subset_of(one, lambda config: pytest.fail("nothing is to be trained"))[0].rank for one in (lacking, config)
    ]
    assert rules[0].parameters() == rules[1].parameters()
    assert not {"quota", "redundancy"} & set(rules[0].parameters())


def test_a_dataset_without_a_nuisance_is_what_it_was_before_there_were_these():
    config = resolved("subset=sas")
    assert config["dataset"]["nuisance"] is None
    lacking = without(config, ["dataset.nuisance"])
    assert run_digest(lacking, TrainConfig, {}) == run_digest(config, TrainConfig, {})
    assert proxy_of(lacking).digest == proxy_of(config).digest
    compared = [without(one, identity_of(one).ignored) for one in (lacking, config)]  # by reports
    assert compared[0] == compared[1]
    assert identity_of(lacking).run_name == identity_of(config).run_name


def test_a_nuisance_is_in_the_name_of_a_run_and_tells_cells_apart_but_by_its_seed():
    named = ("trainer=cpu", "nuisance@dataset.nuisance=long_tail")
    identity = parts(*named).identity
    assert identity.run_name.startswith("simclr-digits-long_tail-random-1-s0-")
    assert parts("trainer=cpu", "dataset.nuisance=long_tail").identity.digest == identity.digest
    other = parts(*named, "dataset.nuisance.seed=1").identity
    assert other.digest != identity.digest
    assert "dataset.nuisance.seed" in identity.seeds
    assert cell(*named, "dataset.nuisance.seed=1") == cell(*named)
    assert cell(*named, "dataset.nuisance.ratio=10") != cell(*named) != cell("trainer=cpu")


def test_a_nuisance_is_that_of_its_proxies_and_rankings_and_no_part_of_the_protocol():
    given = ("trainer=cpu", "subset=sas")
    clean, touched = parts(*given), parts(*given, "dataset.nuisance=duplicates")
    assert clean.proxies[0].digest != touched.proxies[0].digest
    files = [one.subset.rank.ranking_file(one.dataset, ["same"]) for one in (clean, touched)]
    assert files[0] != files[1]
    assert clean.protocol == touched.protocol


@pytest.mark.nightly
def test_relevant_keys_do_not_hide_one_another():
    assert len({digest(_override(override)) for override in RELEVANT}) == len(RELEVANT)


def test_the_digest_knows_what_the_config_does_not_say():
    config = resolved()
    digests = {run_digest(config, TrainConfig, {name: value}) for name in ("data", "processes") for value in "ab"}
    assert len(digests) == 4


def test_the_digest_is_eight_hexadecimal_digits_and_leaves_the_config_alone():
    config = resolve(composed())
    before = OmegaConf.to_yaml(OmegaConf.create(config))
    name = run_digest(config, TrainConfig, {})
    assert len(name) == 8
    assert int(name, 16) >= 0
    assert OmegaConf.to_yaml(OmegaConf.create(config)) == before


def test_a_cell_ignores_the_seeds_alone():
    assert cell("seed=5") == cell("subset.seed=5") == cell()
    for override in RELEVANT:
        if override not in ("seed=1", "subset.seed=1"):
            assert cell(_override(override)) != cell(), override


def test_a_cell_of_rankings_ignores_the_seeds_of_ranking_and_proxies():
    for override in SELECTING:
        assert (cell("subset=sas", override) == cell("subset=sas")) == ("seed=1" in override), override


# Devices, files and other runs: what they are, and not how they are named


def test_the_same_device_by_another_name_is_the_same_run():
    cpu = parts("trainer=cpu").identity.digest
    assert parts("trainer=cpu", "trainer.devices=auto").identity.digest == cpu
    if not L.pytorch.accelerators.CUDAAccelerator.is_available():
        assert parts("trainer=auto").identity.digest == cpu
    assert parts("trainer=ddp_cpu").identity.digest != cpu  # two processes


def test_a_file_counts_by_its_content(tmp_path):
    np.save(tmp_path / "a.npy", np.ones((4, 2)))
    (tmp_path / "b.npy").write_bytes((tmp_path / "a.npy").read_bytes())
    np.save(tmp_path / "c.npy", np.zeros((4, 2)))
    latent = ("trainer=cpu", "subset=sas", "latent@subset.latent=kmeans")
    a, b, c = (parts(*latent, f"subset.latent.file={tmp_path}/{name}.npy").identity.digest for name in "abc")
    assert a == b != c
    for name, positions in (("a", [3, 1]), ("b", [3, 1]), ("c", [1, 3])):
        np.save(tmp_path / f"{name}.npy", positions)
    listed = ("trainer=cpu", "subset=file")
    a, b, c = (parts(*listed, f"subset.path={tmp_path}/{name}.npy").identity.digest for name in "abc")
    assert a == b != c


def test_test_images_are_no_part_of_a_run_but_of_its_protocol(tmp_path):
    write_image_folder(tmp_path / "data")
    given = ("trainer=cpu", "dataset=image_folder", f"dataset.root={tmp_path}/data", f"paths.cache={tmp_path}/cache")
    before = parts(*given)
    for split in ("test", "train"):
        file, other = sorted((tmp_path / "data" / split / "class_001").iterdir())[:2]
        file.write_bytes(other.read_bytes())
        after = parts(*given)
        assert (after.identity.digest == before.identity.digest) == (split == "test")
        assert (after.identity.contents == before.identity.contents) == (split == "test")
        assert after.protocol != before.protocol
        before = after


def test_ones_own_code_counts(tmp_path, monkeypatch):
    """Of a method, a rule, and a suite; of the classes that they derive from, too."""
    (tmp_path / "base_of_mine.py").write_text(
        "from ssl_lightning.methods.simclr import SimCLR\n\nclass Base(SimCLR): pass"
    )
    (tmp_path / "of_mine.py").write_text(
        "import base_of_mine\n"
        "from dataclasses import dataclass\n"
        "from ssl_lightning.evaluation.suite import RanksOnly\n"
        "from ssl_lightning.subsets.random import Random\n"
        "class Method(base_of_mine.Base): pass\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class Rule(Random):\n    name = 'mine'\n    expensive = True\n"
        "class Suite(RanksOnly): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    given = (
        *("trainer=cpu", "method._target_=of_mine.Method", "subset._target_=of_mine.Rule"),
        *("evaluation=none", "evaluation._target_=of_mine.Suite", f"+subset.cache={tmp_path}"),
    )

    def found():
        made = parts(*given)
        code = made.identity.contents["code"]
        return made.identity.digest, code, made.subset.rank.ranking_file(made.dataset), made.protocol.digest

    before = found()
    assert found() == before
    for name, changes in (("of_mine", 4), ("base_of_mine", 2)):
        with open(tmp_path / f"{name}.py", "a") as file:
            file.write("\n# another line\n")
        after = found()
        assert sum(one != other for one, other in zip(before, after, strict=True)) == changes
        before = after


def test_the_identity_says_what_it_leaves_out():
    identity = parts("trainer=cpu", "subset=sas").identity
    config = resolved("trainer=cpu", "subset=sas")
    assert {"sweep", "paths", "evaluation", "trainer.accelerator", "subset.memory_gib"} <= set(identity.ignored)
    assert set(identity.seeds) == {"seed", "subset.seed", "subset.proxy.seed"}
    for key in (*identity.ignored, *identity.seeds):
        assert without(config, [key]) != config, key


# Callbacks


class Watching(L.Callback):
    """Says that it only looks."""

    changes_training = False


class Silent(L.Callback):
    """Says nothing."""


class Derived(L.pytorch.callbacks.LearningRateMonitor):
    """Of the user's own, though of a harmless kind."""


@pytest.mark.parametrize(
    ("callback", "changes"),
    [
        (Watching, False),
        (Silent, True),
        (Derived, True),
        (L.pytorch.callbacks.LearningRateMonitor, False),
        (L.pytorch.callbacks.DeviceStatsMonitor, False),
        (L.pytorch.callbacks.WeightAveraging, True),
        (L.pytorch.callbacks.EMAWeightAveraging, True),
        (L.pytorch.callbacks.StochasticWeightAveraging, True),
        (L.pytorch.callbacks.EarlyStopping, True),
    ],
)
def test_a_callback_counts_unless_it_cannot_change_training(callback, changes):
    assert changes_training(callback) is changes
    needed = {"StochasticWeightAveraging": ", swa_lrs: 0.1", "EarlyStopping": ", monitor: loss"}
    target = f"{callback.__module__}.{callback.__qualname__}{needed.get(callback.__name__, '')}"
    added = digest(f"+callbacks.mine={{_target_: {target}}}")
    assert (added != digest()) is changes


# Components from elsewhere


def test_a_component_from_elsewhere_counts_with_its_source(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "a_package_of_mine.py"
    text = "import lightning as L\n\nclass Mine(L.Callback):\n    pass\n"
    override = "+callbacks.mine._target_=a_package_of_mine.Mine"
    file.write_text(text)
    first = digest(override)
    assert set(sources(resolved(override))) == {"a_package_of_mine.Mine"}
    file.write_text(text + "\n# another\n")
    assert digest(override) != first
    file.write_text(text)
    assert digest(override) == first
    assert sources(resolved()) == {}


# One walker, whatever it walks over


def options() -> list[tuple[str, ...]]:
    """Overrides that bring each component of conf/ into a config."""
    found: list[tuple[str, ...]] = []
    for group in (
        "dataset",
        "subset",
        "method",
        "backbone",
        "optimizer",
        "schedule",
        "augment",
        "resolution",
        "selection",
        "trainer",
        "evaluation",
    ):
        for file in sorted((CONF / group).glob("*.yaml")):
            option = f"{group}={file.stem}"
            if option not in OF_EVALUATE:
                found.append((option, *NEEDED.get(option, ())))
    found += [("subset=sas", f"subset.latent={kind}") for kind in ("labels", "kmeans", "few_labels")]
    found += [("subset=sas", f"subset.latent={kind}") for kind in ("one", "hierarchical_kmeans")]
    found.append(("subset=sas", "latent@subset.latent=embeddings", "subset.latent.file=vectors.npy"))
    found += [("subset=sas", f"subset.quota={kind}") for kind in ("proportional", "balanced", "density", "strata")]
    found += [("subset=sas", f"subset.redundancy={kind}") for kind in ("none", "semdedup")]
    found += [(f"method.projector={file.stem}",) for file in sorted((CONF / "projector").glob("*.yaml"))]
    return found


def components(value: Any, path: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, by its path."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [(path, value)] if isinstance(value, dict) and "_target_" in value else []
    for key, item in items:
        found += components(item, f"{path}.{key}" if path else str(key))
    return found


@pytest.mark.one_in(8)
@pytest.mark.parametrize("overrides", options(), ids=" ".join)
def test_every_marker_of_every_component_is_honoured(overrides):
    config = resolved(*overrides)
    found = dict(marked(config, TrainConfig))
    for path, component in components(config):
        for key, hint in hints_of(locate(component["_target_"])).items():
            at = f"{path}.{key}"
            within = any(at == marked_key or at.startswith(f"{marked_key}.") for marked_key in found)
            if (marker := marker_of(hint)) is Unset:
                assert within == (component.get(key, 0) is None), at
            elif marker and key in component:
                assert within, at
                null = marker is Content and component[key] is None  # nothing to read
                assert at not in found or found[at] is (Place if null else marker)
            elif not marker:
                assert at not in found


@pytest.mark.one_in(4)
@pytest.mark.parametrize("overrides", options(), ids=" ".join)
def test_no_marker_hides_where_it_is_not_seen(overrides):
    """Inside of a union, an annotation's metadata is not that of the parameter."""

    def hidden(hint: Any) -> bool:
        inner = typing.get_args(hint)
        inner = inner[:1] if typing.get_origin(hint) is Annotated else inner
        return any(marker_of(part) is not None or hidden(part) for part in inner)

    for path, component in components(resolved(*overrides)):
        for key, hint in hints_of(locate(component["_target_"])).items():
            assert not hidden(hint), f"{path}.{key}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    """A part of a component."""

    strength: float = 1.0
    chunk: Annotated[int, Speed] = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    """A component with every kind of parameter."""

    counting: int = 1
    fast: Annotated[int, Speed] = 1
    place: Annotated[str, Place] = ""
    after: Annotated[int, After] = 1
    seed: Annotated[int, Seed] = 0
    file: Annotated[str, Content] = ""
    null: Annotated[int | None, Unset] = None
    given: Annotated[int | None, Unset] = 3
    inner: Inner = dataclasses.field(default_factory=Inner)


def test_settings_and_the_objects_made_of_them_are_walked_alike():
    """`marked` walks settings, for runs and cells; `described` walks objects, for rankings and features."""
    target = f"{__name__}.Inner"
    settings = {"counting": 1, "fast": 1, "place": "", "after": 1, "seed": 0, "file": "", "null": None, "given": 3}
    settings["inner"] = {"_target_": target, "strength": 1.0, "chunk": 1}
    expected = {"fast": Speed, "place": Place, "after": After, "seed": Seed, "file": Content, "inner.chunk": Speed}
    assert dict(marked(settings, Outer)) == expected | {"null": Place}
    assert {*expected.values(), Unset} == set(MARKERS)
    outer, inner = described(Outer()), described(Inner())
    assert len(outer.pop("code")) == len(inner.pop("code")) == 16  # of this file, which is not the product's
    outer["inner"].pop("code")
    assert inner == outer["inner"]
    assert outer == {"name": "Outer", "counting": 1, "seed": 0, "given": 3, "inner": {"name": "Inner", "strength": 1.0}}


@pytest.mark.parametrize("subset", sorted(file.stem for file in (CONF / "subset").glob("*.yaml")))
def test_a_ranking_depends_on_what_a_run_with_it_does(subset):
    """But for the cut, which is the run's alone."""
    config = resolved(f"subset={subset}", *NEEDED.get(f"subset={subset}", ()))
    rule = subset_of(config, lambda config: pytest.fail("nothing is to be trained"))[0].rank
    marks = dict(marked(config["subset"], type(rule)))
    counting = {key for key in own(config["subset"], Cut) if not key.startswith("_") and marks.get(key) in (None, Seed)}
    assert counting <= set(rule.parameters()) | ({"seed"} if subset == "file" else set())
    for key in rule.parameters():
        assert marker_of(hints_of(type(rule)).get(key)) in (None, Seed, Unset)


@pytest.mark.parametrize("subset", sorted(file.stem for file in (CONF / "subset").glob("*.yaml")))
def test_a_run_names_the_subset_as_the_user_does(subset):
    config = resolved(f"subset={subset}", *NEEDED.get(f"subset={subset}", ()))
    unnamed = without(config, ["subset.name"])
    assert identity_of(config).subset == subset
    assert identity_of(config).digest == identity_of(unnamed).digest
    assert identity_of(unnamed).subset == locate(config["subset"]["_target_"]).name


# Proxies


DIFFERENT = {
    "seed": 7,
    "batch_size": 32,
    "compile": "default",
    "float32_matmul": "high",
    "channels_last": False,
    "backbone": {"width": 4},
    "dataset": {"validation_fraction": 0.2},
    "resolution": {"_target_": "ssl_lightning.data.resolution.Resolution", "start": 0.25},
    "selection": {"_target_": "ssl_lightning.selection.scan.Scan", "cycle": 2},
    "init": "runs/other",
    "augment": {"views": [{"_target_": "ssl_lightning.data.views.View", "copies": 2}]},
    "optimizer": {"lr": 0.5},
    "method": {"temperature": 0.9},
    "trainer": {"max_epochs": 3},
    "callbacks": {},
    "checkpoint": {"every_minutes": 1.0, "every_steps": 3},
    "paths": {"runs": "a", "data": "b", "cache": "c"},
    "evaluation": {"untrained": True},
    "objective": "knn/val_top1",
}
NOT_OF_A_PROXY = {
    **{"sweep": "proxies", "budget": "epochs", "logger": {}},
    **dict.fromkeys(("debug", "force", "extend"), False),
}
"""What every proxy has alike; its subset is all images."""


@pytest.mark.one_in(3)
@pytest.mark.parametrize("key", TrainConfig.__dataclass_fields__)
def test_every_key_of_a_run_may_differ_in_its_proxy(key):
    """A key that is added to a run needs nothing else to be one of proxies."""
    config = deepcopy(resolved("subset=sas"))
    given = config["subset"]["proxy"]
    if key in NOT_OF_A_PROXY or key == "subset":
        given[key] = config[key]
        assert proxy_of(config).config[key] == NOT_OF_A_PROXY.get(key, proxy_of(config).config["subset"])
        return
    value = DIFFERENT[key]
    given[key] = {**(given.get(key) or config.get(key) or {}), **value} if isinstance(value, dict) else value
    if key == "callbacks":
        given[key] = {"rate": {"_target_": "lightning.pytorch.callbacks.LearningRateMonitor"}}
    resolve(OmegaConf.create(config))  # it is a known key
    made = proxy_of(config).config
    assert (
        {name: made[key][name] for name in given[key]} == given[key] if isinstance(value, dict) else made[key] == value
    )


def test_a_proxy_sees_whole_images_unless_it_says_otherwise():
    """So that one ranking serves runs of any resolution."""
    plain, growing = (proxy_of(resolved("subset=sas", f"resolution={name}")) for name in ("full", "progressive"))
    assert growing.digest == plain.digest
    asked = resolve(composed("subset=sas", "+resolution@subset.proxy.resolution=progressive"))
    assert proxy_of(asked).config["resolution"]["start"] == 0.5
    assert proxy_of(asked).digest != plain.digest


@pytest.mark.parametrize("selection", ["infobatch", "scan", "coarse_to_fine"])
def test_a_proxy_sees_all_images_unless_it_says_otherwise(selection):
    plain, chosen = (proxy_of(resolved("subset=sas", f"selection={name}")) for name in ("none", selection))
    assert chosen.digest == plain.digest
    assert chosen.config.get("selection") is None


def test_without_selection_a_run_is_what_it_was_before_there_was_one():
    assert "selection" not in resolved()
    assert digest("selection=none") == digest()


def test_the_epochs_of_a_proxy_are_set_on_the_command_line():
    config = resolved("subset=sas", "trainer.max_epochs=9", "subset.proxy.trainer.max_epochs=1")
    assert proxy_of(config).config["trainer"]["max_epochs"] == 1
    assert proxy_of(resolved("subset=sas", "trainer.max_epochs=9")).config["trainer"]["max_epochs"] == 9


def test_the_proxies_of_a_ranking_differ_in_their_seeds():
    config = resolved("subset=el2n")
    _, proxies = subset_of(config, lambda config: pytest.fail("nothing is to be trained"))
    assert [proxy.config["seed"] for proxy in proxies] == [0, 1, 2]
    assert len({proxy.digest for proxy in proxies}) == 3
    first, second = (proxy.config for proxy in proxies[:2])
    assert {key for key in first if first[key] != second[key]} == {"seed"}


def test_signatures_can_be_read():
    """Else their markers would be silently ignored."""
    for file in sorted(CONF.rglob("*.yaml")):
        for path, named in targets(OmegaConf.to_container(OmegaConf.load(file))):
            if not str(named).startswith("ssl_lightning."):
                continue
            target = locate(named)
            if len(inspect.signature(target).parameters):
                where = f"{file.relative_to(CONF)}, {path}: {target} {inspect.getsourcefile(target) or ''}"
                assert hints_of(target), where
