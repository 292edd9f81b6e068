"""Every file of conf/ and sweeps/ is right; whatever is wrong is named; what may change an encoder has its identity."""

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from ssl_lightning.subsets.proxy import Proxy

from ssl_lightning.config.check import check_late
from ssl_lightning.config.components import make
from ssl_lightning.config.identity import IRRELEVANT, SEEDS, component_name, identity
from ssl_lightning.config.messages import explain
from ssl_lightning.config.places import CONF, SWEEPS
from ssl_lightning.config.resolve import resolve
from ssl_lightning.config.schema import EvaluateConfig, SelectConfig, TrainConfig
from ssl_lightning.errors import UserError
from tests.composing import composed
from tests.conftest import Outcome

Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """What one test has composed is not where another's keys were written."""
    yield
    HydraConfig.instance().cfg = None


def refused(*overrides: str, **options: Any) -> str:
    """The message for wrong overrides, whether Hydra or the schema refuses them."""
    with pytest.raises((UserError, HydraException, OmegaConfBaseException)) as caught:
        resolve(composed(*overrides, **options))
    message = (
        str(caught.value)
        if isinstance(caught.value, UserError)
        else explain(caught.value, TrainConfig.__dataclass_fields__)
    )
    assert message is not None
    return message


# Every file is right


def _options() -> list[str]:
    """`group=option` of every file in conf/ that a run can consist of."""
    files = sorted(file.relative_to(CONF).with_suffix("") for file in CONF.rglob("*.yaml"))
    return [f"{file.parent}={file.name}" for file in files if file.parts[0] not in (file.name, "encoder", "hydra")]


PLACES = {"projector": "method.projector", "latent": "subset.latent", "proxy": "subset.proxy"}
"""Where the groups go that are no keys of the whole config."""

NEEDED = {
    "subset=file": ["subset.path=list.npy"],
    "dataset=image_folder": ["dataset.root=images"],
    "latent=embeddings": ["subset.latent.file=vectors.npy"],
}


