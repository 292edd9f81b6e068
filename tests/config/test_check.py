"""Whatever is wrong in a config is named: the key, where it was written, and what to write instead."""

import importlib.util
import inspect
import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_lightning.config.places import CONF
from ssl_lightning.config.resolve import resolve
from ssl_lightning.errors import UserError
from tests.composing import composed
from tests.config.configs import Command, forget, one_message, proxy_of, refused
from tests.parts import unannotated

__all__ = ["forget"]


# Wrong keys


@pytest.mark.one_in(2)
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


def test_what_only_some_options_of_a_grid_have_needs_a_grid_of_its_own(monkeypatch):
    monkeypatch.setattr("sys.argv", ["ssl-select", "-m", "subset=random,sas", "++subset.looks=2"])
    message = refused("subset=random", "++subset.looks=2")
    assert message.startswith("unknown key 'subset.looks'")
    assert message.endswith("Of subset=random,sas, rank or train those that have it in a grid of their own.")


@pytest.mark.parametrize("written", ["1", "0.5", "true"])
def test_what_should_be_a_string_is_one_in_the_quotes_that_the_message_gives(written):
    (advised,) = re.findall(r'In quotes it is one: "(.*)"\.$', refused(f"sweep={written}"))
    assert composed(advised)["sweep"] == advised.partition("=")[2].strip("'")
    assert "In quotes" not in refused("sweep=[a]")


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("lr", "optimizer.lr"),
        ("learning_rate", "optimizer.lr"),
        ("epochs", "trainer.max_epochs"),
        ("devices", "trainer.devices"),
        ("fraction", "subset.fraction"),
        ("temperature", "method.temperature"),
        ("hidden", "method.projector.hidden"),
    ],
)
@pytest.mark.parametrize("plus", ["", "+"])
def test_a_key_without_its_group_is_told_where_it_belongs(plus, key, meant):
    message = refused(f"{plus}{key}=3")
    assert message.startswith(f"unknown key '{key}' (command line")
    assert message.endswith(f"did you mean '{meant}'?")


@pytest.mark.parametrize(
    ("named", "key", "said"),
    [
        ("method.base=directclr", "method.base.d0", "method@method.base=<name>"),
        ("method.base.projector=mlp", "method.base.projector.hidden", "projector@method.base.projector=<name>"),
    ],
)
def test_a_key_of_what_was_given_as_a_name(named, key, said):
    message = refused("method=gessl", named, f"{key}=4")
    assert message.startswith(f"{key}: {named.partition('=')[0]} was given a name")
    assert f"{said}, and {key}=... can follow." in message
    option = f"{said.partition('=')[0]}={named.partition('=')[2]}"
    assert resolve(composed("method=gessl", option, f"{key}=4"))


def test_an_accepted_key_that_no_file_mentions_is_told_to_take_a_plus():
    assert "write +trainer.sync_batchnorm=" in refused("trainer.sync_batchnorm=true")
    assert resolve(composed("+trainer.sync_batchnorm=true"))["trainer"]["sync_batchnorm"] is True


def test_a_plus_before_a_key_of_a_file():
    """As commands from before it was in a file have it."""
    assert resolve(composed("+trainer.gradient_clip_val=1"))["trainer"]["gradient_clip_val"] == 1
    message = refused("+trainer.detect_anomaly=true")
    assert "An item is already at 'trainer.detect_anomaly'. Either remove + prefix" in message


# Wrong options


@pytest.mark.parametrize(
    ("override", "suggestion"),
    [
        ("method=simclrr", "did you mean 'simclr'?"),
        ("dataset=cifar1", "did you mean 'cifar10'?"),
        ("optimizer=zzz", "known here: adam, adamw, lars, lookahead, muon, sgd."),
    ],
)
def test_an_unknown_option_is_named_with_the_nearest(override, suggestion):
    assert refused(override) == f"{override}: there is no such option; {suggestion}"


@pytest.mark.parametrize(
    ("override", "plugin", "extra"),
    [
        ("hydra/launcher=submitit_slurm", "hydra_plugins.hydra_submitit_launcher", "slurm"),
        ("hydra/sweeper=optuna", "hydra_plugins.hydra_optuna_sweeper", "optuna"),
    ],
)
def test_an_option_that_comes_with_an_extra(override, plugin, extra):
    if importlib.util.find_spec(plugin):
        pytest.skip(f"{plugin} is installed")
    assert refused(override) == f"{override} is not installed: pip install 'ssl-lightning[{extra}]'."


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("paths.runs=~/a é", """'paths.runs=~/a é' is not understood. Quote a value .*: 'paths.runs="~/a é"'"""),
        ("method.name=epoch=9.ckpt", """shell: 'method.name="epoch=9.ckpt"'"""),
        ("seed", "'seed' is no setting. Write key=value."),
        ("seed=${nothing.here}", "seed.* cannot be resolved: Interpolation key 'nothing.here' not found. Mend"),
        ("experiment@=[", "is not understood"),
        ("+experiment=nowhere", "experiment=nowhere: there is no such option"),
    ],
)
def test_what_hydra_cannot_read_is_said_with_what_to_write(override, said):
    assert re.search(said, refused(override))