def node(config: dict[str, Any], key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def check_proxy(config: dict[str, Any]) -> None:
    """What `resolve` leaves until the proxy is needed."""
    settings = {key: value for key, value in config["subset"]["proxy"].items() if not key.startswith("_")}
    check_late(settings, Proxy, "subset.proxy")


@pytest.mark.parametrize("option", _options())
def test_every_option_is_valid(option):
    group, _, name = option.partition("=")
    place = PLACES.get(group, group)
    choice = option if place == group else f"{group}@{place}={name}"
    subset = ["subset=sas"] if place.startswith("subset.") else []
    config = resolve(composed(*subset, choice, *NEEDED.get(option, [])))
    written = OmegaConf.load(CONF / f"{option.replace('=', '/')}.yaml")
    if "_target_" in written and group != "experiment":
        assert node(config, place)["_target_"] == written["_target_"]
    if "proxy" in config["subset"]:
        check_proxy(config)


@pytest.mark.parametrize("encoder", sorted(file.stem for file in (CONF / "encoder").glob("*.yaml")))
@pytest.mark.parametrize("evaluation", sorted(file.stem for file in (CONF / "evaluation").glob("*.yaml")))
def test_every_evaluation_of_every_encoder_is_valid(encoder, evaluation):
    choices = (f"encoder={encoder}", f"evaluation={evaluation}", "dataset=cifar10", "trainer=ddp_cpu")
    config = resolve(composed(*choices, name="evaluate"), EvaluateConfig)
    assert config["encoder"]["_target_"] == OmegaConf.load(CONF / "encoder" / f"{encoder}.yaml")["_target_"]


def _sweep_jobs() -> list[Any]:
    """A list of overrides for every job of every grid."""
    jobs = []
    for file in sorted(SWEEPS.glob("*.yaml")):
        params = OmegaConf.load(file).hydra.sweeper.params
        values = [[f"{key}={value}" for value in str(choices).split(",")] for key, choices in params.items()]
        jobs += [pytest.param(file.stem, job, id=f"{file.stem}-{','.join(job)}") for job in itertools.product(*values)]
    return jobs


def _rows(jobs: list[Any]) -> list[Any]:
    """Of a grid, as many jobs as are needed for each value to occur."""
    seen: set[tuple[str, str]] = set()
    rows = []
    for job in jobs:
        name, overrides = job.values
        new = {(name, override) for override in overrides} - seen
        if new:
            seen |= new
            rows.append(job)
    return rows


@pytest.mark.parametrize(("grid", "job"), _rows(_sweep_jobs()))
def test_every_value_of_every_grid_is_valid(grid, job):
    config = resolve(composed(*job, name=grid, folder=SWEEPS))
    chosen = HydraConfig.get().runtime.choices
    assert config["sweep"].startswith(grid)
    for override in job:
        key, _, value = override.partition("=")
        assert value == (chosen[key] if key in chosen else str(node(config, key)))
        if key in chosen:
            assert node(config, key)["_target_"] == node(_resolved(override), key)["_target_"]
    if "proxy" in config["subset"]:
        check_proxy(config)


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_grid_is_a_multirun(file):
    hydra = OmegaConf.load(file).hydra
    assert hydra.mode == "MULTIRUN"
    OverridesParser.create().parse_overrides([f"{key}={value}" for key, value in hydra.sweeper.params.items()])


# Wrong keys


@pytest.mark.parametrize(
    ("override", "key", "suggestion"),
    [
        ("methd=simclr", "methd", "'method'"),
        ("+methd=simclr", "methd", "'method'"),
        ("foo.bar=1", "foo.bar", "known here: augment, backbone"),
        ("+foo.bar=1", "foo", "known here: augment, backbone"),
        ("optimizer.lrr=1", "optimizer.lrr", "'optimizer.lr'"),
        ("+optimizer.lrr=1", "optimizer.lrr", "'optimizer.lr'"),
        ("++optimizer.lrr=1", "optimizer.lrr", "'optimizer.lr'"),
        ("+optimizer.algorithm.momentun=0.5", "optimizer.algorithm.momentun", "known here: "),
        ("+method.projector.hiden=1", "method.projector.hiden", "'method.projector.hidden'"),
        ("+trainer.max_epoch=1", "trainer.max_epoch", "'trainer.max_epochs'"),
        ("+subset.fractoin=0.5", "subset.fractoin", "'subset.fraction'"),
        ("+augment.views.0.crop=1", "augment.views.0.crop", "'augment.views.0."),
        ("augment.views.0.copeis=1", "augment.views.0.copeis", "'augment.views.0.copies'"),
        ("+paths.run=here", "paths.run", "'paths.runs'"),
        ("+checkpoint.every_step=1", "checkpoint.every_step", "'checkpoint.every_steps'"),
        ("+callbacks.online_probe.lrr=1", "callbacks.online_probe.lrr", "'callbacks.online_probe.lr'"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(override, key, suggestion):
    message = refused(override)
    assert message.startswith(f"unknown key '{key}' (command line")
    assert override.lstrip("+").partition("=")[0] in message
    assert suggestion in message


def test_an_accepted_key_that_no_file_mentions_is_told_to_take_a_plus():
    assert "write +trainer.limit_train_batches=" in refused("trainer.limit_train_batches=2")
    assert resolve(composed("+trainer.limit_train_batches=2"))["trainer"]["limit_train_batches"] == 2


# Wrong options


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("method=simclrr", "did you mean 'simclr'?"),
        ("dataset=cifar1", "did you mean 'cifar10'?"),
        ("optimizer=zzz", "known here: adam, adamw, lars, sgd."),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(override, suggestion):
    assert refused(override) == f"{override}: there is no such option; {suggestion}"


def test_an_unknown_option_inside_a_component():
    assert "directclrr" in (message := refused("method=gessl", "method.base=directclrr"))
    assert "did you mean 'directclr'?" in message
    assert "did you mean 'linear'?" in refused("method.projector=liner")


# Wrong values


@pytest.mark.parametrize(
    ("override", "key", "expected"),
    [
        ("seed=abc", "seed", "valid integer"),
        ("seed=1.5", "seed", "integer"),
        ("seed=[1]", "seed", "valid integer"),
        ("seed=-1", "seed", "greater than or equal to 0"),
        ("seed=null", "seed", "valid integer"),
        ("seed=true", "seed", "valid integer"),
        ("seed={a:1}", "seed", "valid integer"),
        ("batch_size=0.5", "batch_size", "integer"),
        ("batch_size=0", "batch_size", "greater than 0"),
        ("batch_size=", "batch_size", "valid integer"),
        ("checkpoint.every_steps=0", "checkpoint.every_steps", "greater than 0"),
        ("budget=hours", "budget", "'epochs' or 'steps'"),
        ("optimizer.lr=fast", "optimizer.lr", "valid number"),
        ("optimizer.lr=[1,2]", "optimizer.lr", "valid number"),
        ("optimizer.schedule=linear", "optimizer.schedule", "'cosine' or 'constant'"),
        ("subset.budget=roughly", "subset.budget", "'exact' or 'floor'"),
        ("method.projector.layers=two", "method.projector.layers", "valid integer"),
        ("method.loss=cosine", "method.loss", "'nt_xent' or 'info_nce'"),
        ("augment.views.0.copies=two", "augment.views.0.copies", "valid integer"),
        ("augment.views.0.crop_scale=0.5", "augment.views.0.crop_scale", "Sequence"),
        ("trainer.max_epochs=many", "trainer.max_epochs", "valid integer"),
        ("method.optimizer={lr:1}", "method.optimizer", "an instance of OptimizerRecipe"),
        ("debug=perhaps", "debug", "valid boolean"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_should_be(override, key, expected):
    message = refused(override)
    assert message.startswith(f"{key} is ")
    assert f"(command line: {override})" in message
    assert expected in message


def test_a_missing_value():
    assert "dataset.root has no value" in (message := refused("dataset=image_folder"))
    assert "dataset.root=" in message
    assert refused("~optimizer.lr").startswith("optimizer.lr has no value")


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("method._target_=torch.nn.Linear", "does not make a ssl_lightning.methods.method.SSLMethod"),
        ("method._target_=os.system", "does not make a ssl_lightning.methods.method.SSLMethod"),
        ("dataset._target_=builtins.eval", "does not make a ssl_lightning.data.dataset.ImageDataset"),
        ("backbone._target_=subprocess.Popen", "does not make a torch.nn"),
        ("+callbacks.mine._target_=torch.nn.Identity", "does not make a lightning.pytorch.callbacks.callback.Callback"),
        ("+logger.mine._target_=torch.nn.Identity", "does not make a lightning.pytorch.loggers.logger.Logger"),
        ("subset._target_=ssl_lightning.nowhere.Rule", "cannot be imported"),
    ],
)
def test_a_target_of_another_kind_is_refused_before_it_is_called(override, reason):
    message = refused(override)
    assert reason in message
    assert f"(command line: {override})" in message
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["method", "backbone", "optimizer", "evaluation"])
@pytest.mark.parametrize("recursive", [True, None])
def test_a_proxy_that_would_be_made_with_all_its_parts_has_them_checked_before(tmp_path, kind, recursive):
    """Nothing of a proxy is made before it is needed where its config says `_recursive_: false`, as `conf/proxy` does:
    so its parts need not be checked until then. Of other configs they are."""
    config = composed("subset=sas")
    config.subset.proxy[kind] = {"_target_": "os.mkdir", "path": str(tmp_path / "evil")}
    make(resolve(config)["subset"], _convert_="object")
    if recursive is None:
        del config.subset.proxy["_recursive_"]
    else:
        config.subset.proxy._recursive_ = recursive
    with pytest.raises(UserError, match=rf"subset\.proxy\..*{kind}\._target_ is 'os\.mkdir'.*does not"):
        resolve(config)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("name", ["ssl-select", "ssl-train"])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("subset.proxy.method._target_=torch.nn.Linear", "does not make a ssl_lightning.methods.method.SSLMethod"),
        ("subset.proxy.optimizer.lr=fast", "subset.proxy.optimizer.lr is 'fast' (command line: subset.proxy.opt"),
        ("+subset.proxy.method.temprature=3", "did you mean 'subset.proxy.method.temperature'?"),
    ],
)
def test_wrong_parts_of_a_proxy_are_one_message_when_it_is_needed(command: Command, tmp_path, name, override, said):
    assert said in _one_message(command(name, "subset=sas", override))
    assert not list(tmp_path.rglob("checkpoints"))
    assert not list(tmp_path.rglob("*.np?"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("subset.latent._target_=os.mkdir", "does not make a ssl_lightning.subsets.latent.LatentClasses"),
        ("subset.proxy._target_=os.mkdir", "does not make a ssl_lightning.subsets.proxy.Proxy"),
        ("subset.proxy.max_epochs=0", "subset.proxy.max_epochs is 0 (command line"),
        ("+subset.proxy.epochs=0", "did you mean 'subset.proxy.max_epochs'?"),
        ("+subset.latent.clusters=3", "unknown key 'subset.latent.clusters'"),
        ("subset.latent=kmean", "latent 'kmean': there is no such option; did you mean 'kmeans'?"),
        ("subset.proxy=supervise", "proxy 'supervise': there is no such option; did you mean 'supervised'?"),
        ("subset.latent=embeddings", "subset.latent.file has no value"),
        ("subset.threshold=1.0", "subset.threshold is 1.0"),
        ("subset.views=0", "subset.views is 0"),
        ("subset.max_fraction=0", "subset.max_fraction is 0"),
        ("subset.rule=greedy", "'graph_cut' or 'row_sum'"),
    ],
)
def test_wrong_settings_of_a_ranking_are_named(override, said):
    assert said in refused("subset=sas", override)


@pytest.mark.parametrize("override", ["+callbacks.mine=3", "+callbacks.mine.lr=3", "~callbacks.online_probe._target_"])
def test_a_value_without_a_target_is_no_component(override):
    message = refused(override)
    assert message.startswith("callbacks.")
    assert "a component is needed: a mapping with a _target_" in message


# YAML files


def write(folder: Path, file: str, text: str) -> Path:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_an_unknown_key_in_a_file_of_a_group(tmp_path):
    file = write(tmp_path, "method/mine.yaml", "defaults: [simclr]\ntemprature: 0.3\n")
    message = refused("method=mine", f"hydra.searchpath=[{tmp_path}]")
    assert message == f"unknown key 'method.temprature' (file: {file}); did you mean 'method.temperature'?"


def test_an_unknown_key_in_a_file_of_a_nested_group(tmp_path):
    file = write(tmp_path, "projector/wide.yaml", "defaults: [mlp]\nhiden: 9\n")
    message = refused("projector@method.projector=wide", f"hydra.searchpath=[{tmp_path}]")
    assert message.startswith(f"unknown key 'method.projector.hiden' (file: {file}); did you mean ")


def test_an_unknown_key_inside_a_list_of_a_file(tmp_path):
    text = (
        "_target_: ssl_lightning.data.views.Augment\nviews:\n  - {_target_: ssl_lightning.data.views.View, copy: 2}\n"
    )
    file = write(tmp_path, "augment/mine.yaml", text)
    message = refused("augment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert message == f"unknown key 'augment.views.0.copy' (file: {file}); did you mean 'augment.views.0.copies'?"


def test_a_wrong_value_in_a_file(tmp_path):
    file = write(tmp_path, "experiment/mine.yaml", "# @package _global_\noptimizer:\n  lr: fast\n")
    message = refused("experiment=mine", f"hydra.searchpath=[{tmp_path}]")
    assert message == f"optimizer.lr is 'fast' (file: {file}), but it should be a valid number."


def test_an_unknown_key_at_the_top_of_a_primary_config(tmp_path):
    file = write(tmp_path, "grid.yaml", "defaults: [/train, _self_]\nbatchsize: 3\n")
    message = refused(name="grid", folder=tmp_path)
    assert message == f"unknown key 'batchsize' (file: {file}); did you mean 'batch_size'?"


def _one_message(outcome: Outcome) -> str:
    assert outcome.code != 0
    assert "Traceback" not in outcome.err + outcome.out
    messages = [line for line in outcome.err.splitlines() if line.startswith("Error:")]
    assert len(messages) == 1
    return messages[0]


def test_ssl_train_says_which_file_is_wrong(command: Command, tmp_path):
    file = write(tmp_path / "mine", "optimizer/mine.yaml", "defaults: [adamw]\nwarm_epochs: 1\n")
    message = _one_message(command("ssl-train", "--config-dir", str(tmp_path / "mine"), "optimizer=mine"))
    assert message.startswith(f"Error: unknown key 'optimizer.warm_epochs' (file: {file}); did you mean 'optimizer.")
    assert not (tmp_path / "runs/default").exists() or not list((tmp_path / "runs/default").iterdir())


def test_ssl_sweep_says_which_file_is_wrong(command: Command, tmp_path):
    sweeper = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1\n"
    file = write(tmp_path, "grid.yaml", f"defaults: [/train, _self_]\nsweep: grid\ntraner: {{}}\n{sweeper}")
    message = _one_message(command("ssl-sweep", "grid.yaml"))
    assert message == f"Error: unknown key 'traner' (file: {file}); did you mean 'trainer'?"


def test_ssl_sweep_without_such_a_grid(command: Command):
    assert "did you mean 'quickstart'?" in _one_message(command("ssl-sweep", "quikstart"))


@pytest.mark.parametrize("override", ["methd=simclr", "method=simclrr", "seed=abc", "+optimizer.lrr=1", "seed", "lr=["])
def test_one_message_and_an_exit_code(command: Command, tmp_path, override):
    _one_message(command("ssl-train", override))
    assert not list(tmp_path.rglob("config.yaml"))


def test_debug_shows_the_traceback(command: Command):
    outcome = command("ssl-train", "seed=abc", "debug=true")
    assert outcome.code != 0
    assert outcome.err.count("Traceback") == 1
    assert "seed is 'abc'" in outcome.err


# Named components


def test_a_base_method_may_be_named_as_a_value_or_as_an_option():
    by_value = resolve(composed("method=gessl", "method.base=directclr"))
    by_option = resolve(composed("method=gessl", "method@method.base=directclr"))
    assert by_value == by_option
    assert by_value["method"]["base"]["_target_"] == "ssl_lightning.methods.directclr.DirectCLR"
    assert component_name(by_value["method"]) == "gessl-directclr"


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "projector").glob("*.yaml")))
def test_a_projector_may_be_named_as_a_value_or_as_an_option(name):
    by_value = resolve(composed(f"method.projector={name}"))
    assert by_value == resolve(composed(f"projector@method.projector={name}"))
    assert by_value["method"]["projector"]["_target_"].startswith("ssl_lightning.models.projectors.")


def test_a_named_component_of_a_component():
    config = resolve(composed("method=gessl", "method.base.projector=none"))
    assert config["method"]["base"]["projector"]["_target_"] == "ssl_lightning.models.projectors.none"


@pytest.mark.parametrize("subset", ["sas", "prototypes"])
@pytest.mark.parametrize("name", sorted(file.stem for file in (CONF / "proxy").glob("*.yaml")))
def test_a_proxy_may_be_named_as_a_value_or_as_an_option(subset, name):
    by_value = resolve(composed(f"subset={subset}", f"subset.proxy={name}"))
    assert by_value == resolve(composed(f"subset={subset}", f"proxy@subset.proxy={name}"))
    check_proxy(by_value)
    assert by_value["subset"]["proxy"]["method"]["_target_"].lower().endswith(f".{name}")


@pytest.mark.parametrize("name", ["labels", "kmeans", "few_labels"])
def test_latent_classes_may_be_named_as_a_value_or_as_an_option(name):
    by_value = resolve(composed("subset=sas", f"subset.latent={name}"))
    assert by_value == resolve(composed("subset=sas", f"latent@subset.latent={name}"))
    kind = by_value["subset"]["latent"]["_target_"].rpartition(".")[2]
    assert kind.lower() == name.replace("_", "")