def test_an_unknown_option_inside_a_component():
    assert "directclrr" in (message := refused("method=gessl", "method.base=directclrr"))
    assert "did you mean 'directclr'?" in message
    assert "did you mean 'linear'?" in refused("method.projector=liner")


# Wrong values


@pytest.mark.one_in(6)
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
        ("budget=hours", "budget", "'epochs', 'steps' or 'compute'"),
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


@pytest.mark.parametrize(
    "thing",
    ["3", "[1,a]", "{_target_: torch.nn.Identity}", "[{_target_: torch.nn.Linear, in_features: 1, out_features: 2}]"],
)
def test_a_parameter_without_annotation_takes_anything(thing):
    mine = f"+callbacks.mine={{_target_: tests.parts.Unfinished, thing: {thing}}}"
    resolve(composed(mine))
    assert "did you mean" in refused("+callbacks.mine={_target_: tests.parts.Unfinished, thng: 3}")


def test_what_it_takes_is_checked_for_its_own_keys():
    mine = "+callbacks.mine={_target_: tests.parts.Unfinished, thing: {_target_: torch.nn.Linear, in_featurs: 1}}"
    assert "did you mean 'callbacks.mine.thing.in_features'?" in refused(mine)


def test_a_function_without_annotation_is_blamed_at_its_place():
    place = f"{inspect.getsourcefile(unannotated)}:{inspect.getsourcelines(unannotated)[1]}"
    message = refused("backbone._target_=tests.parts.unannotated")
    assert f"unannotated ({place}) is not annotated with what it returns. Write `-> torch" in message


@pytest.mark.parametrize("kind", ["method", "backbone", "optimizer", "evaluation", "dataset"])
def test_the_parts_of_a_proxy_are_checked_before_any_of_them_is_made(tmp_path, kind):
    config = composed("subset=sas")
    evil = {"_target_": "os.mkdir", "path": str(tmp_path / "evil")}
    OmegaConf.update(config, f"subset.proxy.{kind}", evil, force_add=True)
    plain = resolve(config)  # not needed yet
    with pytest.raises(UserError, match=rf"subset\.proxy\..*{kind}\._target_ is 'os\.mkdir'.*does not"):
        proxy_of(plain)
    assert not (tmp_path / "evil").exists()


@pytest.mark.one_in(6)
@pytest.mark.parametrize("name", ["ssl-select", "ssl-train"])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("subset.proxy.method._target_=torch.nn.Linear", "does not make a ssl_lightning.methods.method.SSLMethod"),
        ("subset.proxy.optimizer.lr=fast", "subset.proxy.optimizer.lr is 'fast' (command line: subset.proxy.opt"),
        ("+subset.proxy.method.temprature=3", "did you mean 'subset.proxy.method.temperature'?"),
        ("subset.proxy.trainer.max_epochs=0.5", "subset.proxy.trainer.max_epochs is 0.5 (command line"),
        ("+subset.proxy.trainer.max_epoch=1", "did you mean 'subset.proxy.trainer.max_epochs'?"),
        ("+subset.proxy.checkpoint.every_step=1", "did you mean 'subset.proxy.checkpoint.every_steps'?"),
    ],
)
def test_wrong_parts_of_a_proxy_are_one_message_when_it_is_needed(command: Command, tmp_path, name, override, said):
    assert said in one_message(command(name, "subset=sas", override))
    assert not list(tmp_path.rglob("checkpoints"))
    assert not list(tmp_path.rglob("*.np?"))