SELECTED = [
    (),
    ("seed=3", "batch_size=64", "subset.fraction=0.4", "trainer=ddp_cpu"),
    ("dataset=cifar10", "backbone=resnet18", "method=gessl", "subset.latent=kmeans"),
    ("subset.proxy=supervised", "subset.views=3", "optimizer=lars"),
    ("experiment=simclr_cifar_sas",),
]


@pytest.mark.parametrize("overrides", SELECTED, ids=str)
def test_ssl_select_takes_what_ssl_train_takes(overrides):
    selected = resolve(composed(*overrides, name="select"), SelectConfig)
    assert selected == resolve(composed("subset=sas", *overrides))
    assert selected == resolve(composed(*overrides, name="select"))


@pytest.mark.parametrize("subset", sorted(file.stem for file in (CONF / "subset").glob("*.yaml")))
def test_ssl_select_takes_every_subset(subset):
    overrides = f"subset={subset}", "trainer.max_epochs=7", *NEEDED.get(f"subset={subset}", [])
    assert resolve(composed(*overrides, name="select"), SelectConfig) == resolve(composed(*overrides))


def test_ssl_select_does_not_look_at_what_only_a_training_needs():
    wrong = ("method.temperature=warm", "optimizer.lr=fast", "trainer.max_steps=many", "evaluation.k=few")
    resolve(composed("subset.proxy.run=mine", *wrong[:3], name="select"), SelectConfig)
    for override in wrong:
        assert refused(override).startswith(override.partition("=")[0])
    with pytest.raises(UserError, match=r"subset\.threshold is 'low'"):
        resolve(composed("subset.threshold=low", name="select"), SelectConfig)