@pytest.mark.one_in(6)
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("subset.latent._target_=os.mkdir", "does not make a ssl_lightning.subsets.latent.LatentClasses"),
        ("subset.proxy.max_epochs=0", "unknown key 'subset.proxy.max_epochs' (command line"),
        ("+subset.proxy.optimiser=0", "did you mean 'subset.proxy.optimizer'?"),
        ("subset.proxy.optimiser=0", "did you mean 'subset.proxy.optimizer'?"),
        ("subset.proxy.channels_last=false", "write +subset.proxy.channels_last=..."),
        ("subset.proxy.trainer.accelerator=cpu", "write +subset.proxy.trainer.accelerator=..."),
        ("subset.proxy.trainer.sync_batchnorm=true", "write +subset.proxy.trainer.sync_batchnorm=..."),
        ("subset.proxy.trainer.max_epoch=1", "did you mean 'subset.proxy.trainer.max_epochs'?"),
        ("+subset.latent.clusters=3", "unknown key 'subset.latent.clusters'"),
        ("subset/latent=kmeans", "did you mean 'subset.latent'?"),
        ("subset.latent=kmean", "latent 'kmean': there is no such option; did you mean 'kmeans'?"),
        ("subset.quota=balance", "quota 'balance': there is no such option; did you mean 'balanced'?"),
        ("subset.redundancy=dedup", "redundancy 'dedup': there is no such option"),
        ("subset.proxy=supervise", "proxy 'supervise': there is no such option; did you mean 'supervised'?"),
        ("subset.latent=embeddings", "subset.latent.file has no value"),
        ("subset.threshold=1.0", "subset.threshold is 1.0"),
        ("subset.looks=0", "subset.looks is 0"),
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


OWN_DATASET = (
    "_target_: ssl_lightning.data.sources.digits.Digits\n"
    "name: mine\nimage_size: 8\nnum_classes: 10\nmean: [0.3]\nstd: [0.4]\n"
)


def test_a_dataset_without_views_of_its_own(tmp_path):
    write(tmp_path, "dataset/mine.yaml", OWN_DATASET + "channels: 1\n")
    message = refused("dataset=mine", f"hydra.searchpath=[{tmp_path}]")
    assert message.startswith("augment=mine: there is no such option; known here: aircraft, arrays, ")
    assert "views are those of augment/<its name>.yaml: write it (`defaults: [simclr_cifar]` is enough)" in message
    write(tmp_path, "augment/mine.yaml", "defaults: [simclr_cifar]\n")
    assert resolve(composed("dataset=mine", f"hydra.searchpath=[{tmp_path}]"))


def test_what_a_backbone_needs_of_a_dataset(tmp_path):
    write(tmp_path, "dataset/mine.yaml", OWN_DATASET)
    message = refused("dataset=mine", "augment=digits", f"hydra.searchpath=[{tmp_path}]")
    assert message.startswith(f"backbone.channels (file: {CONF / 'backbone/resnet_tiny.yaml'}) needs dataset.channels,")
    assert "Write it in the file of dataset, or add +dataset.channels=... to the command." in message


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


def test_ssl_train_says_which_file_is_wrong(command: Command, tmp_path):
    file = write(tmp_path / "mine", "optimizer/mine.yaml", "defaults: [adamw]\nwarm_epochs: 1\n")
    message = one_message(command("ssl-train", "--config-dir", str(tmp_path / "mine"), "optimizer=mine"))
    assert message.startswith(f"Error: unknown key 'optimizer.warm_epochs' (file: {file}); did you mean 'optimizer.")
    assert not (tmp_path / "runs/default").exists() or not list((tmp_path / "runs/default").iterdir())


def test_ssl_sweep_says_which_file_is_wrong(command: Command, tmp_path):
    sweeper = "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      seed: 1\n"
    file = write(tmp_path, "grid.yaml", f"defaults: [/train, _self_]\nsweep: grid\ntraner: {{}}\n{sweeper}")
    message = one_message(command("ssl-sweep", "grid.yaml"))
    assert message == f"Error: unknown key 'traner' (file: {file}); did you mean 'trainer'?"


def test_ssl_sweep_without_such_a_grid(command: Command):
    assert "did you mean 'quickstart'?" in one_message(command("ssl-sweep", "quikstart"))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("dataset=null", "dataset=null: dataset takes the name of an option. Write dataset=<one of aircraft, arrays, "),
        ("experiment=null", "Write experiment=<one of barlow_twins_cifar10_solo, "),
        (
            "~dataset",
            "no dataset is chosen, but another choice needs it. Choose one: dataset=<one of aircraft, arrays, ",
        ),
        ("~optimizer", "no optimizer is chosen, but method.optimizer needs it. Choose one: optimizer=<one of adam, "),
    ],
)
def test_a_group_without_a_choice(command: Command, override, said):
    assert said in one_message(command("ssl-train", override))


@pytest.mark.parametrize("override", ["methd=simclr", "method=simclrr", "seed=abc", "+optimizer.lrr=1", "seed", "lr=["])
def test_one_message_and_an_exit_code(command: Command, tmp_path, override):
    one_message(command("ssl-train", override))
    assert not list(tmp_path.rglob("config.yaml"))