def test_resolve_leaves_its_argument_alone():
    config = composed("method.projector=linear")
    before = OmegaConf.to_yaml(config)
    resolve(config)
    assert OmegaConf.to_yaml(config) == before


def test_a_resolved_config_resolves_to_itself():
    config = resolve(composed("method=gessl", "method.base=directclr"))
    assert resolve(OmegaConf.create(config)) == config


# Identity


@cache
def _resolved(*overrides: str) -> dict[str, Any]:
    return resolve(composed(*overrides))


def _identity(*overrides: str, ignore: tuple[str, ...] = ()) -> str:
    return identity(_resolved(*overrides), {}, ignore)


@pytest.mark.parametrize(
    "overrides",
    [
        ("sweep=other",),
        ("debug=true",),
        ("paths.runs=a", "paths.data=b", "paths.cache=c"),
        ("logger=wandb",),
        ("checkpoint.every_steps=1", "checkpoint.every_minutes=1.0"),
        ("evaluation.k=3", "evaluation.untrained=true"),
        ("callbacks=none",),
        ("trainer.log_every_n_steps=3",),
        ("trainer.enable_progress_bar=false",),
        ("+trainer.profiler=simple",),
        ("dataset=cifar10", "dataset.root=elsewhere", "dataset.download=true"),
    ],
    ids=lambda overrides: overrides[-1],
)
def test_what_cannot_change_the_encoder_is_no_part_of_the_identity(overrides):
    options = [override for override in overrides if override.startswith("dataset=")]
    assert _identity(*overrides) == _identity(*options)


IRRELEVANT_TO_A_RANKING = (
    "subset.cache",
    "subset.accelerator",
    "subset.memory_gib",
    "subset.proxy.dataset.root",
    "subset.proxy.dataset.cache",
    "subset.proxy.dataset.download",
    "subset.proxy.dataset.storage",
    "subset.proxy.dataset.resident_gib",
    "subset.proxy.dataset.workers",
    "subset.proxy.paths",
    "subset.proxy.evaluation",
    "subset.proxy.checkpoint",
    "subset.proxy.accelerator",
    "subset.proxy.enable_progress_bar",
    "subset.proxy.fast_dev_run",
)


@pytest.mark.parametrize("key", IRRELEVANT_TO_A_RANKING)
def test_what_cannot_change_a_ranking_is_no_part_of_the_identity(key):
    config = OmegaConf.to_container(OmegaConf.create(_resolved("subset=sas")))
    before = identity(config, {})
    *parents, last = key.split(".")
    node(config, ".".join(parents))[last] = "other"
    assert identity(config, {}) == before


def test_nothing_else_of_a_ranking_is_left_out_of_the_identity():
    assert {key for key in IRRELEVANT if key.startswith("subset.")} == set(IRRELEVANT_TO_A_RANKING)


SELECTING = (
    "subset.rule=row_sum",
    "subset.views=3",
    "subset.layer=embedding",
    "subset.threshold=0.1",
    "subset.tie_break=random",
    "subset.max_fraction=0.5",
    "subset.latent=kmeans",
    "subset.latent=few_labels",
    "subset.seed=1",
    "subset.proxy=supervised",
    "subset.proxy.run=mine",
    "subset.proxy.seed=1",
    "subset.proxy.max_epochs=3",
    "subset.proxy.batch_size=64",
    "subset.proxy.precision=bf16-mixed",
    "subset.proxy.channels_last=false",
    "subset.proxy.optimizer.lr=0.1",
    "subset.proxy.method.temperature=0.3",
    "+subset.proxy.callbacks.mine._target_=ssl_lightning.subsets.forgetting.ForgettingEvents",
)


def test_what_may_change_a_ranking_changes_the_identity():
    identities = [_identity("subset=sas", *change) for change in [(), *((override,) for override in SELECTING)]]
    assert len(set(identities)) == 1 + len(SELECTING)


RELEVANT = (
    "seed=1",
    "batch_size=128",
    "budget=steps",
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
    "subset.fraction=0.5",
    "subset.seed=1",
    "subset.budget=floor",
    "subset=random_balanced",
    "augment.views.0.flip_probability=0.3",
    "augment=simclr_cifar",
    "optimizer.lr=0.1",
    "optimizer.algorithm.betas=[0.5,0.999]",
    "optimizer=lars",
    "trainer.max_epochs=7",
    "trainer.max_steps=7",
    "trainer.precision=bf16-mixed",
    "trainer.devices=2",
    "trainer.accelerator=cpu",
    "+trainer.gradient_clip_val=1.0",
    "+trainer.sync_batchnorm=true",
    "+trainer.limit_train_batches=2",
)


def _override(override: str) -> str:
    return f"++{override}" if "flip_probability" in override else override


@pytest.mark.parametrize("override", RELEVANT)
def test_what_may_change_the_encoder_changes_the_identity(override):
    assert _identity(_override(override)) != _identity()


def test_relevant_keys_do_not_hide_one_another():
    identities = [_identity(_override(override)) for override in RELEVANT]
    assert len(set(identities)) == len(RELEVANT)


def test_the_identity_knows_what_the_config_does_not_say():
    config = resolve(composed())
    assert identity(config, {"data": "a"}) != identity(config, {"data": "b"})
    assert identity(config, {"processes": 1}) != identity(config, {"processes": 2})


def test_the_identity_is_eight_hexadecimal_digits_and_leaves_the_config_alone():
    config = resolve(composed())
    before = OmegaConf.to_yaml(OmegaConf.create(config))
    name = identity(config, {}, SEEDS)
    assert len(name) == 8
    assert int(name, 16) >= 0
    assert OmegaConf.to_yaml(OmegaConf.create(config)) == before


def test_a_cell_ignores_the_seeds_alone():
    cell = _identity(ignore=SEEDS)
    assert _identity("seed=5", ignore=SEEDS) == cell
    assert _identity("subset.seed=5", ignore=SEEDS) == cell
    for override in RELEVANT:
        if override not in ("seed=1", "subset.seed=1"):
            assert _identity(_override(override), ignore=SEEDS) != cell, override


def test_a_cell_of_rankings_ignores_the_seeds_of_their_proxies():
    cell = _identity("subset=sas", ignore=SEEDS)
    for override in SELECTING:
        assert (_identity("subset=sas", override, ignore=SEEDS) == cell) == ("seed=1" in override), override
